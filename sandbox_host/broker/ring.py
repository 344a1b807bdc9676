"""The last events of a host, for subscribers that come late. Bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.broker.topics import Wanted

MAX_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Packed data that is kept, however few events that are."""


class Ring:
    """Keeps what was published last. Whoever uses it has a lock.

    Args:
        limit: events that are kept; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: deque[PackedEvent] = deque()
        self._bytes = 0

    def add(self, event: PackedEvent) -> None:
        """Keep an event, and let the oldest go that are too many."""
        self._kept.append(event)
        self._bytes += len(event.data)
        while len(self._kept) > self.limit or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._kept.popleft().data)

    def last(self, count: int, wanted: Wanted) -> list[PackedEvent]:
        """Return up to ``count`` events of the wanted types, oldest first: the newest there are."""
        found: list[PackedEvent] = []
        for event in reversed(self._kept):
            if len(found) >= count:
                break
            if event.type in wanted:
                found.append(event)
        return found[::-1]

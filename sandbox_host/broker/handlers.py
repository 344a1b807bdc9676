"""What waits for a plugin's handlers: bounded; what comes when it is full is counted, and lost."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES
from sandbox_host.broker.policies import Policy, SubscriptionInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_WAITING_BYTES: Final = MAX_PAYLOAD_BYTES
"""Deliveries, packed, that may wait for one plugin."""


class HandlerQueue:
    """Deliveries that a plugin gets when it has handled others. Whoever uses it has a lock.

    Args:
        limit: deliveries that may wait.

    Attributes:
        dropped: events that never reach its handlers, because too much waited for them.
        delivered: events that were sent.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self.delivered = 0
        self._limit = limit
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event_type: str, payload: bytes) -> bool:
        """Keep a delivery for later; False if it is dropped."""
        if len(self._waiting) >= self._limit or self._bytes + len(payload) > MAX_WAITING_BYTES:
            self.dropped += 1
            return False
        self._waiting.append((event_type, payload))
        self._bytes += len(payload)
        return True

    def next(self) -> tuple[str, bytes]:
        """Return the oldest delivery, which waits no more.

        Raises:
            IndexError: none waits.
        """
        event_type, payload = self._waiting.popleft()
        self._bytes -= len(payload)
        return event_type, payload

    def sent(self, done: bool) -> None:
        """Count what was done with a delivery whose turn it was: sent, or dropped."""
        self.delivered += done
        self.dropped += not done

    def info(self, identity: str, types: Iterable[str]) -> SubscriptionInfo:
        """Return the counters of the plugin with this identity; without a lock, each is true."""
        return SubscriptionInfo(
            subscriber=identity,
            kind="plugin",
            types=tuple(types),
            policy=Policy.DROP_NEWEST.value,
            limit=self._limit,
            delivered=self.delivered,
            dropped=self.dropped,
            waiting=len(self._waiting),
            waiting_bytes=self._bytes,
        )

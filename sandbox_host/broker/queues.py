"""What waits for a subscriber in the application: bounded, the oldest dropped and counted."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.model import Event

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Packed data that may wait for one subscriber, however few events that are."""


class Subscription:
    """Events of some types, in the order they were published. Thread-safe.

    Args:
        types: what is wanted; empty means everything.
        limit: how many may wait; beyond it the oldest is dropped and counted in ``dropped``.
        on_close: called once when it is closed.
    """

    def __init__(
        self, types: frozenset[str], limit: int, on_close: Callable[[Subscription], None]
    ) -> None:
        self.types = types
        self.dropped = 0
        self._limit = limit
        self._on_close = on_close
        self._waiting: deque[PackedEvent] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._wake: Callable[[], None] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """No event will be added any more."""
        return self._closed

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from any thread whenever something was added or it was closed."""
        self._wake = wake

    def put(self, event: PackedEvent) -> None:
        """Add an event; never blocks."""
        with self._changed:
            if self._closed:
                return
            self._waiting.append(event)
            self._waiting_bytes += len(event.data)
            while len(self._waiting) > self._limit or self._waiting_bytes > MAX_WAITING_BYTES:
                self._waiting_bytes -= len(self._waiting.popleft().data)
                self.dropped += 1
            self._changed.notify()
        self._call_wake()

    def take(self) -> Event | None:
        """Return the next event, or None if none waits."""
        with self._changed:
            packed = self._next()
        return packed.unpack() if packed else None

    def wait(self, timeout: float | None) -> Event | None:
        """Return the next event, waiting for it; None at the timeout or when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            packed = self._next()
        return packed.unpack() if packed else None

    def _next(self) -> PackedEvent | None:
        if not self._waiting:
            return None
        packed = self._waiting.popleft()
        self._waiting_bytes -= len(packed.data)
        return packed

    def close(self) -> None:
        """End it; what waits can still be taken."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._on_close(self)
        self._call_wake()

    def _call_wake(self) -> None:
        if self._wake is not None:
            self._wake()

"""Hands each event to those who want it: plugins with a handler, and the application."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sandbox_host.broker.packed import PackedEvent
from sandbox_host.broker.queues import Subscription
from sandbox_host.broker.topics import check_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Deliver = Callable[[PackedEvent], None]


class Broker:
    """One host's events. Thread-safe; publishing never blocks.

    Args:
        clock: returns seconds since the epoch.
        queue_limit: how many events may wait for one subscriber of the application.
    """

    def __init__(self, clock: Callable[[], float], queue_limit: int) -> None:
        self._clock = clock
        self._queue_limit = queue_limit
        self._lock = threading.RLock()
        self._next_id = 1
        self._subscriptions: dict[Subscription, None] = {}
        self._handlers: dict[str, list[Deliver]] = {}

    def register(self, types: Iterable[str], deliver: Deliver) -> None:
        """Deliver these types to a plugin's handlers from now on."""
        with self._lock:
            for event_type in types:
                self._handlers.setdefault(event_type, []).append(deliver)

    def unregister(self, deliver: Deliver) -> None:
        """Deliver nothing to the plugin any more."""
        with self._lock:
            for event_type, handlers in list(self._handlers.items()):
                self._handlers[event_type] = [d for d in handlers if d != deliver]

    def subscribe(self, types: Iterable[str]) -> Subscription:
        """Return a subscription that gets these types, or all, from this moment on.

        Raises:
            UsageError: a type is malformed.
        """
        wanted = frozenset(check_type(event_type) for event_type in types)
        subscription = Subscription(wanted, self._queue_limit, self._forget)
        with self._lock:
            self._subscriptions[subscription] = None
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.pop(subscription, None)

    def publish(self, event_type: str, data: bytes, source: str) -> PackedEvent:
        """Stamp an event and hand it out, in the same order to everybody.

        Args:
            event_type: its type; that ``source`` may publish it has been checked.
            data: packed, and checked against the wire's bounds for events.
            source: identity of a plugin, or "host".

        Raises:
            UsageError: the type is malformed.
        """
        check_type(event_type)
        # Held while it is handed out: nobody sees a later event first. Nothing below blocks.
        with self._lock:
            event = PackedEvent(event_type, data, self._clock(), source, self._next_id)
            self._next_id += 1
            for deliver in self._handlers.get(event_type, ()):
                deliver(event)
            for subscription in self._subscriptions:
                if not subscription.types or event_type in subscription.types:
                    subscription.put(event)
        return event

    def close(self) -> None:
        """End all subscriptions."""
        with self._lock:
            subscriptions = list(self._subscriptions)
            self._handlers.clear()
        for subscription in subscriptions:
            subscription.close()

"""Hands each event to those who want it: plugins with a handler, and the application."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import MAX_EVENT_BYTES
from sandbox_host.broker.queues import Subscription
from sandbox_host.broker.topics import check_type
from sandbox_host.errors import UsageError
from sandbox_host.model import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ENVELOPE_BYTES: Final = 512
"""Room for source, time and number beside the data."""


class Broker:
    """One host's events. Thread-safe; publishing never blocks.

    Args:
        clock: returns seconds since the epoch.
        queue_limit: how many events may wait for one subscriber of the application.
    """

    def __init__(self, clock: Callable[[], float], queue_limit: int) -> None:
        self._clock = clock
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._next_id = 1
        self._subscriptions: set[Subscription] = set()
        self._handlers: dict[str, dict[str, Callable[[Event, bytes], bool]]] = {}
        self.published = 0
        self.undelivered = 0

    def register(
        self, plugin: str, types: Iterable[str], deliver: Callable[[Event, bytes], bool]
    ) -> None:
        """Deliver these types to a plugin's handlers from now on."""
        with self._lock:
            for event_type in types:
                self._handlers.setdefault(event_type, {})[plugin] = deliver

    def unregister(self, plugin: str) -> None:
        """Deliver nothing to the plugin any more."""
        with self._lock:
            for handlers in self._handlers.values():
                handlers.pop(plugin, None)

    def subscribe(self, types: Iterable[str]) -> Subscription:
        """Return a subscription that gets these types, or all, from this moment on.

        Raises:
            UsageError: a type is malformed.
        """
        wanted = frozenset(check_type(event_type) for event_type in types)
        subscription = Subscription(wanted, self._queue_limit, self._forget)
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)

    def publish(self, event_type: str, data: Any, source: str) -> Event:
        """Stamp an event and hand it out.

        Args:
            event_type: its type; that ``source`` may publish it has been checked.
            data: what `plugin_sdk.wire.codec` carries.
            source: identity of a plugin, or "host".

        Raises:
            UsageError: the type is malformed, or the data cannot be carried.
        """
        check_type(event_type)
        with self._lock:
            event = Event(event_type, data, self._clock(), source, self._next_id)
            self._next_id += 1
            handlers = list(self._handlers.get(event_type, {}).values())
            subscriptions = [s for s in self._subscriptions if not s.types or event_type in s.types]
        payload = _pack(event)
        self.published += 1
        for deliver in handlers:
            if not deliver(event, payload):
                self.undelivered += 1
        for subscription in subscriptions:
            subscription.put(event)
        return event

    def close(self) -> None:
        """End all subscriptions."""
        with self._lock:
            subscriptions = list(self._subscriptions)
            self._handlers.clear()
        for subscription in subscriptions:
            subscription.close()


def _pack(event: Event) -> bytes:
    try:
        return codec.pack(
            {
                "data": event.data,
                "timestamp": event.timestamp,
                "source": event.source,
                "id": event.id,
            },
            MAX_EVENT_BYTES + _ENVELOPE_BYTES,
        )
    except PayloadError as error:
        text = f"The data of the event {event.type} cannot be carried: {error}."
        raise UsageError(text) from None

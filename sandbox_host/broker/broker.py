"""Hands each event to those who want it: plugins with a handler, and the application."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from sandbox_host.broker.packed import PackedEvent
from sandbox_host.broker.policies import Bounds
from sandbox_host.broker.publication import Publication
from sandbox_host.broker.queues import Subscription
from sandbox_host.broker.ring import Ring
from sandbox_host.broker.topics import Wanted, check_type
from sandbox_host.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.broker.store import EventStore

    Deliver = Callable[[PackedEvent], bool]


class Broker:
    """One host's events. Thread-safe; handing an event out never blocks.

    Args:
        clock: returns seconds since the epoch.
        queue_limit: how many events may wait for one subscriber that does not say.
        replay_limit: how many events are kept for subscribers that come late.
    """

    def __init__(self, clock: Callable[[], float], queue_limit: int, replay_limit: int = 0) -> None:
        self._clock = clock
        self._queue_limit = queue_limit
        self._lock = threading.RLock()
        self._next_id = 1
        self._ring = Ring(replay_limit)
        self._store: EventStore | None = None
        self._outgoing: deque[Publication] = deque()
        self._handing_out = False
        self._subscriptions: dict[Subscription, None] = {}
        self._handlers: dict[str, list[Deliver]] = {}
        self._relief: dict[Deliver, Callable[[], object]] = {}
        self._behind: dict[Deliver, None] = {}
        self._relieving = threading.Lock()

    def keep_in(self, store: EventStore) -> None:
        """Write down what durable subscriptions want, and number above what they have."""
        with self._lock:
            self._store = store
            self._next_id = max(self._next_id, store.last_id + 1)

    def register(
        self,
        types: Iterable[str],
        deliver: Deliver,
        relieve: Callable[[], object],
        instead_of: tuple[Deliver, Callable[[], Iterable[PackedEvent]]] | None = None,
    ) -> None:
        """Deliver these types to a plugin's handlers from now on.

        Args:
            types: event types.
            deliver: takes each event; never blocks. Tells whether it is worth to relieve it.
            relieve: called by `Broker.relieve`, where so.
            instead_of: what took events for another version of the plugin, and returns what waits
                there: that comes here, and no event to both versions, or to neither.
        """
        types = tuple(types)
        with self._lock:
            if instead_of is not None:
                before, leave = instead_of
                self.unregister(before)
                for event in leave():
                    if event.type in types:  # the other version may have had rights that are gone
                        deliver(event)
            self._relief[deliver] = relieve
            for event_type in types:
                self._handlers.setdefault(event_type, []).append(deliver)

    def unregister(self, deliver: Deliver) -> None:
        """Deliver nothing to the plugin any more."""
        with self._lock:
            self._relief.pop(deliver, None)
            for event_type, handlers in list(self._handlers.items()):
                self._handlers[event_type] = [d for d in handlers if d != deliver]

    def subscribe(
        self, types: Iterable[str], bounds: Bounds | None = None, replay: int = 0
    ) -> Subscription:
        """Return a subscription that gets these types, or all, from this moment on.

        Args:
            types: event types, and patterns of them.
            bounds: how much may wait, and what happens beyond.
            replay: how many of the last events of these types it gets first, if so many are kept.

        Raises:
            UsageError: a type is malformed, or more is to be replayed than is kept or may wait.
        """
        wanted = Wanted(types)
        bounds = bounds or Bounds(self._queue_limit)
        most = min(self._ring.limit, bounds.limit)
        if not 0 <= replay <= most:
            text = f"Up to {most} events can be replayed to this subscription, not {replay!r}."
            remedy = "replay_events is how many are kept, and its queue how many it may get."
            raise UsageError(text, remedy=remedy)
        # Held while it is filled and entered: nothing is missing in between, and nothing is double.
        with self._lock:
            first = self._ring.last(replay, wanted)
            subscription = Subscription(wanted, bounds, self._forget, first)
            self._subscriptions[subscription] = None
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.pop(subscription, None)

    def infos(self) -> list[SubscriptionInfo]:
        """Return the counters of the application's subscriptions, oldest first."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        return [subscription.info() for subscription in subscriptions]

    def publish(self, event_type: str, data: bytes, source: str) -> PackedEvent:
        """Begin an event and wait for nothing; see `begin`."""
        return self.begin(event_type, data, source).event

    def begin(self, event_type: str, data: bytes, source: str) -> Publication:
        """Stamp an event and hand it out, in the same order to everybody; never blocks.

        Args:
            event_type: its type; that ``source`` may publish it has been checked.
            data: packed, and checked against the wire's bounds for events.
            source: identity of a plugin, or "host".

        Raises:
            UsageError: the type is malformed.
            EventStoreFullError: a durable subscription can take no more; nobody gets the event.
            EventStoreError: a durable subscription wants it, and the store is closed.
        """
        check_type(event_type)
        with self._lock:
            event = PackedEvent(event_type, data, self._clock(), source, self._next_id)
            stored = self._store.add(event) if self._store is not None else None
            self._next_id += 1
            publication = Publication(event, stored)
            self._outgoing.append(publication)
            if not self._handing_out:
                self._hand_out()
        return publication

    def relieve(self) -> None:
        """Look whether plugins that are behind have handled something: what waits goes then.

        For who has published, and holds no lock: else one who publishes again and again could keep
        the thread that reads for all plugins from it.
        """
        # One at a time: what is read may be events, which are published from inside.
        if not self._behind or not self._relieving.acquire(blocking=False):
            return
        try:
            behind, self._behind = self._behind, {}
            for deliver in list(behind):
                if (relieve := self._relief.get(deliver)) is not None:
                    relieve()
        finally:
            self._relieving.release()

    def _hand_out(self) -> None:
        """Give everybody what was begun: nobody sees a later event first.

        What is begun from inside, because a plugin could not be told and is ended, comes after.
        """
        self._handing_out = True
        try:
            while self._outgoing:
                publication = self._outgoing.popleft()
                event = publication.event
                self._ring.add(event)
                if handlers := self._handlers.get(event.type):
                    event.prepare()  # once, whoever gets it
                    for deliver in handlers:
                        if deliver(event):
                            self._behind[deliver] = None
                for subscription in list(self._subscriptions):  # one that is too slow is closed
                    if event.type not in subscription.wanted:
                        continue
                    if (held := subscription.put(event)) is not None:
                        publication.held.append((subscription, held))
        finally:
            self._handing_out = False

    def close(self) -> None:
        """End all subscriptions."""
        with self._lock:
            subscriptions = list(self._subscriptions)
            self._handlers.clear()
        for subscription in subscriptions:
            subscription.close()

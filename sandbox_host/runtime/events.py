"""A host's events: its broker, and the store of durable ones once it is needed."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import EVENT
from sandbox_host.broker.broker import Broker
from sandbox_host.broker.durable import DurableBounds
from sandbox_host.broker.policies import Bounds, Policy
from sandbox_host.errors import EventStoreInUseError, UsageError

if TYPE_CHECKING:
    from sandbox_host.broker.durable import DurableSubscription
    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.broker.publication import Publication
    from sandbox_host.broker.queues import Subscription
    from sandbox_host.broker.store import EventStore
    from sandbox_host.config import HostConfig

_log = logging.getLogger("sandbox_host")

HOST: Final = "host"
"""The source of events that no plugin published."""

REDELIVER_SECONDS: Final = 30.0
"""After so long a durable event comes again that was not acknowledged, unless its reader says
otherwise."""

_PATIENCE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How an application reads events; see `SandboxHost.subscribe`."""

    policy: Policy | str = Policy.DROP_OLDEST
    queue: int | None = None
    deadline: float = 0.0
    replay: int = 0
    durable: str | None = None
    redeliver_after: float | None = None


class EventDesk:
    """What a host does with events. Thread-safe.

    Args:
        config: the operator's decisions.

    Attributes:
        broker: hands events out.
    """

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._store: EventStore | None = None
        clock = lambda: datetime.now(UTC).timestamp()  # noqa: E731 - a name for an argument
        self.broker = Broker(clock, config.event_queue, config.replay_events)

    def open(self) -> None:
        """Take the store, if there is one or there has to be: durable subscriptions outlive hosts.

        Raises:
            EventStoreInUseError: another host has it, and ``require_event_store`` is set.
            EventStoreError: it cannot be used.
        """
        from sandbox_host.broker.store_file import STORE_NAME

        if self._config.require_event_store:
            self._take_store(_PATIENCE_SECONDS)
        elif os.path.lexists(self._config.state_dir / STORE_NAME):
            try:
                self._take_store(0.0)
            except EventStoreInUseError as error:
                # Its subscriptions get that host's events; this one may have nothing for them.
                _log.warning("%s What this host publishes is not kept there.", error.message)

    def _take_store(self, patience: float) -> EventStore:
        # SQLite is loaded by hosts that use it.
        from sandbox_host.broker.store import EventStore

        with self._lock:
            if self._store is None:
                config = self._config
                age = config.durable_age_seconds
                bounds = DurableBounds(config.durable_events, config.durable_bytes, age)
                self._store = EventStore(config.state_dir, bounds, patience)
                self.broker.keep_in(self._store)
            return self._store

    def begin(self, event_type: str, data: Any) -> Publication:
        """Hand out an event of the application's; wait for what is returned.

        Raises:
            UsageError: the type is malformed, or the data cannot be carried.
            EventStoreFullError: a durable subscription can take no more; nobody gets the event.
        """
        try:
            packed = codec.pack(data, EVENT)
        except PayloadError as error:
            text = f"The data of the event {event_type} cannot be carried: {error}."
            raise UsageError(text) from None
        publication = self.broker.begin(event_type, packed, HOST)
        self.broker.relieve()
        return publication

    def subscribe(
        self, types: tuple[str, ...], reading: Reading
    ) -> Subscription | DurableSubscription:
        """Return a subscription to these types and patterns, or to all.

        Raises:
            UsageError: an argument is malformed, or does not go with another.
            EventStoreError: the store cannot be used.
        """
        if reading.durable is None:
            if reading.redeliver_after is not None:
                text = "redeliver_after belongs to a durable subscription."
                raise UsageError(text, remedy='Say subscribe(…, durable="a_name").')
            limit = self._config.event_queue if reading.queue is None else reading.queue
            bounds = Bounds(limit, Policy.of(reading.policy), reading.deadline)
            return self.broker.subscribe(types, bounds, reading.replay)
        plain = Reading(durable=reading.durable, redeliver_after=reading.redeliver_after)
        if reading != plain:
            text = "A durable subscription has no policy, queue, deadline or replay of its own."
            remedy = "It keeps everything until it is acknowledged; leave the other arguments out."
            raise UsageError(text, remedy=remedy)
        after = reading.redeliver_after
        store = self._take_store(0.0)
        return store.subscribe(
            reading.durable, types, REDELIVER_SECONDS if after is None else after
        )

    def infos(self) -> list[SubscriptionInfo]:
        """Return the counters of the application's subscriptions, and of the durable ones."""
        store = self._store
        return [*self.broker.infos(), *(store.infos() if store is not None else ())]

    def drop(self, name: str) -> int:
        """Give up a durable subscription; return how many events waited for it.

        Raises:
            UsageError: there is none of that name.
            EventStoreError: the store cannot be used.
        """
        return self._take_store(0.0).drop(name)

    def close(self) -> None:
        """End all subscriptions; what durable ones did not acknowledge waits for the next host."""
        self.broker.close()
        with self._lock:
            if self._store is not None:
                self._store.close()

    def forget(self) -> None:
        """Belong to a forked copy of the host."""
        if self._store is not None:
            self._store.forget()

"""A broker with a store, for tests that close and open it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plugin_sdk.wire.codec import pack
from sandbox_host.broker.broker import Broker
from sandbox_host.broker.durable import DurableBounds, DurableSubscription
from sandbox_host.broker.store import EventStore

BOUNDS = DurableBounds(1_000, 1024 * 1024, 3_600.0)


class Shop:
    """A broker, its store, and a clock that a test sets.

    Attributes:
        now: what the broker's clock says.
    """

    def __init__(self, directory: Path, bounds: DurableBounds = BOUNDS) -> None:
        self.now = 1_000.0
        self.broker = Broker(lambda: self.now, 100)
        self.store = EventStore(directory, bounds)
        self.broker.keep_in(self.store)

    def read(self, name: str = "billing", *types: str, after: float = 60.0) -> DurableSubscription:
        """Return a reader of a durable subscription."""
        return self.store.subscribe(name, types or ("orders.*",), after)

    def publish(self, value: object, event_type: str = "orders.new", source: str = "host") -> int:
        """Publish an event, wait until it is acknowledged, and return its id."""
        publication = self.broker.begin(event_type, pack(value), source)
        publication.wait()
        return publication.event.id


@contextmanager
def shop(directory: Path, bounds: DurableBounds = BOUNDS) -> Iterator[Shop]:
    """Open a shop, and close it."""
    opened = Shop(directory, bounds)
    try:
        yield opened
    finally:
        opened.broker.close()
        opened.store.close()


def all_of(reader: DurableSubscription) -> list[object]:
    """Return the data of everything that can be read now; nothing is acknowledged."""
    return [event.data for event in iter(reader.take, None)]

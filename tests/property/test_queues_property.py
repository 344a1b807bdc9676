"""Queues keep to their policy's model, and a store loses nothing that it has acknowledged."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_sdk.wire.codec import pack
from sandbox_host.broker import queues
from sandbox_host.broker.packed import PackedEvent
from sandbox_host.broker.policies import Bounds, Policy
from sandbox_host.broker.queues import Subscription
from sandbox_host.broker.topics import Wanted
from sandbox_host.errors import EventStoreError, SubscriberTooSlowError
from tests.support.event_stores import Shop

BYTES, HELD_EVENTS, HELD_BYTES, DEADLINE = 100, 3, 60, 2.0

puts = st.tuples(st.just("put"), st.sampled_from(["one", "two"]), st.integers(1, 60))
queue_steps = st.lists(
    puts | puts | st.just(("take",)) | st.tuples(st.just("pass"), st.floats(0.1, 3.0)),
    max_size=60,
)


@dataclass
class Model:
    """A queue as its documentation has it, with no thought of speed."""

    bounds: Bounds
    waiting: list[PackedEvent] = field(default_factory=list)
    held: list[tuple[PackedEvent, float]] = field(default_factory=list)
    dropped: int = 0
    closed: bool = False

    def fits(self, event: PackedEvent) -> bool:
        size = sum(len(one.data) for one in [*self.waiting, event])
        return len(self.waiting) < self.bounds.limit and size <= BYTES

    def settle(self, now: float) -> None:
        while self.held:
            event, until = self.held[0]
            if until <= now:
                self.dropped += 1
            elif self.fits(event):
                self.waiting.append(event)
            else:
                return
            self.held.pop(0)

    def put(self, event: PackedEvent, now: float) -> None:
        if self.closed:
            return
        self.settle(now)
        if not self.held and self.fits(event):
            self.waiting.append(event)
        elif self.bounds.policy is Policy.DROP_OLDEST:
            while not self.fits(event):
                self.waiting.pop(0)
                self.dropped += 1
            self.waiting.append(event)
        elif self.bounds.policy is Policy.BLOCK:
            of_source = [len(e.data) for e, _ in self.held if e.source == event.source]
            room = sum(of_source) + len(event.data) <= HELD_BYTES and len(of_source) < HELD_EVENTS
            if room:
                self.held.append((event, now + DEADLINE))
            self.dropped += not room
        else:
            self.dropped += 1
            self.closed = self.bounds.policy is Policy.DISCONNECT

    def take(self, now: float) -> int | None:
        number = self.waiting.pop(0).id if self.waiting else None
        self.settle(now)
        return number


SMALL = {"MAX_WAITING_BYTES": BYTES, "HELD_EVENTS": HELD_EVENTS, "HELD_BYTES": HELD_BYTES}


@settings(max_examples=200)
@given(policy=st.sampled_from(Policy), limit=st.integers(1, 4), steps=queue_steps)
@mock.patch.multiple(queues, **SMALL)
def test_a_queue_is_as_its_model(
    policy: Policy, limit: int, steps: list[tuple[object, ...]]
) -> None:
    now = 100.0
    bounds = Bounds(limit, policy, DEADLINE if policy is Policy.BLOCK else 0.0)
    model = Model(bounds)
    queue = Subscription(Wanted([]), bounds, lambda _: None, clock=lambda: now)
    wanted, taken = Counter[str](), []
    for number, step in enumerate(steps):
        match step:
            case ("put", str(source), int(size)):
                event = PackedEvent("a", pack(b"x" * (size - 2)), 0.0, source, number)
                wanted[source] += not queue.closed
                model.put(event, now)
                queue.put(event)
            case ("pass", float(seconds)):
                now += seconds
            case _:
                expected = model.take(now)
                try:
                    event_taken = queue.take()
                except SubscriberTooSlowError:
                    event_taken = None
                    assert model.closed
                assert (event_taken.id if event_taken else None) == expected
                taken += [event_taken] if event_taken else []
        info = queue.info()
        model.settle(now)
        assert queue.closed is model.closed
        assert (info.waiting, info.dropped) == (len(model.waiting) + len(model.held), model.dropped)
        # Nothing is uncounted, and everything is bounded.
        assert info.delivered + info.waiting + info.dropped == wanted.total()
        assert info.waiting <= limit + 2 * HELD_EVENTS
        assert info.waiting_bytes <= BYTES + 2 * HELD_BYTES
    # The order of each publisher is kept.
    assert [event.id for event in taken] == sorted(event.id for event in taken)


store_steps = st.lists(
    st.tuples(st.just("publish"), st.integers(1, 5))
    | st.tuples(st.just("read"), st.lists(st.booleans(), min_size=1, max_size=6))
    | st.sampled_from([("close",), ("crash",), ("fail before",), ("fail after",)]),
    max_size=20,
)


def failing(shop: Shop, after: bool) -> mock._patch[object]:
    """Have the disk fail, before a commit or after it."""
    commit: Callable[..., None] = shop.store._commit

    def fail(batch: object) -> None:
        if after:
            commit(batch)
        raise sqlite3.OperationalError

    return mock.patch.object(shop.store, "_commit", fail)


def end(shop: Shop, crash: bool) -> None:
    """Close a shop; a crash is one after which nothing more is written."""
    if not crash:
        shop.store.close()
        return
    with failing(shop, after=False):
        shop.store.close()


@settings(max_examples=40)
@given(store_steps)
def test_what_was_acknowledged_to_its_publisher_comes_until_its_reader_has(
    steps: list[tuple[object, ...]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shop = Shop(Path(directory))
        reader = shop.read()
        told, tried, acknowledged, met = set[int](), set[int](), set[int](), set[int]()
        for step in [*steps, ("crash",)]:
            match step:
                case ("publish", int(count)):
                    for _ in range(count):
                        number = shop.publish(None)
                        # Restarts or not, what a reader may have seen keeps its id to itself.
                        assert number not in told | met
                        told.add(number)
                        tried.add(number)
                case ("read", list(acks)):
                    for ack in acks:
                        event = reader.take()
                        met |= {event.id} if event is not None else set()
                        if event is not None and ack:
                            event.ack()
                            acknowledged.add(event.id)
                case ("close",) | ("crash",):
                    end(shop, crash=step == ("crash",))
                    shop = Shop(Path(directory))
                    reader = shop.read()
                    seen = [event.id for event in iter(reader.take, None)]
                    assert seen == sorted(set(seen))
                    met |= set(seen)
                    assert told - acknowledged <= set(seen) <= tried
                    reader.close()
                    reader = shop.read()
                case ("fail before",) | ("fail after",):
                    with failing(shop, after=step == ("fail after",)):
                        try:
                            shop.publish(None)
                        except EventStoreError:
                            tried.add(shop.broker.publish("other", pack(None), "host").id - 1)
        shop.store.close()

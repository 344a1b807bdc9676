"""Who gets an event, in which order, and what happens when somebody does not keep up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.events import join_events, unpack_events
from sandbox_host.broker.broker import Broker
from sandbox_host.broker.packed import PackedEvent
from sandbox_host.broker.queues import MAX_WAITING_BYTES
from sandbox_host.errors import UsageError


class Handler:
    """What a plugin registers."""

    def __init__(self) -> None:
        self.got: list[PackedEvent] = []

    def __call__(self, event: PackedEvent) -> bool:
        self.got.append(event)
        return False


@pytest.fixture
def broker() -> Broker:
    return Broker(lambda: 1_234.5, 3)


def test_stamps_are_the_hosts(broker: Broker) -> None:
    handler = Handler()
    broker.register(["data_processed"], handler, bool)
    first = broker.publish("data_processed", pack({"rows": 1}), "publisher")
    second = broker.publish("data_processed", pack(None), "host")
    assert (first.id, second.id) == (1, 2)
    assert (first.source, first.timestamp) == ("publisher", 1_234.5)
    assert handler.got == [first, second]


def test_delivery_is_one_object_around_the_packed_data() -> None:
    event = PackedEvent("a", pack({"rows": [1, 2]}), 1_234.5, "publisher", 7)
    assert unpack(event.delivery()) == {
        "data": {"rows": [1, 2]},
        "timestamp": 1_234.5,
        "source": "publisher",
        "id": 7,
    }
    assert event.unpack().data == {"rows": [1, 2]}
    assert (event.unpack().type, event.unpack().source) == ("a", "publisher")


def test_many_deliveries_are_joined_as_they_were_packed() -> None:
    events = [PackedEvent("a", pack([number]), 0.5, "publisher", number) for number in range(300)]
    payload = join_events([event.prepare().entry for event in events], len(events))
    expected = [[[number], 0.5, "publisher", number] for number in range(300)]
    assert list(unpack_events(payload, 300)) == expected
    for broken, count in ((payload, 299), (b"", 0), (b"\x80", 1), (payload[3:], 300)):
        with pytest.raises(PayloadError, match="no list of"):
            unpack_events(broken, count)


def test_who_is_behind_is_relieved_once_by_one_publisher(broker: Broker) -> None:
    relieved: list[str] = []

    def relieve() -> None:
        relieved.append("behind")
        broker.publish("a", pack(None), "host")  # of what was read: it is behind again
        broker.relieve()

    broker.register(["a"], lambda _: True, relieve)
    broker.register(["a"], lambda _: False, lambda: relieved.append("not behind"))
    broker.relieve()
    assert relieved == []
    broker.publish("a", pack(None), "host")
    assert relieved == []
    broker.relieve()
    assert relieved == ["behind"]
    broker.relieve()
    assert relieved == ["behind"] * 2


def test_nobody_is_relieved_who_has_gone(broker: Broker) -> None:
    relieved: list[int] = []

    def behind(_: PackedEvent) -> bool:
        return True

    broker.register(["a"], behind, lambda: relieved.append(1))
    broker.publish("a", pack(None), "host")
    broker.unregister(behind)
    broker.relieve()
    assert relieved == []


def test_what_waits_for_one_version_goes_to_the_next_as_far_as_that_handles_it(
    broker: Broker,
) -> None:
    def old(_: PackedEvent) -> bool:
        return False

    kept: list[PackedEvent] = []
    taken: list[str] = []

    def new(event: PackedEvent) -> bool:
        taken.append(event.type)
        return False

    broker.register(["a", "secret"], lambda event: kept.append(event) or False, bool)  # type: ignore[func-returns-value]
    for event_type in ("a", "secret", "a"):
        broker.publish(event_type, pack(None), "host")
    broker.register(iter(["a", "b"]), new, bool, (old, lambda: kept))
    broker.publish("b", pack(None), "host")
    assert taken == ["a", "a", "b"]


def test_only_who_wants_it(broker: Broker) -> None:
    one, two = Handler(), Handler()
    broker.register(["a"], one, bool)
    broker.register(["b"], two, bool)
    everything, only_b = broker.subscribe([]), broker.subscribe(["b"])
    broker.publish("a", pack(1), "host")
    broker.publish("b", pack(2), "host")
    assert ([e.type for e in one.got], [e.type for e in two.got]) == (["a"], ["b"])
    assert [event.data for event in iter(everything.take, None)] == [1, 2]
    assert [event.data for event in iter(only_b.take, None)] == [2]


def test_unregistered_gets_nothing(broker: Broker) -> None:
    handler, other = Handler(), Handler()
    broker.register(["a", "b"], handler, bool)
    broker.register(["a"], other, bool)
    broker.unregister(handler)
    broker.unregister(Handler())
    broker.publish("a", pack(1), "host")
    assert (handler.got, len(other.got)) == ([], 1)


def test_oldest_are_dropped_and_counted(broker: Broker) -> None:
    subscription = broker.subscribe(["a"])
    for number in range(5):
        broker.publish("a", pack(number), "host")
    assert [event.data for event in iter(subscription.take, None)] == [2, 3, 4]
    assert subscription.dropped == 2


def test_waiting_bytes_are_bounded_too() -> None:
    broker = Broker(lambda: 0.0, 1_000)
    subscription = broker.subscribe(["a"])
    large = pack(bytes(200_000))
    fitting = MAX_WAITING_BYTES // len(large)
    for _ in range(fitting + 5):
        broker.publish("a", large, "host")
    assert subscription.dropped == 5
    assert len(list(iter(subscription.take, None))) == fitting
    broker.publish("a", large, "host")
    assert subscription.dropped == 5


def test_everybody_sees_the_same_order(broker: Broker) -> None:
    handler = Handler()
    broker.register(["a"], handler, bool)
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(broker.publish, "a", pack(number), "host")
    assert [event.id for event in handler.got] == list(range(1, 201))


def test_handler_may_publish(broker: Broker) -> None:
    answers = Handler()
    broker.register(["b"], answers, bool)
    broker.register(["a"], lambda _: bool(broker.publish("b", pack(None), "host")), bool)
    broker.publish("a", pack(None), "host")
    assert [event.type for event in answers.got] == ["b"]


def test_closed_subscription_gets_nothing_and_keeps_what_it_has(broker: Broker) -> None:
    subscription = broker.subscribe([])
    broker.publish("a", pack(1), "host")
    subscription.close()
    subscription.close()
    broker.publish("a", pack(2), "host")
    first = subscription.wait(1)
    assert first is not None
    assert (first.data, subscription.wait(None), subscription.closed) == (1, None, True)


def test_closing_the_broker_wakes_who_waits(broker: Broker) -> None:
    subscription = broker.subscribe([])
    woken: list[object] = []
    thread = threading.Thread(target=lambda: woken.append(subscription.wait(None)))
    thread.start()
    broker.close()
    thread.join(10)
    assert woken == [None]


def test_on_change_is_called_for_events_and_the_end(broker: Broker) -> None:
    subscription = broker.subscribe([])
    calls: list[int] = []
    subscription.on_change(lambda: calls.append(1))
    broker.publish("a", pack(1), "host")
    subscription.close()
    assert len(calls) == 2


@pytest.mark.parametrize("event_type", ["", "a b", ".a"])
def test_malformed_type_reaches_nobody(broker: Broker, event_type: str) -> None:
    everything = broker.subscribe([])
    with pytest.raises(UsageError):
        broker.publish(event_type, pack(None), "host")
    assert everything.take() is None


def test_wait_times_out(broker: Broker) -> None:
    assert broker.subscribe([]).wait(0.01) is None


def test_what_a_handler_publishes_comes_after_it_for_everybody(broker: Broker) -> None:
    first = broker.subscribe([])
    broker.register(["a"], lambda _: bool(broker.publish("b", pack(None), "host")), bool)
    late = broker.subscribe([])
    broker.publish("a", pack(None), "host")
    for subscription in (first, late):
        assert [(e.id, e.type) for e in iter(subscription.take, None)] == [(1, "a"), (2, "b")]


def test_a_handler_that_fails_does_not_stop_the_broker(broker: Broker) -> None:
    def fail(_: PackedEvent) -> None:
        raise KeyboardInterrupt

    broker.register(["a"], fail, bool)
    subscription = broker.subscribe(["b"])
    with pytest.raises(KeyboardInterrupt):
        broker.publish("a", pack(None), "host")
    broker.publish("b", pack(1), "host")
    assert subscription.take() is not None

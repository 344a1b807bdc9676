"""What happens when a subscriber does not keep up, by policy; and what is told of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack
from sandbox_host.broker import queues
from sandbox_host.broker.broker import Broker
from sandbox_host.broker.policies import MAX_BLOCK_SECONDS, MAX_QUEUE, Bounds, Policy
from sandbox_host.broker.queues import HELD_EVENTS, Subscription
from sandbox_host.errors import SubscriberTooSlowError, UsageError
from tests.support.traces import eventually


@pytest.fixture
def broker() -> Broker:
    return Broker(lambda: 1_234.5, 3, 100)


def publish(broker: Broker, *values: Any, source: str = "host") -> None:
    for value in values:
        broker.publish("a", pack(value), source)


def taken(subscription: Subscription) -> list[Any]:
    return [event.data for event in iter(subscription.take, None)]


@pytest.mark.parametrize(
    ("policy", "left"), [(Policy.DROP_OLDEST, [2, 3, 4]), (Policy.DROP_NEWEST, [0, 1, 2])]
)
def test_dropping(broker: Broker, policy: Policy, left: list[int]) -> None:
    subscription = broker.subscribe(["a"], Bounds(3, policy))
    publish(broker, *range(5))
    info = subscription.info()
    assert (info.policy, info.waiting, info.dropped, info.delivered) == (policy, 3, 2, 0)
    assert taken(subscription) == left
    assert subscription.info().delivered == 3


def test_disconnecting(broker: Broker) -> None:
    subscription = broker.subscribe(["a"], Bounds(2, Policy.DISCONNECT))
    other = broker.subscribe(["a"])
    publish(broker, *range(4))
    assert subscription.closed
    assert [subscription.wait(None).data for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
    for read in (subscription.take, lambda: subscription.wait(None)):
        with pytest.raises(SubscriberTooSlowError, match="2 events waited") as caught:
            read()
    assert caught.value.code == "subscriber-too-slow"
    assert subscription.dropped == 1
    assert taken(other) == [1, 2, 3]
    assert [info.types for info in broker.infos()] == [("a",)]


def test_a_publisher_waits_for_room(broker: Broker) -> None:
    subscription = broker.subscribe(["a"], Bounds(1, Policy.BLOCK, 30.0))
    publish(broker, 0)
    publication = broker.begin("a", pack(1), "host")
    assert not publication.settled
    done = threading.Event()
    thread = threading.Thread(target=lambda: (publication.wait(), done.set()))
    thread.start()
    assert not done.wait(0.02)
    assert taken(subscription) == [0, 1]
    thread.join(10)
    assert done.is_set()
    assert publication.held[0][1].settled.result(0) is True
    assert subscription.dropped == 0


def test_a_publisher_waits_up_to_the_deadline(broker: Broker) -> None:
    subscription = broker.subscribe(["a"], Bounds(1, Policy.BLOCK, 0.01))
    publish(broker, 0)
    publication = broker.begin("a", pack(1), "host")
    publication.wait()
    assert publication.held[0][1].settled.result(0) is False
    assert (taken(subscription), subscription.dropped) == ([0], 1)
    publish(broker, 2)
    assert taken(subscription) == [2]


def test_a_closed_subscription_holds_nobody(broker: Broker) -> None:
    subscription = broker.subscribe(["a"], Bounds(1, Policy.BLOCK, 30.0))
    publish(broker, 0)
    publication = broker.begin("a", pack(1), "host")
    subscription.close()
    publication.wait()
    assert (subscription.dropped, taken(subscription)) == (1, [0])


def test_what_is_held_is_bounded_for_each_publisher(broker: Broker) -> None:
    subscription = broker.subscribe(["a"], Bounds(1, Policy.BLOCK, 30.0))
    publish(broker, *range(HELD_EVENTS + 10), source="flooding")
    publish(broker, "from another", source="quiet")
    info = subscription.info()
    assert (info.waiting, info.dropped) == (1 + HELD_EVENTS + 1, 9)
    assert taken(subscription) == [*range(HELD_EVENTS + 1), "from another"]
    publish(broker, "again", source="flooding")
    assert taken(subscription) == ["again"]


def test_bytes_held_are_bounded_too(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "HELD_BYTES", 250)
    subscription = broker.subscribe(["a"], Bounds(1, Policy.BLOCK, 30.0))
    publish(broker, *[bytes(98)] * 4)  # 100 packed: one in the queue, two held
    assert (subscription.info().waiting, subscription.dropped) == (3, 1)


def test_replay_comes_first_without_gap_or_double(broker: Broker) -> None:
    stop = threading.Event()

    def flood() -> None:
        number = 0
        while not stop.is_set():
            publish(broker, number)
            number += 1

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert eventually(lambda: broker.publish("b", pack(0), "host").id > 200)
        late = broker.subscribe(["a"], Bounds(65_536), replay=20)
        assert eventually(lambda: late.info().waiting > 100)
    finally:
        stop.set()
        thread.join(10)
    numbers = taken(late)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert late.dropped == 0


def test_replay_is_of_what_is_wanted(broker: Broker) -> None:
    for event_type in ("weather.rain", "other", "weather.snow", "weather.wind", "other"):
        broker.publish(event_type, pack(None), "host")
    late = broker.subscribe(["weather.*"], replay=2)
    broker.publish("weather.sun", pack(None), "host")
    assert [event.type for event in iter(late.take, None)] == [
        "weather.snow",
        "weather.wind",
        "weather.sun",
    ]
    assert broker.subscribe(["weather.*"]).take() is None


@pytest.mark.parametrize("replay", [-1, 4, 101])
def test_no_more_is_replayed_than_may_wait(broker: Broker, replay: int) -> None:
    with pytest.raises(UsageError, match="Up to 3 events"):
        broker.subscribe([], replay=replay)


@pytest.mark.parametrize(
    ("limit", "policy", "deadline"),
    [
        *((limit, Policy.DROP_OLDEST, 0.0) for limit in (0, -1, MAX_QUEUE + 1)),
        *((1, Policy.BLOCK, deadline) for deadline in (0.0, -1.0, MAX_BLOCK_SECONDS + 1)),
        (1, Policy.BLOCK, float("nan")),
        (1, Policy.DROP_NEWEST, 1.0),
    ],
)
def test_bounds_that_are_refused(limit: int, policy: Policy, deadline: float) -> None:
    with pytest.raises(UsageError):
        Bounds(limit, policy, deadline)


def test_policies_by_name() -> None:
    assert [Policy.of(policy.value) for policy in Policy] == list(Policy)
    with pytest.raises(UsageError, match='"drop_oldest"'):
        Policy.of("drop")

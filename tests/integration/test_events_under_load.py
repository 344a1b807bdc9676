"""Many subscribers, slow ones and publishers that flood: limits hold, and counters tell."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import SubscriberTooSlowError
from tests.support.host import Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

FLOOD = """
@operation
def flood(count):
    for number in range(count):
        context().publish("weather.rain", number)
"""
NAP = """
@on("weather.rain")
def nap(event):
    while not os.path.exists(context().data_dir + "/go-on"):
        time.sleep(0.005)
"""
PUBLISH = {"permissions": {"publish": ["weather.rain"]}, "events": ["weather.rain"]}


def numbers(events: Any) -> list[int]:
    return [event.data for event in iter(lambda: events.get(timeout=0), None)]


def test_a_flood_with_32_subscribers_of_whom_one_never_reads(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(event_queue=1_000)) as host:
        load = workshop.loader(host)
        neighbour = load(name="neighbour")
        plugin = load(FLOOD, name="flooding", **PUBLISH, limits={"messages_per_second": 200})
        readers = [host.subscribe("weather.*") for _ in range(31)]
        host.subscribe("weather.*", queue=10)
        plugin.call("flood", 300, deadline=30.0)
        assert neighbour.call("echo", 1) == 1
        assert eventually(lambda: readers[0].info.waiting == 300)
        assert all(numbers(reader) == list(range(300)) for reader in readers)
        infos = host.subscriptions()
        assert [(i.delivered, i.dropped, i.waiting) for i in infos[:31]] == [(300, 0, 0)] * 31
        never = infos[31]
        assert (never.delivered, never.dropped, never.waiting, never.limit) == (0, 290, 10, 10)
        # It was not read for a while: the flood stood in its own pipe.
        assert plugin.usage().held_back_seconds > 0
        assert neighbour.usage().held_back_seconds == 0.0


def test_what_a_slow_plugin_does_not_get_is_counted(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(max_outstanding_calls=10)) as host:
        plugin = workshop.loader(host)(NAP, events=["weather.rain"])
        for _ in range(30):
            host.publish("weather.rain")
        (info,) = host.subscriptions()
        assert (info.subscriber, info.kind, info.types) == ("sample", "plugin", ("weather.rain",))
        # Eight are with the plugin, ten wait, and the rest is lost.
        assert (info.delivered, info.waiting, info.dropped) == (8, 10, 12)
        workshop.let_go()
        assert eventually(lambda: host.subscriptions()[0].delivered == 18)
        assert plugin.call("echo", 1) == 1


def test_a_reader_that_blocks_holds_the_application_and_no_plugin(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = workshop.loader(host)(FLOOD, **PUBLISH)
        events = host.subscribe("weather.*", policy="block", queue=1, deadline=20.0)
        plugin.call("flood", 5)
        assert plugin.call("echo", 1) == 1
        published = threading.Event()
        thread = threading.Thread(
            target=lambda: (host.publish("weather.snow", "mine"), published.set())
        )
        thread.start()
        assert eventually(lambda: events.info.waiting == 6)
        assert not published.is_set()
        assert [events.get(timeout=10).data for _ in range(6)] == [0, 1, 2, 3, 4, "mine"]  # type: ignore[union-attr]
        thread.join(10)
        assert published.is_set()


def test_a_reader_that_is_too_slow_is_told(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        events = host.subscribe("weather.*", policy="disconnect", queue=2)
        for number in range(5):
            host.publish("weather.rain", number)
        got = []
        with pytest.raises(SubscriberTooSlowError):
            got += [event.data for event in [next(events), next(events)]] + [next(events)]
        with pytest.raises(SubscriberTooSlowError):
            events.get(timeout=0)
        assert host.subscriptions() == ()


def test_replay(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(replay_events=4)) as host:
        for number in range(10):
            host.publish("weather.rain", number)
        with host.subscribe("weather.*", replay=3) as events:
            host.publish("weather.rain", 10)
            assert numbers(events) == [7, 8, 9, 10]


def test_for_asyncio(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            slow = host.subscribe("weather.*", policy="block", queue=1, deadline=0.01)
            for number in range(2):
                await host.publish("weather.rain", number)
            assert slow.dropped == 1
            slowest = host.subscribe("weather.*", policy="disconnect", queue=1)
            patient = host.subscribe("weather.*", policy="block", queue=1, deadline=20.0)
            publishing = asyncio.gather(*(host.publish("weather.rain", n) for n in range(2, 5)))
            assert [(await anext(patient)).data for _ in range(3)] == [2, 3, 4]
            await publishing
            assert (await anext(slowest)).data == 2
            with pytest.raises(SubscriberTooSlowError):
                await anext(slowest)
            assert [info.policy for info in host.subscriptions()] == ["block", "block"]

    asyncio.run(run())


TOGETHER = """
seen = []

@on("weather.rain", "weather.snow")
def take(event):
    if isinstance(event.data, float):
        time.sleep(event.data)
    if event.data == "fail":
        raise ValueError("as asked")
    if event.data == "hog":
        while True:
            pass
    seen.append([event.id, event.type, event.data, event.source])

@operation
def take_all():
    return seen
"""
SUBSCRIBES: dict[str, Any] = {"events": ["weather.rain", "weather.snow"]}


def test_many_events_reach_many_plugins_once_and_in_order(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        load = workshop.loader(host)
        plugins = [load(TOGETHER, name=f"reader{n}", **SUBSCRIBES) for n in range(3)]
        errors = host.subscribe("error_occurred")
        expected = []
        for number in range(900):
            kind = "weather.snow" if number % 100 > 90 else "weather.rain"
            data = "fail" if number == 450 else {"number": number}
            event = host.publish(kind, data)
            if data != "fail":
                expected.append([event.id, kind, data, "host"])
        for plugin in plugins:
            assert eventually(lambda p=plugin: len(p.call("take_all")) == 899)
            assert plugin.call("take_all") == expected
        told = [events.data for events in (errors.get(timeout=5) for _ in plugins) if events]
        assert sorted(one["plugin"] for one in told) == ["reader0", "reader1", "reader2"]
        assert {one["event"] for one in told} == {"weather.rain"}
        for info in host.subscriptions()[:3]:
            assert (info.delivered, info.dropped, info.waiting) == (900, 0, 0)


def test_each_of_many_events_has_budgets_of_its_own(workshop: Workshop) -> None:
    """Eight take longer than one may: in one message with others, and each in its time."""
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = workshop.loader(host)(TOGETHER, **SUBSCRIBES, limits={"wall_time": "400 ms"})
        for number in range(8):
            host.publish("weather.rain", 0.06 + number / 1000)
        assert host.subscriptions()[0].delivered == 8
        assert eventually(lambda: plugin._process.channel.idle)
        assert len(plugin.call("take_all")) == 8


def test_who_hogs_among_many_events_is_ended_and_named(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = workshop.loader(host)(TOGETHER, **SUBSCRIBES, limits={"wall_time": "300 ms"})
        ends = host.subscribe("plugin_unloaded")
        for number in range(4):
            host.publish("weather.rain", number)
        for data in ("fine", "hog", "never seen"):
            host.publish("weather.snow", data)
        event = ends.get(timeout=20)
        assert event is not None
        assert event.data == {"plugin": "sample", "cause": "deadline"}
        assert "@weather.snow" in plugin._process.cause_text

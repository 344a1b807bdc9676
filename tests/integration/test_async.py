"""The face for asyncio: the same answers, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sandbox_host import Plugin, SandboxHost
from sandbox_host.errors import (
    BudgetExceededError,
    DeadlineExceededError,
    OperationError,
    PluginEndedError,
    UnsignedError,
)
from tests.support.host import HOLD, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

SOURCE = (
    HOLD
    + """
@operation
def nap(seconds):
    time.sleep(seconds)
    return seconds

@operation
def fail():
    raise KeyError("x")

@operation
def spin():
    while True:
        pass

@operation
def leave():
    os._exit(4)
"""
)

Use = Callable[[SandboxHost, Plugin], Coroutine[Any, Any, Any]]


def run(workshop: Workshop, use: Use, **manifest: Any) -> Any:
    """Open a host in an event loop, load the plugin above, and use both."""

    async def main() -> Any:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(SOURCE, **manifest))
            return await use(host, plugin)

    return asyncio.run(main())


def test_ten_lines_of_the_readme(workshop: Workshop) -> None:
    async def use(host: SandboxHost, plugin: Plugin) -> None:
        assert await plugin.call("echo", {"a": [1]}, deadline=5.0) == {"a": [1]}
        events = host.subscribe("model_updated")
        await host.publish("model_updated", {"rows": 1461})
        async for event in events:
            assert event.data == {"rows": 1461}
            break
        assert host.plugin("sample").state == "ready"
        await host.unload("sample")
        assert host.plugins == {}

    run(workshop, use)


def test_two_hundred_calls_at_once(workshop: Workshop) -> None:
    async def use(_: SandboxHost, plugin: Plugin) -> list[Any]:
        return await asyncio.gather(*(plugin.call("echo", number) for number in range(200)))

    assert run(workshop, use) == list(range(200))


def test_event_loop_is_not_blocked_by_a_call(workshop: Workshop) -> None:
    async def use(_: SandboxHost, plugin: Plugin) -> str:
        task = asyncio.create_task(plugin.call("hold", "done"))
        for _ in range(10):
            await asyncio.sleep(0.005)
        # Only a loop that goes on comes here, and without this the call would not end.
        workshop.let_go()
        return await task

    assert run(workshop, use) == "done"


def test_cancelled_caller_leaves_the_plugin_working(workshop: Workshop) -> None:
    async def use(_: SandboxHost, plugin: Plugin) -> Any:
        task = asyncio.create_task(plugin.call("hold"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(plugin.call("hold"), 0.05)
        workshop.let_go()
        return await plugin.call("echo", "still here")

    assert run(workshop, use) == "still here"


@pytest.mark.usefixtures("long_grace")
def test_errors_are_those_of_the_blocking_face(workshop: Workshop) -> None:
    async def use(host: SandboxHost, plugin: Plugin) -> None:
        with pytest.raises(OperationError, match="KeyError"):
            await plugin.call("fail")
        with pytest.raises(DeadlineExceededError) as late:
            await plugin.call("nap", 30, deadline=0.1)
        assert not late.value.ended
        with pytest.raises(BudgetExceededError) as spent:
            await plugin.call("spin")
        assert spent.value.budget == "cpu"
        with pytest.raises(PluginEndedError):
            await plugin.call("echo")
        plugin = await host.load(workshop.write(SOURCE))
        with pytest.raises(PluginEndedError, match="exit status 4"):
            await plugin.call("leave")
        bundle = workshop.write(name="unsigned")
        (bundle / "plugin.dsse.json").unlink()
        with pytest.raises(UnsignedError):
            await host.load(bundle)

    run(workshop, use, limits={"cpu_time": 0.2})


def test_two_plugins_work_at_the_same_time(workshop: Workshop) -> None:
    async def use(host: SandboxHost, plugin: Plugin) -> None:
        other = await host.load(workshop.write(SOURCE, name="other"))
        slow = asyncio.create_task(plugin.call("hold", "done"))
        assert await other.call("echo", 1) == 1
        assert not slow.done()
        workshop.let_go()
        assert await slow == "done"

    run(workshop, use)


def test_stream_of_events_ends_with_the_host(workshop: Workshop) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []
        async with SandboxHost(workshop.config()) as host:
            events = host.subscribe("data_processed")
            reader = asyncio.create_task(_collect(events, seen))
            await asyncio.sleep(0)
            for number in range(3):
                await host.publish("data_processed", number)
        await asyncio.wait_for(reader, 10)
        return seen

    assert asyncio.run(main()) == [0, 1, 2]


async def _collect(events: Any, seen: list[Any]) -> None:
    seen.extend([event.data async for event in events])


def test_health(workshop: Workshop) -> None:
    async def use(_: SandboxHost, plugin: Plugin) -> str:
        return (await plugin.health()).status

    assert run(workshop, use) == "healthy"

"""A call that nobody waits for is asked to end, and made to when it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import CallCancelledError, DeadlineExceededError, PluginEndedError
from sandbox_host.model import Cause, Permissions
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
import time
from plugin_sdk import Cancelled

seen = []

@operation
def cooperative():
    try:
        context().progress(1, 2)
        while True:
            time.sleep(0.01)
    except Cancelled:
        seen.append("cooperative")
        raise

@operation
def sleeping():
    context().progress(1, 2)
    time.sleep(60)

@operation
def spinning():
    context().progress(1, 2)
    while True:
        pass

@operation
def native():
    import ctypes
    library = ctypes.PyDLL(None)  # which keeps the interpreter's lock
    mutex = ctypes.create_string_buffer(64)  # all zero is one that nobody holds
    context().progress(1, 2)
    while True:  # the second time waits for ever, and no signal ends that
        library.pthread_mutex_lock(mutex)

@operation
def stubborn():
    context().progress(1, 2)
    while True:
        try:
            time.sleep(60)
        except Cancelled:
            pass

@operation
async def awaiting():
    import asyncio
    try:
        context().progress(1, 2)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        seen.append("awaiting")
        raise

@operation
async def spinning_task():
    context().progress(1, 2)
    while True:
        pass

@operation
async def computing():
    import asyncio
    try:
        context().progress(1, 2)
        while True:
            until = time.monotonic() + 0.01
            while time.monotonic() < until:
                pass
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        seen.append("computing")
        raise

@operation
async def quick():
    return 1

@operation
def in_the_middle_of_asking():
    context().progress(1, 2)
    return context().ask("slow")

@operation
def answers_all_the_same():
    try:
        context().progress(1, 2)
        time.sleep(60)
    except Cancelled:
        return "done"

@operation
def what_was_seen():
    return seen
"""

CONCURRENT = {"concurrency": 4, "permissions": {"threads": True}}
TIMES = 5


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as host:
        yield host


def cancelled(plugin: BlockingPlugin, operation: str, after: float = 0.1) -> CallCancelledError:
    call = plugin.start(operation, deadline=30)
    if after:
        assert eventually(lambda: call.progress == (1, 2))  # it runs
        time.sleep(after)
    began = time.monotonic()
    call.cancel()
    with pytest.raises(CallCancelledError) as caught:
        call.result(20)
    # Promised is a grace of a quarter of a second; a busy machine may take its time.
    assert time.monotonic() - began < 10
    return caught.value


@pytest.mark.parametrize(
    "operation", ["cooperative", "sleeping", "spinning", "awaiting", "spinning_task"]
)
def test_who_can_be_asked_ends_and_its_plugin_goes_on(
    host: BlockingHost, workshop: Workshop, operation: str
) -> None:
    plugin = host.load(workshop.write(SOURCE))
    for _ in range(TIMES):
        assert not cancelled(plugin, operation).ended
    seen = plugin.call("what_was_seen")
    assert seen == ([operation] * TIMES if operation in {"cooperative", "awaiting"} else [])


@pytest.mark.parametrize("operation", ["sleeping", "spinning"])
def test_a_plain_one_after_an_asynchronous_one(
    host: BlockingHost, workshop: Workshop, operation: str
) -> None:
    plugin = host.load(workshop.write(SOURCE))
    assert plugin.call("quick") == 1
    assert not cancelled(plugin, operation, after=0.05).ended


@pytest.mark.parametrize("operation", ["cooperative", "spinning", "awaiting", "computing"])
def test_beside_others_that_go_on(host: BlockingHost, workshop: Workshop, operation: str) -> None:
    plugin = host.load(workshop.write(SOURCE, **CONCURRENT))
    other = plugin.start("awaiting", deadline=30)
    for _ in range(TIMES):
        assert not cancelled(plugin, operation).ended
    assert not other.done()
    other.cancel()
    assert eventually(other.done)
    seen = plugin.call("what_was_seen").count(operation)
    # The other one, which awaits as well, was cancelled too.
    assert seen == (0 if operation == "spinning" else TIMES + (operation == "awaiting"))


@pytest.mark.parametrize("operation", ["native", "stubborn"])
def test_who_cannot_is_ended_and_its_replacement_serves(
    host: BlockingHost, workshop: Workshop, operation: str
) -> None:
    source = workshop.write(SOURCE)
    for _ in range(TIMES):
        plugin = host.load(source)
        assert cancelled(plugin, operation, after=0.3).ended
        assert eventually(lambda: plugin.cause is Cause.CANCELLED)  # noqa: B023
        with pytest.raises(PluginEndedError, match="after that was cancelled"):
            plugin.call("what_was_seen")
    assert host.load(source).call("what_was_seen") == []


def test_one_that_waits_for_its_turn_is_never_run(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE))
    first = plugin.start("sleeping", deadline=30)
    second = plugin.start("cooperative", deadline=30)
    second.cancel()
    time.sleep(0.05)
    first.cancel()
    for call in (first, second):
        with pytest.raises(CallCancelledError):
            call.result(20)
    assert plugin.call("what_was_seen") == []


def test_as_soon_as_it_is_begun_beside_others(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE, **CONCURRENT))
    for _ in range(30):
        assert not cancelled(plugin, "cooperative", after=0.0).ended


def test_one_that_waits_behind_several_is_never_run(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE, **CONCURRENT))
    at_work = [plugin.start("awaiting", deadline=30) for _ in range(4)]
    waiting = [plugin.start("cooperative", deadline=30) for _ in range(4)]
    late = plugin.start("cooperative", deadline=0.05)
    for call in waiting:
        call.cancel()
    with pytest.raises(DeadlineExceededError, match="waited for its turn"):
        late.result(20)
    for call in at_work:
        call.cancel()
    for call in (*at_work, *waiting):
        with pytest.raises(CallCancelledError):
            call.result(20)
    assert "cooperative" not in plugin.call("what_was_seen")


def test_a_value_that_comes_all_the_same_is_one(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE))
    call = plugin.start("answers_all_the_same", deadline=30)
    assert eventually(lambda: call.progress == (1, 2))
    time.sleep(0.05)  # it is in its sleep soon, and where it is not, is told there
    call.cancel()
    assert call.result(20) == "done"
    call.cancel()
    assert call.result() == "done"


def test_while_it_waits_for_a_service(workshop: Workshop) -> None:
    def slow() -> None:
        time.sleep(0.3)

    config = workshop.config(grants={"*": Permissions(services=("slow",))})
    with SandboxHost.blocking(config) as host:
        host.offer("slow", slow)
        plugin = host.load(workshop.write(SOURCE, permissions={"services": ["slow"]}))
        for _ in range(2):
            assert not cancelled(plugin, "in_the_middle_of_asking", after=0.05).ended
        assert plugin.call("what_was_seen") == []


def test_a_task_that_is_cancelled_cancels_its_call(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(SOURCE))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(plugin.call("cooperative", deadline=30), 1.0)
            assert await plugin.call("what_was_seen") == ["cooperative"]
            call = plugin.start("sleeping", deadline=30)
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(CallCancelledError, match="was cancelled"):
                await call

    asyncio.run(run())

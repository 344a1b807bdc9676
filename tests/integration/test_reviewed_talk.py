"""What a reviewer broke in the conversation between host and plugin, and what holds since."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import (
    AdmissionError,
    DeadlineExceededError,
    PluginEndedError,
    UsageError,
)
from sandbox_host.model import Cause, Limits, Permissions
from sandbox_host.runtime.blocking import BlockingHost
from tests.support.host import Workshop
from tests.support.traces import eventually

RAW = """
import gc
from plugin_sdk.child.calls import current
from plugin_sdk.child.io import ChildChannel
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.messages import Ask, Log, Yield

def channel():
    return next(one for one in gc.get_objects() if isinstance(one, ChildChannel))

def say(message):
    data = build_frame(message.header(), message.payload, 8 << 20)
    while data:
        data = data[os.write(channel()._out_fd, data):]
"""
STREAMS = """
@operation
def forever():
    number = 0
    while True:
        yield number
        number += 1

@operation
def count(until):
    yield from range(until)
"""
MANY: dict[str, Any] = {"concurrency": 4, "permissions": {"threads": True}}


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as host:
        yield host


def test_a_stream_that_missed_its_turn_does_not_wait_for_credit_for_ever(
    host: BlockingHost, workshop: Workshop
) -> None:
    plugin = host.load(workshop.write(STREAMS, limits={"wall_time": "300 ms"}))
    with plugin.stream("forever") as first:
        assert next(first) == 0
        with pytest.raises(DeadlineExceededError, match="waited for its turn"):
            next(plugin.stream("forever"))
    assert eventually(lambda: plugin.call("echo", 1, deadline=20) == 1)


def test_who_says_a_stream_without_items_and_goes_silent_is_late(
    host: BlockingHost, workshop: Workshop
) -> None:
    source = """
        @operation
        def silent():
            channel().send(Yield(current.get().id))
            time.sleep(600)
            yield 1
    """
    plugin = host.load(workshop.write(RAW + _plain(source), limits={"wall_time": "300 ms"}))
    with pytest.raises(DeadlineExceededError):
        list(plugin.stream("silent"))


def test_a_stream_that_nobody_holds_any_more_lets_others_in(
    host: BlockingHost, workshop: Workshop
) -> None:
    plugin = host.load(workshop.write(STREAMS))
    for item in plugin.stream("forever"):
        assert item == 0
        break
    gc.collect()
    assert plugin.call("echo", 1, deadline=20) == 1


def test_a_stream_that_cannot_be_passed_is_closed(host: BlockingHost, workshop: Workshop) -> None:
    source = host.load(workshop.write(STREAMS, name="source"))
    gone = host.load(workshop.write(name="gone"))
    host.unload("gone")
    with pytest.raises(PluginEndedError):
        gone.call("echo", source.stream("forever"))
    assert source.call("echo", 1, deadline=20) == 1


def test_an_item_is_one_whatever_interrupts_who_hands_it_out(
    host: BlockingHost, workshop: Workshop
) -> None:
    plugin = host.load(workshop.write(STREAMS))
    channel = plugin._process.channel
    hand_out, seen = channel._on_part, []

    def interrupted(pending: Any, message: Any) -> None:
        hand_out(pending, message)
        seen.append(message)
        if len(seen) >= 100 and threading.current_thread() is threading.main_thread():
            channel._on_part = hand_out
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C does, exactly here

    channel._on_part = interrupted
    stream, got = plugin.stream("count", 300), []
    while True:
        try:
            got.append(next(stream))
        except StopIteration:
            break
        except KeyboardInterrupt:
            continue
    assert got == list(range(300))


def test_two_tasks_and_one_call_or_stream(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(STREAMS + _plain(NAP)))
            call = plugin.start("nap", 0.1)

            async def wait() -> Any:
                return await call

            assert await asyncio.gather(wait(), wait()) == [0.1, 0.1]
            stream = plugin.stream("slowly")
            first = asyncio.create_task(anext(stream))
            await asyncio.sleep(0.02)
            with pytest.raises(UsageError, match="Another task reads"):
                await anext(stream)
            assert await first == 1
            await stream.aclose()

    asyncio.run(run())


NAP = """
    @operation
    def nap(seconds):
        time.sleep(seconds)
        return seconds

    @operation
    def slowly():
        time.sleep(0.3)
        yield 1
"""


def test_nobody_yields_before_its_turn(host: BlockingHost, workshop: Workshop) -> None:
    source = """
        @operation
        def early():
            while not os.path.exists(os.path.join(context().data_dir, "go-on")):
                time.sleep(0.01)
            say(Yield(current.get().id + 1, payload=b"\\x01"))
            time.sleep(600)
            yield 1
    """
    plugin = host.load(workshop.write(RAW + _plain(source)))
    streams = [plugin.stream("early") for _ in range(2)]
    workshop.let_go()
    with pytest.raises(PluginEndedError, match="whose turn has not come"):
        next(streams[0])


def test_who_calls_another_plugin_has_no_say_in_its_life(workshop: Workshop) -> None:
    work = """
        @operation
        def work(seconds):
            time.sleep(seconds)
            return seconds
    """
    evil = """
        @operation
        def ask_shortly():
            import msgpack
            one = channel()
            with one._lock:
                one._asked += 1
                until = time.monotonic_ns() + 100_000_000
                payload = msgpack.packb([[0.9], {}])
                one.send(Ask(one._asked, "@bee.work", until, payload=payload))
    """
    grants = {"*": Permissions(calls=("bee.work",), threads=True)}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        bee = host.load(workshop.write(work, name="bee", exports=["work"], **MANY))
        calls = {"permissions": {"calls": ["bee.work"]}}
        host.load(workshop.write(RAW + _plain(evil), **calls)).call("ask_shortly")
        assert bee.call("work", 0.6) == 0.6
        assert bee.cause is None


def test_handlers_of_the_application_hold_nobody_up(host: BlockingHost, workshop: Workshop) -> None:
    source = """
        @operation
        def log(count):
            for _ in range(count):
                context().log.warning("again")
            return count
    """
    plugin, other = host.load(workshop.write(source)), host.load(workshop.write(name="other"))
    began = threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            began.set()
            time.sleep(0.01)
            raise KeyError(record.msg)

    logger, handler = logging.getLogger("sandbox_host.plugin.sample"), Slow()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        assert plugin.call("log", 300) == 300
        assert began.wait(20)
        before = time.monotonic()
        assert other.call("echo", 1) == 1
        assert time.monotonic() - before < 2.0  # three seconds of records wait
        assert plugin.cause is None
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def test_entries_beyond_what_may_be_logged_are_left_out(
    host: BlockingHost, workshop: Workshop
) -> None:
    source = """
        @operation
        def flood():
            import msgpack
            for _ in range(60):
                say(Log(20, "sample", payload=msgpack.packb("x" * 16_000)))
    """
    limits = {"log_bytes_per_second": "10 KiB"}
    plugin = host.load(workshop.write(RAW + _plain(source), limits=limits))
    plugin.call("flood", deadline=30)
    assert plugin.log_path.stat().st_size < 400_000
    assert plugin.call("echo", 1, deadline=30) == 1


@pytest.mark.parametrize("operation", ["plain_stream", "plain_coroutine"])
def test_a_plain_function_that_returns_what_is_asynchronous_can_be_cancelled(
    host: BlockingHost, workshop: Workshop, operation: str
) -> None:
    source = """
        import asyncio

        async def numbers():
            while True:
                await asyncio.sleep(0.001)
                yield 1

        @operation
        def plain_stream():
            return numbers()

        @operation
        def plain_coroutine():
            return asyncio.sleep(600)
    """
    plugin = host.load(workshop.write(source, **MANY))
    other = plugin.start("echo", 1)
    call = plugin.stream(operation) if operation == "plain_stream" else plugin.start(operation)
    time.sleep(0.1)
    getattr(call, "close", getattr(call, "cancel", None))()
    assert other.result(20) == 1
    assert eventually(lambda: not plugin._process.channel.outstanding())
    assert plugin.cause is None


def test_a_task_that_outlives_its_call_has_no_deadline_of_it(workshop: Workshop) -> None:
    source = """
        import asyncio
        told = []

        @operation
        async def begin():
            async def later():
                await asyncio.sleep(0.3)
                told.append(context().ask("price"))
            global task
            task = asyncio.get_running_loop().create_task(later())

        @operation
        async def what_was_told():
            return told
    """

    def price() -> int:
        return 7

    grants = {"*": Permissions(services=("price",), threads=True)}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        host.offer("price", price)
        permissions = {"services": ["price"], "threads": True}
        plugin = host.load(workshop.write(source, concurrency=2, permissions=permissions))
        plugin.call("begin", deadline=0.2)
        assert eventually(lambda: plugin.call("what_was_told") == [7])


def test_the_operators_threads_are_enough_for_as_many_calls(workshop: Workshop) -> None:
    config = workshop.config(ceilings=Limits(threads=6))
    with (
        SandboxHost.blocking(config) as host,
        pytest.raises(AdmissionError, match="needs 7 threads, and may have 6"),
    ):
        host.load(workshop.write(**MANY))


def test_a_call_that_was_late_in_the_row_ends_its_plugin_as_late(
    host: BlockingHost, workshop: Workshop
) -> None:
    source = """
        from plugin_sdk import Cancelled, DeadlinePassed

        @operation
        def stubborn():
            while True:
                try:
                    time.sleep(600)
                except (Cancelled, DeadlinePassed):
                    pass
    """
    plugin = host.load(workshop.write(source, limits={"wall_time": "200 ms"}))
    with pytest.raises(DeadlineExceededError):
        plugin.call("stubborn")
    assert eventually(lambda: plugin.cause is Cause.DEADLINE)


def _plain(source: str) -> str:
    """Return source without its indentation, so that it can follow other source."""
    lines = source.strip("\n").splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n" + "\n".join(line[indent:] for line in lines) + "\n"

"""Streams in both directions: each side reads what the other yields, within bounded memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import (
    DeadlineExceededError,
    MessageTooLargeError,
    NotAStreamError,
    OperationError,
    PluginEndedError,
    UsageError,
)
from sandbox_host.model import Limits
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
import os
import time
from plugin_sdk import StreamBrokenError

left = []

@operation
def count(until):
    for number in range(until):
        yield number
    return "counted"

@operation
async def count_later(until):
    import asyncio
    for number in range(until):
        await asyncio.sleep(0)
        yield number

@operation
def touch(name):
    open(os.path.join(context().data_dir, name), "w").close()

@operation
def lines():
    return iter(["a", "b"])

@operation
def forever():
    try:
        number = 0
        while True:
            yield number
            number += 1
    finally:
        left.append("forever")

@operation
def what_left():
    return left

@operation
def breaks():
    yield 1
    raise ValueError("in the middle")

@operation
def dies():
    yield 1
    os._exit(3)

@operation
def too_large():
    yield 1
    yield b"x" * (9 << 20)

@operation
def sleeps():
    yield 1
    time.sleep(30)

@operation
def blocks(size, count):
    for _ in range(count):
        yield bytes(size)

@operation
def plain():
    return 7

@operation
def total(numbers, *, scale=1):
    return scale * sum(numbers)

@operation
async def total_later(numbers):
    return sum([number async for number in numbers])

@operation
def doubled(numbers):
    for number in numbers:
        yield 2 * number

@operation
def first_two(numbers):
    taken = [next(numbers), next(numbers)]
    numbers.close()
    return taken

@operation
def none_of(numbers):
    return "none"

@operation
def both(one, other):
    return [a + b for a, b in zip(one, other)]

@operation
def why_broken(numbers):
    try:
        for number in numbers:
            pass
    except StreamBrokenError as error:
        return str(error)
"""


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as host:
        yield host


@pytest.fixture
def plugin(host: BlockingHost, workshop: Workshop) -> BlockingPlugin:
    return host.load(workshop.write(SOURCE))


def test_a_generator_is_an_iterator_here(plugin: BlockingPlugin) -> None:
    stream = plugin.stream("count", 1000)
    assert list(stream) == list(range(1000))
    assert stream.value == "counted"
    assert list(plugin.stream("count_later", 200)) == list(range(200))
    assert list(plugin.stream("lines")) == ["a", "b"]
    assert list(plugin.stream("count", 0)) == []
    assert plugin.call("plain") == 7


def test_items_and_answers_that_come_together(plugin: BlockingPlugin) -> None:
    """Nobody saw the stream's turn come: its answer is read with that of the call before it."""
    lead = plugin._process.channel._lead
    assert lead.take()  # so that nobody else reads
    before = plugin.start("plain")
    streams = [plugin.stream("count", number) for number in (3, 0, 2)]
    behind = plugin.start("touch", "answered")
    mark = plugin._process.data_dir / "answered"
    assert eventually(mark.exists)
    assert lead.leave()
    assert [list(stream) for stream in streams] == [[0, 1, 2], [], [0, 1]]
    assert before.result(20) == 7
    assert behind.result(20) is None


def test_an_iterator_here_is_one_there(plugin: BlockingPlugin) -> None:
    assert plugin.call("total", iter(range(500))) == sum(range(500))
    assert plugin.call("total", (n for n in range(5)), scale=2) == 20
    assert plugin.call("total", numbers=iter([1, 2])) == 3
    assert plugin.call("total_later", iter(range(300))) == sum(range(300))
    assert plugin.call("both", iter([1, 2, 3]), other=iter([4, 5, 6])) == [5, 7, 9]
    assert plugin.call("none_of", iter(range(10_000))) == "none"
    assert plugin.call("total", [1, 2]) == 3


def test_both_at_once_with_credit_in_both_directions(plugin: BlockingPlugin) -> None:
    assert list(plugin.stream("doubled", iter(range(2000)))) == [2 * n for n in range(2000)]


def test_a_reader_that_leaves_ends_the_producer(plugin: BlockingPlugin) -> None:
    with plugin.stream("forever") as stream:
        assert next(stream) == 0
    assert plugin.call("what_left") == ["forever"]
    assert list(stream) == []


def test_a_reader_that_leaves_there_ends_the_producer_here(plugin: BlockingPlugin) -> None:
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    assert plugin.call("first_two", numbers()) == [0, 1]
    assert closed.wait(20)


@pytest.mark.parametrize(
    ("operation", "error", "told"),
    [
        ("breaks", OperationError, "in the middle"),
        ("dies", PluginEndedError, "status 3"),
        ("too_large", MessageTooLargeError, "9437"),
    ],
)
def test_what_happens_in_the_middle_arrives_where_the_reader_is(
    plugin: BlockingPlugin, operation: str, error: type[Exception], told: str
) -> None:
    stream = plugin.stream(operation)
    assert next(stream) == 1
    with pytest.raises(error, match=told):
        next(stream)
    if error is not PluginEndedError:
        assert plugin.call("plain") == 7


def test_each_item_has_a_deadline_and_the_whole_may_have_one(
    host: BlockingHost, workshop: Workshop
) -> None:
    plugin = host.load(workshop.write(SOURCE, limits={"wall_time": "300 ms"}))
    stream = plugin.stream("sleeps")
    assert next(stream) == 1
    time.sleep(0.5)  # nobody waits: it is not the plugin that is slow
    with pytest.raises(DeadlineExceededError, match=r"0\.3 s"):
        next(stream)
    assert plugin.call("plain") == 7
    with pytest.raises(DeadlineExceededError, match=r"0\.2 s"):
        list(plugin.stream("forever", deadline=0.2))
    assert plugin.call("plain") == 7


def test_what_is_no_stream(plugin: BlockingPlugin) -> None:
    with pytest.raises(NotAStreamError, match='stream\\("count"'):
        plugin.call("count", 3)
    with pytest.raises(NotAStreamError, match='call\\("plain"'):
        list(plugin.stream("plain"))
    assert plugin.call("plain") == 7


def test_a_stream_that_breaks_here_is_told_there_by_its_class(plugin: BlockingPlugin) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("a secret of the application's")

    told = plugin.call("why_broken", numbers())
    assert told == "the stream was cut off: KeyError"
    with pytest.raises(OperationError, match="StreamBrokenError") as caught:
        plugin.call("total", numbers())
    assert isinstance(caught.value.__cause__, KeyError)


def test_streams_that_cannot_be_passed(plugin: BlockingPlugin) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(UsageError, match="asynchronous"):
        plugin.call("total", numbers())
    with pytest.raises(UsageError, match="9 streams"):
        plugin.call("total", *(iter([1]) for _ in range(9)))


def test_a_slow_reader_bounds_memory_on_both_sides(plugin: BlockingPlugin) -> None:
    """The short form; 10 GB are streamed in test_soak_streams.py."""
    size, count = 256 * 1024, 800
    inside, here = psutil.Process(plugin.receipt.pid), psutil.Process()
    before = (inside.memory_info().rss, here.memory_info().rss)
    most = [0, 0]
    for number, item in enumerate(plugin.stream("blocks", size, count)):
        assert len(item) == size
        if number % 20 == 0:
            time.sleep(0.001)
            most = [
                max(most[0], inside.memory_info().rss - before[0]),
                max(most[1], here.memory_info().rss - before[1]),
            ]
    assert number == count - 1
    assert max(most) < 64 * 1024 * 1024


def test_for_asyncio(workshop: Workshop) -> None:
    async def numbers(until: int) -> AsyncIterator[int]:
        for number in range(until):
            await asyncio.sleep(0)
            yield number

    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(SOURCE))
            assert [n async for n in plugin.stream("count", 300)] == list(range(300))
            assert await plugin.call("total", numbers(200)) == sum(range(200))
            assert await plugin.call("total", iter(range(200))) == sum(range(200))
            doubled = [n async for n in plugin.stream("doubled", numbers(300))]
            assert doubled == [2 * n for n in range(300)]
            async with plugin.stream("forever") as stream:
                assert await anext(stream) == 0
            assert await plugin.call("what_left") == ["forever"]

            async def read() -> None:
                async for _ in plugin.stream("sleeps"):
                    pass

            reading: asyncio.Task[Any] = asyncio.create_task(read())
            await asyncio.sleep(0.1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(run())


def test_nothing_is_left_of_feeds(plugin: BlockingPlugin) -> None:
    for _ in range(5):
        assert plugin.call("none_of", iter(range(100_000))) == "none"

    def feeding() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("sandbox-host-feed")]

    assert eventually(lambda: not feeding())


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_gigabytes_through_a_slow_reader(workshop: Workshop) -> None:
    size, count = 1_000_000, 10_000
    limits = {"cpu_time": "10 min", "cpu_time_per_minute": "10 min"}
    ceilings = Limits(cpu_seconds=600.0, cpu_seconds_per_minute=600.0)
    with SandboxHost.blocking(workshop.config(ceilings=ceilings)) as host:
        plugin = host.load(workshop.write(SOURCE, limits=limits))
        inside, here = psutil.Process(plugin.receipt.pid), psutil.Process()
        before = (inside.memory_info().rss, here.memory_info().rss)
        read = 0
        for number, item in enumerate(plugin.stream("blocks", size, count)):
            read += len(item)
            if number % 100 == 0:
                time.sleep(0.01)
                assert inside.memory_info().rss - before[0] < 64 * 1024 * 1024
                assert here.memory_info().rss - before[1] < 64 * 1024 * 1024
        assert read == size * count

"""Several calls at a time: answered as each is done, each to its caller, each with its budgets."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import (
    BudgetExceededError,
    DeadlineExceededError,
    ManifestError,
    OperationError,
)
from sandbox_host.runtime.blocking import BlockingHost
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
import asyncio
import threading
import time

handled = []
at_work = []
most = [0]

@operation
def echo(value, seconds=0.0):
    at_work.append(value)
    most[0] = max(most[0], len(at_work))
    time.sleep(seconds)
    at_work.remove(value)
    return value

@operation
async def echo_later(value, seconds=0.0):
    await asyncio.sleep(seconds)
    return value

@operation
def most_at_work():
    return most[0]

@operation
def spin(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass

@operation
def spin_for_ever():
    while True:
        pass

@operation
def fail(text):
    raise ValueError(text)

@operation
def numbers(until):
    for number in range(until):
        yield number

@operation
def total(items):
    return sum(items)

@operation
def meet(barrier=threading.Barrier(4)):
    barrier.wait(10)
    return True

@on("data_processed")
def first(event):
    time.sleep(0.005)
    handled.append(event.data)

@on("user_action")
async def second(event):
    await asyncio.sleep(0)
    handled.append(event.data)

@operation
def what_was_handled():
    return handled
"""

EVENTS = ["data_processed", "user_action"]
MANY: dict[str, Any] = {
    "concurrency": 8,
    "permissions": {"threads": True},
    "events": EVENTS,
}


def test_a_hundred_calls_each_to_its_caller(workshop: Workshop) -> None:
    """Out of order: those that were sent last are done first."""

    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(SOURCE, **MANY))
            done: list[int] = []

            async def one(number: int) -> None:
                operation = ("echo", "echo_later")[number % 2]
                seconds = 0.02 * (7 - number % 8)
                assert await plugin.call(operation, number, seconds) == number
                done.append(number)

            await asyncio.gather(*(one(number) for number in range(100)))
            assert sorted(done) == list(range(100))
            assert done != sorted(done)
            assert 1 < await plugin.call("most_at_work") <= 8

    asyncio.run(run())


def test_from_threads(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        numbers = list(range(100))
        random.Random(7).shuffle(numbers)
        with ThreadPoolExecutor(16) as pool:
            values = list(pool.map(lambda n: plugin.call("echo", n, 0.001 * (n % 5)), numbers))
        assert values == numbers


def test_they_run_at_the_same_time(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        calls = [plugin.start("meet") for _ in range(4)]
        assert [call.result(20) for call in calls] == [True] * 4


def test_streams_and_failures_beside_each_other(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        streams = [plugin.stream("numbers", 300) for _ in range(4)]
        sums = [plugin.start("total", iter(range(300))) for _ in range(3)]
        for _ in range(300):
            assert len({next(stream) for stream in streams}) == 1
        with pytest.raises(OperationError, match="no"):
            plugin.call("fail", "no")
        assert [call.result(20) for call in sums] == [sum(range(300))] * 3


def test_each_has_its_deadline(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        slow = plugin.start("echo_later", "slow", 1.0)
        with pytest.raises(DeadlineExceededError, match=r"0.1 s; the plugin goes on"):
            plugin.call("spin", 20, deadline=0.1)
        with pytest.raises(DeadlineExceededError, match=r"0.1 s; the plugin goes on"):
            plugin.call("echo_later", 1, 20, deadline=0.1)
        assert slow.result(20) == "slow"


def test_cpu_time_is_shared_out_among_those_at_work(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        with ThreadPoolExecutor(2) as pool:
            costs = [
                one.usage.cpu_seconds
                for one in pool.map(lambda _: plugin.metered("spin", 0.4), range(2))
            ]
        total = plugin.usage().cpu_seconds
        assert all(cost > 0.1 for cost in costs)
        assert sum(costs) <= total


def test_who_spins_beside_others_is_found_and_told(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY, limits={"cpu_time": "300 ms"}))
        call = plugin.start("spin_for_ever", deadline=20)
        with pytest.raises(BudgetExceededError, match=r"spin_for_ever exceeded the budget cpu"):
            call.result(20)
        assert eventually(lambda: plugin.cause == "cpu")


def test_events_keep_their_order_beside_calls(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        slow = plugin.start("echo", "slow", 0.3)
        for number in range(20):
            host.publish(EVENTS[number % 2], number)
        assert eventually(lambda: plugin.call("what_was_handled") == list(range(20)))
        assert slow.result(20) == "slow"


def test_unloading_lets_all_of_them_finish(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(SOURCE, **MANY))
        calls = [plugin.start("echo", n, 0.2) for n in range(10)]
        stream = plugin.stream("numbers", 500)
        read: list[int] = []
        reading = threading.Thread(target=lambda: read.extend(stream))
        reading.start()
        time.sleep(0.05)
        host.unload("sample")
        assert [call.result(1) for call in calls] == list(range(10))
        reading.join(20)
        assert read == list(range(500))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"concurrency": 0}, "from 1 to 64"),
        ({"concurrency": 65}, "from 1 to 64"),
        ({"concurrency": True}, "a whole number"),
        ({"concurrency": 2}, '"permissions": {"threads": true} is missing'),
        ({**MANY, "limits": {"threads": 10}}, '"limits": {"threads": 11} or more'),
    ],
)
def test_what_cannot_be(
    blocking: BlockingHost, workshop: Workshop, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ManifestError, match=told):
        blocking.load(workshop.write(SOURCE, **options))


@pytest.fixture
def blocking(workshop: Workshop) -> Any:
    with SandboxHost.blocking(workshop.config()) as host:
        yield host

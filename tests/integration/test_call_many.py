"""Many calls in one message: each has its value, or its error, in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.bundle.source import read_bundle
from sandbox_host.errors import (
    DeadlineExceededError,
    MessageTooLargeError,
    NotSerializableError,
    OperationError,
    PluginEndedError,
    UsageError,
)
from sandbox_host.observe.recording_reader import read_recording
from sandbox_host.runtime.batches import BATCH
from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.runtime.replay import replay
from tests.support.host import Workshop

SOURCE = """
import asyncio

ran = []

@operation
def add(a, b=1):
    ran.append(a)
    return a + b

@operation
async def add_later(a, b=1):
    await asyncio.sleep(0)
    return a + b

@operation
def numbers(until):
    yield from range(until)

@operation
def nap(seconds):
    time.sleep(seconds)

@operation
def large(size):
    return bytes(size)

@operation
def a_set():
    return {1}

@operation
def leave():
    os._exit(3)

@operation
def how_many_ran():
    return len(ran)
"""
MANY: dict[str, Any] = {"concurrency": 4, "permissions": {"threads": True}}


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as host:
        yield host


@pytest.mark.parametrize("operation", ["add", "add_later"])
@pytest.mark.parametrize("options", [{}, MANY], ids=["one-at-a-time", "several"])
def test_values_come_in_order(
    host: BlockingHost, workshop: Workshop, operation: str, options: dict[str, Any]
) -> None:
    plugin = host.load(workshop.write(SOURCE, **options))
    count = 2 * BATCH + 7
    calls = ((number, 2) for number in range(count))
    assert plugin.call_many(operation, calls) == [number + 2 for number in range(count)]
    assert plugin.call_many(operation, [{"a": 1}, {"a": 1, "b": 5}, [7]]) == [2, 6, 8]
    assert plugin.call_many(operation, []) == []


def test_for_asyncio(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(SOURCE))
            count = 2 * BATCH + 7
            values = await plugin.call_many("add", ((n,) for n in range(count)))
            assert values == [n + 1 for n in range(count)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(plugin.call_many("nap", [(600,)] * 3), 0.1)
            assert await plugin.call("add", 1) == 2

    asyncio.run(run())


def test_one_that_fails_does_not_stop_the_others(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE))
    calls: list[Any] = [(1,), ("x",), (3,), (4, 5, 6)]
    outcomes = plugin.call_many("add", calls, return_errors=True)
    assert [outcomes[0], outcomes[2]] == [2, 4]
    assert isinstance(outcomes[1], OperationError)
    assert outcomes[1].type_name == "TypeError"
    assert isinstance(outcomes[3], OperationError)
    with pytest.raises(OperationError) as caught:
        plugin.call_many("add", calls)
    assert caught.value.__notes__ == ["It was call 1 of 4."]
    assert plugin.call("how_many_ran") == 6


def test_streams_are_no_values(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE))
    (error,) = plugin.call_many("numbers", [(3,)], return_errors=True)
    assert "it yields" in str(error)


@pytest.mark.parametrize(
    ("operation", "calls", "error"),
    [
        ("nap", [(0.2,)] * 5, DeadlineExceededError),
        ("large", [(5 << 20,)] * 2, MessageTooLargeError),
        ("a_set", [()], NotSerializableError),
    ],
)
def test_what_fails_as_a_whole(
    host: BlockingHost,
    workshop: Workshop,
    operation: str,
    calls: list[Any],
    error: type[Exception],
) -> None:
    plugin = host.load(workshop.write(SOURCE))
    with pytest.raises(error):
        plugin.call_many(operation, calls, deadline=0.5)
    assert plugin.call_many("add", [(1,)]) == [2]


def test_a_plugin_that_ends_in_the_middle(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE))
    with pytest.raises(PluginEndedError, match="status 3"):
        plugin.call_many("leave", [()] * (3 * BATCH))


def test_what_is_no_call(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE))
    with pytest.raises(UsageError, match="Call 1 of call_many is int"):
        plugin.call_many("add", [(1,), 2])


HOSTILE = """
@operation
def forged():
    pass

import plugin_sdk.child.running as running
result = running.Runner.result

def forge(self, call, value):
    return result(self, call, FORGED)

running.Runner.result = forge
"""


@pytest.mark.parametrize("forged", ["[]", "[[True, 1]] * 3", "[[True]]", "[[False, 1]]", "7"])
def test_outcomes_that_are_none_end_the_plugin(
    host: BlockingHost, workshop: Workshop, forged: str
) -> None:
    plugin = host.load(workshop.write(HOSTILE.replace("FORGED", forged)))
    with pytest.raises(PluginEndedError, match="batch"):
        plugin.call_many("forged", [()])


def test_a_batch_can_be_replayed(host: BlockingHost, workshop: Workshop) -> None:
    path = workshop.root / "batch.recording"
    plugin = host.load(workshop.write(SOURCE), record=path)
    assert plugin.call_many("add", [(1,), (2,)]) == [2, 3]
    host.unload("sample")
    same, changed = SOURCE, SOURCE.replace("return a + b", "return a - b", 1)
    found = [
        [
            one.difference.path
            for one in replay(read_recording(path), contents, (), workshop.config()).found
        ]
        for source in (same, changed)
        for contents in [read_bundle(workshop.write(source))]
    ]
    assert found[0] == []
    assert found[1] == ["result[0][0]"]

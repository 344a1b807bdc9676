"""Everybody writes to everybody, and somebody leaves: nothing hangs, all of it ends in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import PluginError
from sandbox_host.model import Limits, Permissions
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from tests.support.host import Workshop

SOURCE = """
import threading

@operation
def through(blocks):
    for block in blocks:
        yield context().ask("twice", block)

@operation
def large(value):
    for _ in range(20):
        context().publish("data_processed", {"x": b"x" * 100_000})
    return value

@operation
def floods_while_it_is_fed(blocks):
    size = 0
    for block in blocks:
        size += len(block)
        context().publish("data_processed", {"x": b"x" * 100_000})
    return size

@on("user_action")
def handle(event):
    context().publish("model_updated", event.data)
"""

GRANTS = {"*": Permissions(services=("twice",), publish=("data_processed", "model_updated"))}
REQUESTED: dict[str, Any] = {
    "events": ["user_action"],
    "permissions": {
        "services": ["twice"],
        "publish": ["data_processed", "model_updated"],
        "threads": True,
    },
    "limits": {
        "wall_time": "20 s",
        "messages_per_second": 20_000,
        "message_bytes_per_second": "200 MB",
    },
}
BLOCK = bytes(300_000)
LONG_SECONDS = 60.0


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    ceilings = Limits(messages_per_second=20_000, message_bytes_per_second=200_000_000)
    config = workshop.config(grants=GRANTS, ceilings=ceilings, stop_timeout_seconds=1.0)
    with SandboxHost.blocking(config) as host:
        host.offer("twice", twice)
        yield host


def twice(block: bytes) -> bytes:
    return block + block


def blocks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield BLOCK


def in_threads(*functions: Callable[[], object]) -> tuple[list[threading.Thread], list[object]]:
    """Run functions, each in a thread; return the threads, and what came of them."""
    results: list[object] = []

    def run(function: Callable[[], object]) -> None:
        try:
            results.append(function())
        except PluginError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    return threads, results


def all_over(threads: list[threading.Thread]) -> bool:
    until = time.monotonic() + LONG_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def read(plugin: BlockingPlugin, count: int) -> int:
    return sum(len(block) for block in plugin.stream("through", blocks(count)))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_fed_asking_and_yielding_at_once(
    host: BlockingHost, workshop: Workshop, concurrency: int
) -> None:
    plugin = host.load(workshop.write(SOURCE, concurrency=concurrency, **REQUESTED))
    threads, results = in_threads(*[lambda: read(plugin, 40)] * 3)
    for number in range(50):
        host.publish("user_action", number)
    assert all_over(threads)
    assert results == [2 * 40 * len(BLOCK)] * 3


@pytest.mark.parametrize("concurrency", [1, 4])
def test_both_pipes_full(host: BlockingHost, workshop: Workshop, concurrency: int) -> None:
    plugin = host.load(workshop.write(SOURCE, concurrency=concurrency, **REQUESTED))
    value = b"v" * (2 << 20)
    events = host.subscribe("data_processed")
    threads, results = in_threads(
        *[lambda: len(plugin.call("large", value)) == len(value)] * 4,
        *[lambda: plugin.call("floods_while_it_is_fed", blocks(30)) == 30 * len(BLOCK)] * 2,
    )
    assert all_over(threads)
    assert results == [True] * 6
    events.close()


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("after", [0.0, 0.05, 0.3])
def test_unloading_in_the_middle_of_it_all(
    host: BlockingHost, workshop: Workshop, concurrency: int, after: float
) -> None:
    plugin = host.load(workshop.write(SOURCE, concurrency=concurrency, **REQUESTED))
    value = b"v" * (1 << 20)

    def slowly() -> int:
        size = 0
        for block in plugin.stream("through", blocks(100_000)):
            size += len(block)
            time.sleep(0.01)
        return size

    threads, results = in_threads(
        slowly,
        lambda: read(plugin, 100_000),
        lambda: plugin.call("large", value),
        lambda: plugin.call("floods_while_it_is_fed", blocks(100_000)),
    )
    for number in range(20):
        host.publish("user_action", number)
    time.sleep(after)
    host.unload("sample")
    assert all_over(threads)
    assert len(results) == 4
    left = [t.name for t in threading.enumerate() if "feed" in t.name and "sample" in t.name]
    assert not left or all_over([t for t in threading.enumerate() if t.name in left])

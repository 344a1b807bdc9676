"""Every result can say what it cost, every error of a call does, and the sums agree."""

from __future__ import annotations

import asyncio

import pytest

from sandbox_host import BlockingHost, Metered, SandboxHost, Usage
from sandbox_host.errors import BudgetExceededError, OperationError
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

WORK = """
import time

@operation
def spin(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return b"x" * 10_000

@operation
def fail(seconds):
    spin(seconds)
    raise ValueError("after work")
"""


def test_a_metered_call(host: BlockingHost, load: Load) -> None:
    plugin = load(WORK)
    metered = plugin.metered("spin", 0.05)
    assert metered.value == b"x" * 10_000
    usage = metered.usage
    assert 0.045 <= usage.cpu_seconds < 1.0
    assert usage.wall_seconds >= 0.04
    assert usage.bytes_in > 10_000 > usage.bytes_out > 0
    idle = plugin.metered("echo", 1).usage
    assert idle.cpu_seconds < usage.cpu_seconds
    plugin.call("spin", 0.01)
    bill = host.usage()["sample"].operations
    assert (bill["spin"].calls, bill["echo"].calls) == (2, 1)
    assert bill["spin"].cpu_seconds >= 0.05
    assert bill["spin"].bytes_in > 20_000


def test_an_error_says_what_it_cost(load: Load) -> None:
    plugin = load(WORK, limits={"cpu_time": "300 ms"})
    with pytest.raises(OperationError) as failed:
        plugin.call("fail", 0.05)
    assert failed.value.usage is not None
    assert 0.045 <= failed.value.usage.cpu_seconds < 0.3
    with pytest.raises(BudgetExceededError) as ended:
        plugin.call("spin", 60)
    assert ended.value.usage is not None
    assert ended.value.usage.cpu_seconds >= 0.3
    assert ended.value.usage.wall_seconds >= 0.2
    assert ended.value.usage.bytes_in == 0


async def _metered(workshop: Workshop) -> tuple[Metered, dict[str, Usage]]:
    async with SandboxHost(workshop.config()) as host:
        plugin = await host.load(workshop.write(WORK))
        return await plugin.metered("spin", 0.02), host.usage()


def test_with_asyncio(workshop: Workshop) -> None:
    metered, usage = asyncio.run(_metered(workshop))
    assert metered.usage.cpu_seconds >= 0.015
    assert usage["sample"].operations["spin"].calls == 1

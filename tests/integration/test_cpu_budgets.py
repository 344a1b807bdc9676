"""CPU time: whatever spins, wherever, it is ended at its budget, and not much later."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from sandbox_host import BlockingHost, Cause, OperationLimits
from sandbox_host.errors import BudgetExceededError, PluginEndedError, UsageError
from tests.support.host import Load, Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

BUDGET = 0.5
ALLOWED = 0.05
"""An overrun of 10 per cent or 50 ms is promised, whichever is more; see ../../benchmarks."""

GENEROUS = 10
"""Beside the other tests, on a machine that is busy, the host itself is kept waiting."""

SPINNERS = """
def spin():
    while True:
        pass

def threads():
    import threading
    for _ in range(3):
        threading.Thread(target=spin, daemon=True).start()
    spin()

def power():
    return 7 ** 50_000_000

def foreign_code():
    import ctypes
    library = ctypes.PyDLL(None)  # which keeps the interpreter's lock
    sized = ctypes.c_size_t
    library.memmem.argtypes = [ctypes.c_char_p, sized, ctypes.c_char_p, sized]
    hay, needle = b"a" * (1 << 27), b"a" * (1 << 12) + b"b"
    while True:
        library.memmem(hay, len(hay), needle, len(needle))

def deaf():
    import resource, signal
    signal.signal(signal.SIGXCPU, lambda *_: None)
    while True:
        try:
            spin()
        except BaseException:
            pass

def exceptions():
    while True:
        try:
            raise ValueError
        except BaseException:
            pass
"""
OPERATIONS = "".join(
    f"\n@operation\ndef call_{name}():\n    return {name}()\n"
    for name in ("spin", "threads", "power", "foreign_code", "deaf", "exceptions")
)
NAMES = ["spin", "threads", "power", "foreign_code", "deaf", "exceptions"]


@pytest.mark.parametrize("name", NAMES)
def test_without_the_sandbox_it_spins_on(name: str) -> None:
    process = psutil.Popen([sys.executable, "-c", SPINNERS + f"\n{name}()"])
    try:
        assert eventually(lambda: sum(process.cpu_times()[:2]) > BUDGET + ALLOWED)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_ended_at_its_budget(load: Load, name: str) -> None:
    neighbour = load(name="neighbour")
    plugin = load(SPINNERS + OPERATIONS, limits={"cpu_time": BUDGET}, permissions={"threads": True})
    with pytest.raises(BudgetExceededError) as caught:
        plugin.call(f"call_{name}")
    assert (caught.value.budget, caught.value.limit) == ("cpu", BUDGET)
    assert neighbour.call("echo", 1) == 1
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.CPU
    # Of its whole life, from the exit status: the start included, and what came after the verdict.
    assert BUDGET <= plugin.usage().cpu_seconds < BUDGET + GENEROUS * ALLOWED
    assert caught.value.usage is not None
    assert caught.value.usage.cpu_seconds >= BUDGET


def test_a_call_may_have_less(load: Load) -> None:
    plugin = load(SPINNERS + OPERATIONS)
    assert plugin.call("echo", 1, limits=OperationLimits(cpu_seconds=5.0)) == 1
    with pytest.raises(BudgetExceededError, match="limits=") as caught:
        plugin.call("call_spin", limits=OperationLimits(cpu_seconds=0.2))
    assert (caught.value.budget, caught.value.limit) == ("cpu", 0.2)
    assert plugin._process.ended.wait(10)
    assert plugin.usage().cpu_seconds < 5.0


def test_a_call_gets_no_more_than_its_plugin(load: Load) -> None:
    plugin = load(SPINNERS + OPERATIONS, limits={"cpu_time": 0.2})
    with pytest.raises(BudgetExceededError) as caught:
        plugin.call("call_spin", limits=OperationLimits(cpu_seconds=60.0))
    assert caught.value.limit == 0.2


GROW = """
kept = []

@operation
def grow(size):
    kept.append(b"x" * size)
    time.sleep(0.3)
    return len(kept)

@operation
def start_threads(count):
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    time.sleep(5)
"""


def test_a_call_may_have_less_memory_and_threads(load: Load) -> None:
    plugin = load(GROW)
    assert plugin.call("grow", 50_000_000) == 1
    with pytest.raises(BudgetExceededError) as caught:
        plugin.call("grow", 50_000_000, limits=OperationLimits(memory_bytes=80_000_000))
    assert (caught.value.budget, caught.value.limit) == ("memory", 80_000_000)
    assert plugin._process.ended.wait(10)
    plugin = load(GROW, permissions={"threads": True})
    with pytest.raises(BudgetExceededError) as caught:
        plugin.call("start_threads", 5, limits=OperationLimits(threads=3))
    assert (caught.value.budget, caught.value.limit) == ("threads", 3)


@pytest.mark.parametrize(
    "limits",
    [OperationLimits(cpu_seconds=-1.0), OperationLimits(memory_bytes=float("nan"))],  # type: ignore[arg-type]  # on purpose
    ids=["negative", "not a number"],
)
def test_limits_of_a_call_that_are_none(load: Load, limits: OperationLimits) -> None:
    with pytest.raises(UsageError, match="a number from 0 on"):
        load().call("echo", 1, limits=limits)


def test_many_short_operations_have_a_budget_together(load: Load) -> None:
    plugin = load(
        """
        @operation
        def work(seconds):
            until = time.process_time() + seconds
            while time.process_time() < until:
                pass
        """,
        limits={"cpu_time": 1.0, "cpu_time_per_minute": 0.6},
    )

    def work() -> None:
        for _ in range(60):
            plugin.call("work", 0.1)

    # Found while one of them is on its way, or between two.
    with pytest.raises((BudgetExceededError, PluginEndedError), match="cpu_per_minute"):
        work()
    assert plugin._process.ended.wait(10)
    assert plugin.cause is Cause.CPU
    assert plugin.usage().calls >= 2


def test_the_kernel_ends_what_the_host_does_not(workshop: Workshop, host: BlockingHost) -> None:
    """RLIMIT_CPU stands behind the watchdog: whole seconds, of the whole life."""
    plugin = host.load(workshop.write(SPINNERS + OPERATIONS))
    limits = Path(f"/proc/{plugin.receipt.pid}/limits").read_text(encoding="ascii")
    (line,) = (one for one in limits.splitlines() if one.startswith("Max cpu time"))
    assert line.split()[3:5] == ["86400", "86400"]

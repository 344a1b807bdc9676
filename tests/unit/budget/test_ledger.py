"""What a plugin costs, added up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget.ledger import Ledger
from sandbox_host.model import CallUsage


def test_empty() -> None:
    usage = Ledger().usage(bytes_in=1, bytes_out=2)
    assert (usage.calls, usage.failures, usage.p50_seconds, usage.p99_seconds) == (0, 0, 0.0, 0.0)
    assert (usage.bytes_in, usage.bytes_out) == (1, 2)


def test_peaks_grow_and_the_clock_never_goes_back() -> None:
    ledger = Ledger()
    ledger.sampled(cpu=2.0, resident_peak=300, descriptors=9, threads=2)
    ledger.sampled(cpu=1.0, resident_peak=200, descriptors=12, threads=1)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert (usage.cpu_seconds, usage.memory_peak_bytes) == (2.0, 300)
    assert (usage.descriptors_peak, usage.threads_peak) == (12, 2)


def test_calls_by_operation() -> None:
    ledger = Ledger()
    ledger.answered("a", CallUsage(wall_seconds=0.010), failed=False)
    ledger.answered("a", CallUsage(wall_seconds=0.030), failed=True)
    ledger.answered("b", CallUsage(wall_seconds=0.020), failed=False)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert (usage.calls, usage.failures) == (3, 1)
    assert 0.015 < usage.p50_seconds < 0.025
    assert ledger.operations()["a"].count == 2


def test_calls_that_nobody_asks_for_are_entered_all_the_same() -> None:
    ledger = Ledger()
    for _ in range(10_000):
        ledger.answered("a", CallUsage(wall_seconds=0.010), failed=False)
        assert len(ledger._unsettled) < 1_000
    ledger.settle()
    assert not ledger._unsettled
    assert ledger.operations()["a"].count == 10_000


def test_from_many_threads() -> None:
    ledger = Ledger()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(400):
            pool.submit(ledger.answered, "a", CallUsage(wall_seconds=0.001), failed=True)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert (usage.calls, usage.failures) == (400, 400)


costs = st.builds(
    CallUsage,
    cpu_seconds=st.floats(0, 1e3),
    wall_seconds=st.floats(0, 1e3),
    bytes_out=st.integers(0, 1 << 23),
    bytes_in=st.integers(0, 1 << 23),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), costs, st.booleans())))
def test_the_bill_is_the_sum_of_what_was_charged(
    charged: list[tuple[str, CallUsage, bool]],
) -> None:
    ledger = Ledger()
    for operation, cost, failed in charged:
        ledger.answered(operation, cost, failed=failed)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert usage.calls == len(charged)
    assert sum(one.calls for one in usage.operations.values()) == len(charged)
    assert sum(one.failures for one in usage.operations.values()) == usage.failures
    for name, one in usage.operations.items():
        mine = [cost for operation, cost, _ in charged if operation == name]
        assert one.bytes_in == sum(cost.bytes_in for cost in mine)
        assert one.bytes_out == sum(cost.bytes_out for cost in mine)
        assert one.cpu_seconds == pytest.approx(sum(cost.cpu_seconds for cost in mine))
        assert one.wall_seconds == pytest.approx(sum(cost.wall_seconds for cost in mine))


def test_failures_that_may_be_the_fault_of_others_are_counted_beside() -> None:
    ledger = Ledger()
    ledger.answered("a", CallUsage(), failed=True)
    ledger.excuse()
    assert (ledger.usage(bytes_in=0, bytes_out=0).failures, ledger.excused) == (1, 1)

"""What a plugin costs, added up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sandbox_host.budget.ledger import Ledger


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
    ledger.answered("a", 0.010, failed=False)
    ledger.answered("a", 0.030, failed=True)
    ledger.answered("b", 0.020, failed=False)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert (usage.calls, usage.failures) == (3, 1)
    assert 0.015 < usage.p50_seconds < 0.025
    assert ledger.operations()["a"].count == 2


def test_from_many_threads() -> None:
    ledger = Ledger()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(400):
            pool.submit(ledger.answered, "a", 0.001, failed=True)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert (usage.calls, usage.failures) == (400, 400)

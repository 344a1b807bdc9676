"""A ledger adds up, in whatever order things happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget.ledger import Ledger
from sandbox_host.model import CallUsage

figure = st.integers(0, 2**50)
samples = st.lists(st.tuples(st.floats(0, 1e6), figure, figure, figure), max_size=20)
answers = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(1e-6, 1e3), st.booleans()), max_size=50
)


@given(samples)
def test_peaks(seen: list[tuple[float, int, int, int]]) -> None:
    ledger = Ledger()
    for cpu, resident, descriptors, threads in seen:
        ledger.sampled(cpu=cpu, resident_peak=resident, descriptors=descriptors, threads=threads)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    columns = list(zip(*seen, strict=True)) or [(0,)] * 4
    assert usage.cpu_seconds == max(columns[0])
    assert usage.memory_peak_bytes == max(columns[1])
    assert usage.descriptors_peak == max(columns[2])
    assert usage.threads_peak == max(columns[3])


@given(answers)
def test_sums(seen: list[tuple[str, float, bool]]) -> None:
    ledger = Ledger()
    for operation, wall, failed in seen:
        ledger.answered(operation, CallUsage(wall_seconds=wall), failed=failed)
    usage = ledger.usage(bytes_in=0, bytes_out=0)
    assert usage.calls == len(seen)
    assert usage.failures == sum(failed for _, _, failed in seen)
    counts = {name: metrics.count for name, metrics in ledger.operations().items()}
    assert counts == {o: sum(o == name for name, _, _ in seen) for o in {n for n, _, _ in seen}}
    if seen:
        walls = sorted(wall for _, wall, _ in seen)
        assert walls[0] * 0.9 <= usage.p50_seconds <= usage.p99_seconds <= walls[-1] * 1.1

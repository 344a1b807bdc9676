"""CPU time in the last minute: never more than was used in it, nearly all that was."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget.window import MINUTE_SECONDS, CpuWindow

steps = st.lists(st.tuples(st.floats(0.001, 30), st.floats(0, 8)), min_size=1, max_size=80)


def used_since(readings: list[tuple[float, float]], begin: float) -> float:
    """Return what was used from a moment on; between two readings it is used evenly."""
    last = readings[-1][1]
    begin = max(begin, readings[0][0])
    for (at, cpu), (later, more) in itertools.pairwise(readings):
        if later >= begin:
            share = (max(at, begin) - at) / (later - at)
            return last - (cpu + (more - cpu) * share)
    return 0.0


@given(steps)
def test_it_is_never_more_than_was_used_in_a_minute(seen: list[tuple[float, float]]) -> None:
    window, now, cpu = CpuWindow(), 100.0, 5.0
    readings = [(now, cpu)]
    assert window.used(cpu, now) == 0.0
    for gap, share in seen:
        now, cpu = now + gap, cpu + gap * share
        readings.append((now, cpu))
        assert window.used(cpu, now) <= used_since(readings, now - MINUTE_SECONDS) + 1e-6


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0, 8)), min_size=1, max_size=200))
def test_it_is_nearly_all_where_somebody_looks(seen: list[tuple[float, float]]) -> None:
    """Readings that are kept are less than two seconds apart: so much of the window is missed."""
    window, now, cpu = CpuWindow(), 100.0, 5.0
    window.used(cpu, now)
    readings = [(now, cpu)]
    for gap, share in seen:
        now, cpu = now + gap, cpu + gap * share
        readings.append((now, cpu))
        assert window.used(cpu, now) >= used_since(readings, now - MINUTE_SECONDS + 2.0) - 1e-6


@given(steps)
def test_memory_is_bounded(seen: list[tuple[float, float]]) -> None:
    window, now = CpuWindow(), 0.0
    for gap, cpu in seen * 5:
        now += gap
        window.used(cpu, now)
    assert len(window._readings) <= MINUTE_SECONDS + 2


def test_a_clock_that_seems_to_go_back_has_used_nothing() -> None:
    window = CpuWindow()
    assert window.used(10.0, 0.0) == 0.0
    assert window.used(0.0, 1.0) == 0.0

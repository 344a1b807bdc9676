"""The bytes of a minute, and when they are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.budget.traffic import TrafficWindow
from sandbox_host.model import Cause, Limits


def window(limit: int = 1_000, now: float = 0.0) -> TrafficWindow:
    return TrafficWindow(Limits(network_bytes_per_minute=limit), now)


def test_up_to_the_limit_and_not_beyond() -> None:
    one = window()
    assert one.excess(1_000, 10.0) is None
    assert one.excess(1_001, 10.1) == Excess(
        Step.END, Cause.NETWORK, "network_bytes_per_minute", 1_000, 1_001, "bytes"
    )


def test_what_is_a_minute_old_counts_no_more() -> None:
    one = window()
    assert one.used(900, 1.0) == 900
    assert one.used(1_800, 59.0) == 1_800
    assert one.used(1_800, 62.0) == 900
    assert one.used(1_800, 130.0) == 0


def test_what_passed_after_a_long_quiet_time_counts() -> None:
    """Nobody looks while nothing is open: the first look afterwards sees it all at once."""
    one = window()
    assert one.used(500, 1_000.0) == 500
    assert one.used(500, 1_059.0) == 500
    assert one.used(700, 5_000.0) == 200


def test_a_total_that_seems_to_go_back_is_nothing() -> None:
    one = window()
    one.used(500, 1.0)
    assert one.used(400, 70.0) == 0


steps = st.lists(
    st.tuples(st.floats(0.01, 40.0, allow_nan=False), st.integers(0, 1_000)), min_size=1
)


@given(steps)
def test_never_less_than_the_minute_and_never_more_than_all(given: list[tuple[float, int]]) -> None:
    one, now, total, passed = window(), 0.0, 0, []
    for pause, size in given:
        now, total = now + pause, total + size
        passed.append((now, size))
        used = one.used(total, now)
        within = sum(size for at, size in passed if now - at < 60.0)
        # What was seen at one look may have passed up to a second before the one before it.
        assert within <= used <= total
        assert len(one._readings) <= 63

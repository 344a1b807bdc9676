"""Who takes the next call."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.runtime.replicas import least_busy

LOADS = st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=9)


@given(LOADS, st.integers(0, 1 << 40))
def test_the_one_with_the_least_to_do(loads: list[int | None], turn: int) -> None:
    chosen = least_busy(loads, turn)
    known = [load for load in loads if load is not None]
    assert 0 <= chosen < len(loads)
    assert loads[chosen] == (min(known) if known else None)


@given(st.integers(1, 9), st.integers(0, 100), st.none() | st.just(3))
def test_equals_take_turns(count: int, first: int, load: int | None) -> None:
    taken = Counter(least_busy([load] * count, first + turn) for turn in range(3 * count))
    assert set(taken.values()) == {3}

"""Whoever is there and whatever is taken: a plugin's id is its own, and of the range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.backends.linux.uids import choose

FIRST = 61_184
ids = st.integers(FIRST - 3, FIRST + 12) | st.just(0)


@given(owner=ids, taken=st.frozensets(ids), count=st.integers(1, 10))
def test_choice(owner: int, taken: frozenset[int], count: int) -> None:
    every = set(range(FIRST, FIRST + count))
    if every <= taken:
        with pytest.raises(OSError, match=f"all {count} user ids"):
            choose(owner, taken, (FIRST, count))
        return
    chosen = choose(owner, taken, (FIRST, count))
    assert chosen in every - taken
    # What it has, it keeps; else the lowest, so that few ids are ever used.
    assert chosen == (owner if owner in every - taken else min(every - taken))


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 8))
def test_running_plugins_never_share(starts: list[bool], count: int) -> None:
    """Plugins start, and end in the order in which they started."""
    running: list[int] = []
    for start in starts:
        if start and len(running) < count:
            running.append(choose(0, running, (FIRST, count)))
        elif running:
            running.pop(0)
        assert len(set(running)) == len(running)

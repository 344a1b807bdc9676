"""Both tables are whole: every state is reached, and left unless it is an end."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from sandbox_host.errors import UsageError
from sandbox_host.supervision import lifecycle, rollout
from sandbox_host.supervision.machine import advance, frozen_table

MACHINES = [
    pytest.param(
        lifecycle.TABLE, lifecycle.FIRST, lifecycle.STATES, lifecycle.JOURNAL, id="lifecycle"
    ),
    pytest.param(rollout.TABLE, rollout.FIRST, rollout.STATES, rollout.JOURNAL, id="rollout"),
]


def reachable(table: Any, first: Any, without: Collection[Any] = ()) -> set[Any]:
    """Return the states that can be reached, where some may not be passed."""
    reached, front = {first} - set(without), [first]
    while front:
        after = set(table[front.pop()].values()) - reached - set(without)
        reached |= after
        front += after
    return reached


@pytest.mark.parametrize(("table", "first", "states", "journal"), MACHINES)
def test_every_state_is_reachable(table, first, states, journal):
    assert set(table) == set(type(first)) == set(states)
    assert reachable(table, first) == set(type(first))


@pytest.mark.parametrize(("table", "first", "states", "journal"), MACHINES)
def test_every_trigger_is_used_and_told(table, first, states, journal):
    used = {trigger for row in table.values() for trigger in row}
    assert used == set(journal) == set(type(next(iter(used))))
    assert len(set(journal.values())) == len(journal)


def test_from_every_state_of_a_life_every_other_one_is_in_reach():
    for state in lifecycle.TABLE:
        assert reachable(lifecycle.TABLE, state) == set(lifecycle.PluginState)


def test_every_rollout_ends():
    for state, row in rollout.TABLE.items():
        assert bool(row) == (state not in rollout.ENDS)
        assert reachable(rollout.TABLE, state) & rollout.ENDS


def test_a_missing_key_is_a_bug():
    table = frozen_table({"a": {"go": "b"}, "b": {}})
    assert advance(table, "a", "go", "it") == "b"
    with pytest.raises(UsageError, match="it that is b cannot take the step go"):
        advance(table, "b", "go", "it")
    with pytest.raises(TypeError):
        table["b"]["go"] = "a"

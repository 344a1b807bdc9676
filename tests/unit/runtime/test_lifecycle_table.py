"""The lifecycle is a table, and every plugin's life is a path through it."""

from __future__ import annotations

import pytest

from sandbox_host.errors import UsageError
from sandbox_host.model import State
from sandbox_host.runtime.lifecycle import ENDED, TABLE, Step, advance


def test_the_ordinary_life() -> None:
    state = State.ADMITTED
    steps = (Step.START, Step.CONFINED, Step.READY, Step.DRAIN, Step.ENDED)
    seen = [state := advance(state, step) for step in steps]
    assert seen == [
        State.CONFINING,
        State.STARTING,
        State.READY,
        State.DRAINING,
        State.STOPPED,
    ]


@pytest.mark.parametrize("state", sorted(set(State) - ENDED))
def test_everything_that_lives_can_fail(state: State) -> None:
    assert advance(state, Step.FAILED) is State.FAILED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_what_is_not_in_the_table_is_an_error(state: State, step: Step) -> None:
    if step in TABLE[state]:
        assert advance(state, step) in TABLE
    else:
        with pytest.raises(UsageError, match=f"{state} cannot take the step {step}"):
            advance(state, step)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_nothing_follows_an_end(state: State) -> None:
    assert TABLE[state] == {}


def test_every_state_is_reachable() -> None:
    reached, front = {State.ADMITTED}, [State.ADMITTED]
    while front:
        after = set(TABLE[front.pop()].values()) - reached
        reached |= after
        front += after
    assert reached == set(State)

"""A new version takes over, or the old one serves on."""

from __future__ import annotations

import itertools

import pytest

from sandbox_host.errors import UsageError
from sandbox_host.supervision.rollout import (
    ENDS,
    STATES,
    TABLE,
    Rollout,
    RolloutState,
    RolloutTrigger,
    Serves,
)

S, T = RolloutState, RolloutTrigger


def walk(*triggers: RolloutTrigger) -> list[Rollout]:
    begun = Rollout("a", "2.0.0")
    return list(itertools.accumulate(triggers, lambda one, t: one.step(t, 1.0), initial=begun))


def test_a_reload():
    steps = walk(T.START, T.READY, T.SWAP, T.DRAINED)
    assert [one.state for one in steps] == [S.VERIFIED, S.STARTING, S.PROBING, S.SWAPPED, S.DONE]
    assert [one.serves for one in steps] == [Serves.OLD] * 3 + [Serves.NEW] * 2
    assert [one.over for one in steps] == [False] * 4 + [True]


def test_one_that_asks_for_more_and_hands_over_its_state():
    steps = walk(T.HOLD, T.APPROVE, T.START, T.READY, T.PASS, T.SWAP, T.DRAINED)
    assert steps[1].state is S.HELD
    assert [one.serves for one in steps[4:]] == ["old", "nobody", "new", "new"]


@pytest.mark.parametrize("state", RolloutState)
def test_abandoned_the_old_one_serves_on(state):
    one = Rollout("a", "2.0.0", state, 1.0, "before")
    after = one.abandon(5.0, "a newer version came")
    if STATES[state].serves is Serves.NEW or state in ENDS:
        assert after is one
    else:
        assert after == Rollout("a", "2.0.0", S.ABANDONED, 5.0, "a newer version came")
        assert after.serves is Serves.OLD


def test_after_the_swap_there_is_no_way_back():
    for state, row in TABLE.items():
        for after in row.values():
            if STATES[state].serves is Serves.NEW:
                assert STATES[after].serves is Serves.NEW


def test_the_swap_is_one_step_and_only_probed_versions_come_to_it():
    into = {(s, t) for s, row in TABLE.items() for t, after in row.items() if after is S.SWAPPED}
    assert into == {(S.PROBING, T.SWAP), (S.HANDING_OVER, T.SWAP)}
    assert [s for s, row in TABLE.items() if S.HANDING_OVER in row.values()] == [S.PROBING]


def test_only_who_waits_for_a_person_or_is_over_has_no_deadline():
    assert {s for s, one in STATES.items() if not one.timed} == {S.VERIFIED, S.HELD} | ENDS
    for state, one in STATES.items():
        if one.timed:  # something follows when it has passed
            assert {T.ABANDON, T.DRAINED} & set(TABLE[state])


def test_an_abandoned_one_always_has_a_reason():
    assert walk(T.START, T.ABANDON)[-1].reason == "it did not get beyond starting"
    with pytest.raises(UsageError, match="an update that is swapped cannot take the step abandon"):
        Rollout("a", "1", S.SWAPPED).step(T.ABANDON, 0.0)

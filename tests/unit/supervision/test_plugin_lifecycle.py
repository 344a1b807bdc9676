"""The life of an installed plugin, and how the life of one process fits into it."""

from __future__ import annotations

import itertools

import pytest

from sandbox_host.errors import UsageError
from sandbox_host.health.alerts import Severity
from sandbox_host.model import State
from sandbox_host.runtime import lifecycle as process
from sandbox_host.supervision.lifecycle import (
    ENDS,
    FIRST,
    JOURNAL,
    STATES,
    TABLE,
    TAKES_CALLS,
    WAITING,
    WITH_PROCESS,
    Calls,
    PluginLife,
    PluginState,
    Transition,
    Trigger,
    advance,
)

P, T = PluginState, Trigger


def walk(*triggers: Trigger) -> list[PluginState]:
    return list(itertools.accumulate(triggers, advance, initial=FIRST))


def test_the_ordinary_life():
    assert walk(T.VERIFY, T.ADMIT, T.START, T.READY, T.STOP, T.END) == [
        P.DISCOVERED,
        P.VERIFIED,
        P.ADMITTED,
        P.STARTING,
        P.RUNNING,
        P.DRAINING,
        P.STOPPED,
    ]


def test_an_update_that_is_held():
    assert walk(T.VERIFY, T.HOLD, T.APPROVE, T.ADMIT)[1:] == [
        P.VERIFIED,
        P.HELD,
        P.VERIFIED,
        P.ADMITTED,
    ]


def test_a_crash_and_the_next_start():
    up = (T.VERIFY, T.ADMIT, T.START, T.READY)
    states = walk(*up, T.WORSEN, T.FAIL, T.BACK_OFF, T.RENEW, *up, T.FAIL, T.QUARANTINE, T.RELEASE)
    assert states[4:9] == [P.RUNNING, P.DEGRADED, P.FAILED, P.BACKING_OFF, P.DISCOVERED]
    assert states[-4:] == [P.RUNNING, P.FAILED, P.QUARANTINED, P.DISCOVERED]


@pytest.mark.parametrize("state", PluginState)
@pytest.mark.parametrize("trigger", Trigger)
def test_what_is_not_in_the_table_is_an_error(state, trigger):
    life = PluginLife("a", state)
    assert life.allows(trigger) == (trigger in TABLE[state])
    if life.allows(trigger):
        after, told = life.step(trigger, 7.0, "why")
        assert after == PluginLife("a", advance(state, trigger), 7.0, "why")
        assert told == Transition("a", state, trigger, after.state, 7.0, "why")
        assert told.journal_event == JOURNAL[trigger]
    else:
        with pytest.raises(UsageError, match=f"{state} cannot take the step {trigger}"):
            life.step(trigger, 7.0)


def reachable_without(*left_out: PluginState) -> set[PluginState]:
    reached, front = {FIRST}, [FIRST]
    while front:
        after = set(TABLE[front.pop()].values()) - reached - set(left_out)
        reached |= after
        front += after
    return reached


def test_nothing_starts_that_was_not_verified_and_admitted():
    """Also not a second time: whatever had a process is discovered again before the next one."""
    for needed in (P.VERIFIED, P.ADMITTED):
        assert not reachable_without(needed) & WITH_PROCESS
    for state in TABLE:
        for trigger, after in TABLE[state].items():
            if state is not P.ADMITTED and after is P.STARTING:
                pytest.fail(f"{trigger} starts what is {state}")
            if state not in WITH_PROCESS and after is P.VERIFIED:
                assert state in {P.DISCOVERED, P.HELD}


def test_out_of_quarantine_leads_one_way():
    assert TABLE[P.QUARANTINED] == {T.RELEASE: P.DISCOVERED}
    assert [s for s, row in TABLE.items() if T.RELEASE in row] == [P.QUARANTINED]


def test_a_process_is_there_from_start_to_end_or_fail():
    for state, row in TABLE.items():
        for trigger, after in row.items():
            if (state in WITH_PROCESS) != (after in WITH_PROCESS):
                assert trigger in {T.START, T.END, T.FAIL}


def test_who_takes_calls():
    assert {P.RUNNING, P.DEGRADED} == TAKES_CALLS < WITH_PROCESS
    for state in ENDS:
        assert STATES[state].calls is Calls.REFUSED
    waits = {state for state, one in STATES.items() if one.calls is Calls.WAIT}
    for state in waits:  # what is waited for is in reach without anybody's word
        assert state not in ENDS | {P.HELD}
    assert WAITING - waits == {P.HELD}


def test_alerts_are_of_known_severities():
    told = {one.alert for one in STATES.values()}
    assert told - {""} == set(Severity)
    assert {s for s, one in STATES.items() if one.alert == "error"} == {P.FAILED, P.QUARANTINED}


def test_the_life_of_a_process_fits_into_that_of_its_plugin():
    """Every path of the one table is a path of the other, step for step."""
    steps = {
        process.Step.START: None,
        process.Step.CONFINED: None,
        process.Step.READY: T.READY,
        process.Step.DRAIN: T.STOP,
        process.Step.ENDED: T.END,
        process.Step.FAILED: T.FAIL,
    }
    ready = {P.RUNNING, P.DEGRADED}
    starting = {State.ADMITTED, State.CONFINING, State.STARTING}
    seen, front = set(), [(State.ADMITTED, advance(P.ADMITTED, T.START))]
    while front:
        inner, outer = pair = front.pop()
        if pair in seen:
            continue
        seen.add(pair)
        assert (outer is P.STARTING) == (inner in starting)
        assert (outer in ready) == (inner is State.READY)
        assert (outer in WITH_PROCESS) == (inner not in process.ENDED)
        for step, after in process.TABLE[inner].items():
            trigger = steps[step]
            front.append((after, outer if trigger is None else advance(outer, trigger)))
        if inner is State.READY:  # the plugin alone turns better and worse
            front += [(inner, TABLE[outer][t]) for t in (T.WORSEN, T.RECOVER) if t in TABLE[outer]]
    assert {inner for inner, _ in seen} == set(State)

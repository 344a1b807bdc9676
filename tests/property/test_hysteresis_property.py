"""Whatever the verdicts: worse only for enough of them, better only after enough good ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.health.hysteresis import Hysteresis, HysteresisPolicy, Turn
from sandbox_host.health.verdict import HealthStatus, Verdict

GRADE = {status: grade for grade, status in enumerate(HealthStatus)}
series = st.lists(st.tuples(st.sampled_from(HealthStatus), st.booleans()), min_size=1, max_size=60)


@st.composite
def policies(draw):
    window = draw(st.integers(1, 8))
    return HysteresisPolicy(draw(st.integers(1, window)), window, draw(st.integers(1, window)))


@given(policies(), series)
def test_no_turn_without_enough_reason(policy, verdicts):
    one, counted = Hysteresis(policy), []
    for status, busy in verdicts:
        before = one.status
        change = one.see(Verdict(status, "m", {}, busy=busy))
        if busy and status is HealthStatus.HEALTHY:
            assert change is None
            continue
        counted.append(GRADE[status])
        assert (change is None) == (one.status is before)
        if change is None:
            continue
        assert (change.before, change.after) == (before, one.status)
        after = GRADE[one.status]
        if change.turn is Turn.WORSE:
            recent = counted[-policy.window :]
            assert sum(grade >= after for grade in recent) >= policy.bad
        else:
            recent = counted[-policy.good :]
            assert len(recent) == policy.good
            assert max(recent) == after < GRADE[before]


@given(policies(), series, st.sampled_from(HealthStatus))
def test_what_lasts_is_what_counts(policy, verdicts, lasting):
    one = Hysteresis(policy)
    for status, busy in verdicts:
        one.see(Verdict(status, "m", {}, busy=busy))
    for _ in range(policy.window + policy.good):
        one.see(Verdict(lasting, "m", {}))
    assert one.status is lasting


@given(policies(), series)
def test_memory_is_bounded(policy, verdicts):
    one = Hysteresis(policy)
    for status, _ in verdicts * 3:
        one.see(Verdict(status, "m", {}))
    assert len(one._last) <= policy.window

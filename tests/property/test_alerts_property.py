"""However trouble comes and goes: few messages, in a good order, and true in the end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.health.alerts import OVERFLOW, AlertPolicy, Alerts, Kind, Severity

KEYS = [("a", "x"), ("a", "y"), ("b", "x"), ("", "x")]
policies = st.builds(
    lambda pause, more, most: AlertPolicy(pause, pause * more, most),
    st.floats(0.1, 100),
    st.floats(1, 100),
    st.integers(1, 5),
)
words = st.lists(
    st.tuples(
        st.floats(0, 50),
        st.sampled_from(KEYS),
        st.sampled_from([*Severity, "well", "due", "forget"]),
    ),
    max_size=80,
)


def run(alerts, said):
    """Return all messages, and what is the case at the end: severities by key."""
    now, told, true = 0.0, [], {}
    for gap, key, word in said:
        now += gap
        if word == "due":
            told += alerts.due(now)
        elif word == "forget":
            told += alerts.forget(key[0], "gone", now)
            true = {one: severity for one, severity in true.items() if one[0] != key[0]}
        elif word == "well":
            told += alerts.well(*key, "fine", now)
            true.pop(key, None)
        else:
            told += alerts.trouble(*key, word, "bad", now)
            true[key] = word
    return now, told, true


@given(policies, words)
def test_messages_of_one_alert_keep_their_distance_and_their_order(policy, said):
    alerts = Alerts(policy)
    now, told, _ = run(alerts, said)
    told += alerts.due(now + policy.pause_seconds)
    for key in {(one.plugin, one.rule) for one in told}:
        mine = [one for one in told if (one.plugin, one.rule) == key]
        assert mine[0].kind is Kind.RAISED
        for one, following in pairwise(mine):
            assert following.at >= one.at + policy.pause_seconds
            assert (following.kind is Kind.RAISED) == (one.kind is Kind.RECOVERED)
            if following.kind is Kind.CHANGED:
                assert following.severity is not one.severity
            if following.kind is Kind.REPEATED:
                assert following.severity is one.severity
                assert following.at >= one.at + policy.repeat_seconds


@given(policies, words)
def test_what_was_told_last_is_what_is_the_case(policy, said):
    """Where there was room for all of it."""
    alerts = Alerts(AlertPolicy(policy.pause_seconds, policy.repeat_seconds, len(KEYS)))
    now, told, true = run(alerts, said)
    told += alerts.due(now + 2 * policy.pause_seconds)
    last = {(one.plugin, one.rule): one for one in told}
    known = {key: one.severity for key, one in last.items() if one.kind is not Kind.RECOVERED}
    assert known == true
    assert set(alerts.open) == set(true)
    assert alerts.untold == 0


@given(policies, words)
def test_there_is_a_bound(policy, said):
    alerts = Alerts(policy)
    now, told, true = run(alerts, said)
    assert len(alerts._kept) <= policy.max_open + 1
    assert alerts.untold == 0 or OVERFLOW in {(one.plugin, one.rule) for one in told}
    for key in list(true):
        alerts.well(*key, "fine", now)
    for step in range(1, 6):  # the last one that there is no room, only after the others
        alerts.due(now + step * 2 * policy.pause_seconds)
    assert alerts._kept == {}

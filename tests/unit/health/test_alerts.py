"""An operator is told once, again if it lasts, and when it is over."""

from __future__ import annotations

import math

import pytest

from sandbox_host.health.alerts import OVERFLOW, Alert, AlertPolicy, Alerts, Kind, Severity

WARNING, ERROR = Severity
A = ("a", "health")


def said(alerts: list[Alert]) -> list[tuple[str, float]]:
    return [(str(one.kind), one.at) for one in alerts]


def test_trouble_is_told_once_and_its_end():
    alerts = Alerts()
    assert alerts.trouble(*A, ERROR, "it is unhealthy", 10.0) == [
        Alert("a", "health", Kind.RAISED, ERROR, "it is unhealthy", 10.0, 10.0)
    ]
    for now in range(11, 100):
        assert alerts.trouble(*A, ERROR, "it is unhealthy", now) == []
        assert alerts.due(now) == []
    assert alerts.open == [A]
    assert alerts.well(*A, "it is healthy", 100.0) == [
        Alert("a", "health", Kind.RECOVERED, ERROR, "it is healthy", 10.0, 100.0)
    ]
    assert alerts.well(*A, "it is healthy", 101.0) == []
    assert alerts.open == []


def test_what_lasts_is_told_again():
    alerts = Alerts()
    alerts.trouble(*A, ERROR, "x", 0.0)
    assert alerts.next_due() == 3_600.0
    assert alerts.due(3_599.0) == []
    assert said(alerts.due(3_600.0)) == [("repeated", 3_600.0)]
    assert said(alerts.trouble(*A, ERROR, "x", 7_200.0)) == [("repeated", 7_200.0)]


def test_what_flutters_is_told_at_most_once_in_a_pause():
    alerts = Alerts()
    told = alerts.trouble(*A, ERROR, "x", 0.0)
    for now in range(1, 60, 2):
        told += alerts.well(*A, "y", now)
        told += alerts.trouble(*A, ERROR, "x", now + 1)
    told += alerts.well(*A, "y", 59.5)
    assert said(told) == [("raised", 0.0)]
    assert said(alerts.due(59.9)) == []
    (over,) = alerts.due(60.0)
    assert (over.kind, over.times) == (Kind.RECOVERED, 30)


def test_what_was_back_before_its_end_was_told_goes_on():
    alerts = Alerts()
    alerts.trouble(*A, ERROR, "x", 0.0)
    alerts.well(*A, "y", 10.0)
    alerts.trouble(*A, ERROR, "x", 20.0)
    assert alerts.due(60.0) == []
    (again,) = alerts.due(3_600.0)
    assert (again.kind, again.times, again.since) == (Kind.REPEATED, 1, 20.0)


def test_what_comes_back_soon_after_its_end_waits_for_the_pause():
    alerts = Alerts()
    alerts.trouble(*A, ERROR, "x", 0.0)
    assert said(alerts.well(*A, "y", 70.0)) == [("recovered", 70.0)]
    assert alerts.trouble(*A, ERROR, "x", 80.0) == []
    assert said(alerts.due(130.0)) == [("raised", 130.0)]


def test_an_end_is_told_only_to_whom_the_beginning_was():
    alerts = Alerts()
    assert alerts.well(*A, "y", 0.0) == []
    alerts.trouble(*A, ERROR, "x", 0.0)
    alerts.well(*A, "y", 70.0)
    alerts.trouble(*A, ERROR, "x", 80.0)
    alerts.well(*A, "y", 90.0)
    assert alerts.due(1e9) == []
    assert alerts.next_due() is None  # and nothing is kept of it


def test_another_severity_is_told():
    alerts = Alerts()
    alerts.trouble(*A, WARNING, "x", 0.0)
    assert alerts.trouble(*A, ERROR, "worse", 10.0) == []
    (change,) = alerts.due(60.0)
    assert (change.kind, change.severity, change.text) == (Kind.CHANGED, ERROR, "worse")
    alerts.trouble(*A, WARNING, "better", 70.0)
    alerts.trouble(*A, ERROR, "worse", 80.0)
    assert alerts.due(200.0) == []


def test_rules_and_plugins_are_told_apart():
    alerts = Alerts()
    for key in (A, ("a", "lifecycle"), ("b", "health"), ("", "journal")):
        assert said(alerts.trouble(*key, ERROR, "x", 0.0)) == [("raised", 0.0)]
    assert [one.rule for one in alerts.forget("a", "it was removed", 90.0)] == [
        "health",
        "lifecycle",
    ]
    assert alerts.open == [("b", "health"), ("", "journal")]


def test_too_many_are_told_as_one():
    alerts = Alerts(AlertPolicy(max_open=2))
    told = [alerts.trouble(str(n), "health", ERROR, "x", 0.0) for n in range(5)]
    assert [[(one.plugin, one.rule) for one in some] for some in told] == [
        [("0", "health")],
        [("1", "health")],
        [OVERFLOW],
        [],
        [],
    ]
    assert alerts.untold == 3
    assert alerts.due(65.0) == []  # it is as full as before
    assert said(alerts.well("0", "health", "y", 70.0)) == [("recovered", 70.0)]
    assert alerts.trouble("2", "health", ERROR, "x", 80.0) == []  # what is over has its pause
    assert said(alerts.due(130.0)) == [("recovered", 130.0)]  # there is room
    assert said(alerts.trouble("2", "health", ERROR, "x", 140.0)) == [("raised", 140.0)]


def test_hostile_text_is_cut_and_escaped():
    (one,) = Alerts().trouble(*A, ERROR, "\x1b[2J\n" + "x" * 9_999, 0.0)
    assert one.text.startswith("\\x1b[2J\\n")
    assert len(one.text) == 500
    assert one.text.isprintable()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pause_seconds", -1.0),
        ("pause_seconds", math.inf),
        ("pause_seconds", math.nan),
        ("repeat_seconds", 59.0),
        ("repeat_seconds", math.nan),
        ("max_open", 0),
        ("max_open", 1_000_001),
    ],
)
def test_a_policy_that_is_none(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        AlertPolicy(**{field: value})


def test_it_may_never_be_repeated():
    alerts = Alerts(AlertPolicy(repeat_seconds=math.inf))
    alerts.trouble(*A, ERROR, "x", 0.0)
    assert alerts.due(1e12) == []

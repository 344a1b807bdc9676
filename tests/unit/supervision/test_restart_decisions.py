"""Backoff, and quarantine."""

from __future__ import annotations

import math

import pytest

from sandbox_host.errors import ConfigError
from sandbox_host.supervision.restart import Quarantine, RestartPolicy, Restarts, Retry

POLICY = RestartPolicy(
    first_delay_seconds=1.0,
    factor=2.0,
    longest_delay_seconds=10.0,
    jitter=0.0,
    most_ends=6,
    window_seconds=300.0,
    steady_seconds=60.0,
)


def test_the_delay_doubles_up_to_the_longest():
    restarts, now, seen = Restarts(POLICY), 100.0, []
    for _ in range(5):
        retry = restarts.decide(now, 0.5)
        assert isinstance(retry, Retry)
        seen.append(retry.at - now)
        now = retry.at
    assert seen == [1, 2, 4, 8, 10]


def test_too_many_in_the_window_go_into_quarantine_until_forgotten():
    restarts = Restarts(POLICY)
    decided = [restarts.decide(float(now), 0.0) for now in range(7)]
    assert all(isinstance(one, Retry) for one in decided[:5])
    assert decided[5:] == [Quarantine("it ended 6 times within 300 s.")] * 2
    restarts.forget()
    assert restarts.decide(8.0, 0.0) == Retry(9.0)


def test_ends_far_apart_do_not():
    restarts = Restarts(POLICY)
    for count in range(1, 1_000):
        assert restarts.decide(count * 61.0, 0.0).at <= count * 61.0 + 10


def test_a_long_run_begins_anew():
    restarts = Restarts(POLICY)
    for now in (0.0, 1.0, 2.0):
        restarts.decide(now, 0.0)
    restarts.started(10.0)
    assert restarts.decide(70.0, 0.0) == Retry(71.0)
    restarts.started(80.0)
    assert restarts.decide(139.0, 0.0) == Retry(141.0)


def test_a_start_that_fails_is_no_run():
    restarts = Restarts(POLICY)
    restarts.started(0.0)
    assert restarts.decide(100.0, 0.0) == Retry(101.0)
    assert restarts.decide(200.0, 0.0) == Retry(202.0)


def test_one_end_may_be_one_too_many():
    assert isinstance(Restarts(RestartPolicy(most_ends=1)).decide(0.0, 0.0), Quarantine)


@pytest.mark.parametrize("chance", [-1.0, 0.0, 1.0, 7.0])
def test_chance_is_kept_within_its_share(chance):
    at = Restarts(RestartPolicy(first_delay_seconds=1.0, jitter=0.5)).decide(0.0, chance).at
    assert at == 1.0 + 0.5 * min(max(chance, 0.0), 1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first_delay_seconds", -0.1),
        ("first_delay_seconds", math.nan),
        ("factor", 0.5),
        ("longest_delay_seconds", 0.01),
        ("longest_delay_seconds", math.inf),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("most_ends", 0),
        ("most_ends", 1_001),
        ("window_seconds", 0.0),
        ("steady_seconds", -1.0),
    ],
)
def test_a_policy_that_is_none(field, value):
    with pytest.raises(ConfigError, match=rf"restart\.{field}: expected from"):
        RestartPolicy(**{field: value})


@pytest.mark.parametrize("policy", [{"factor": 1.0}, {"first_delay_seconds": 0.0}])
def test_a_delay_that_never_grows_costs_no_more_after_millions_of_ends(policy):
    restarts = Restarts(RestartPolicy(jitter=0.0, **policy))
    restarts._in_a_row = 10**12
    first = policy.get("first_delay_seconds", 0.1)
    assert restarts.decide(0.0, 0.0) == Retry(first)

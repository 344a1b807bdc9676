"""A status turns after several verdicts, and a busy plugin is not a dead one."""

from __future__ import annotations

import pytest

from sandbox_host.health.hysteresis import (
    Hysteresis,
    HysteresisPolicy,
    StatusChange,
    Turn,
    is_busy,
)
from sandbox_host.health.verdict import Facts, HealthStatus, Verdict, verdict

GOOD, WARN, BAD = HealthStatus
LETTERS = {"g": GOOD, "w": WARN, "b": BAD}
SILENT = Facts(response_seconds=None, busy=True)


def of(status: HealthStatus) -> Verdict:
    return Verdict(status, "why", {})


def statuses(hysteresis: Hysteresis, letters: str) -> str:
    """Return the status after each verdict; "." is one on a plugin that is busy."""
    seen = ""
    for letter in letters:
        hysteresis.see(verdict(None, SILENT) if letter == "." else of(LETTERS[letter]))
        seen += next(known for known, status in LETTERS.items() if status is hysteresis.status)
    return seen


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("ggggg", "ggggg"),
        ("bgggg", "ggggg"),
        ("bbggg", "ggggg"),
        ("bbb", "ggb"),
        ("bgbgb", "ggggb"),
        ("bggbggb", "ggggggg"),
        ("www", "ggw"),
        ("wbw", "ggw"),
        ("bwwb", "ggww"),
        ("bwwbb", "ggwwb"),
        ("bbbg", "ggbb"),
        ("bbbgg", "ggbbg"),
        ("bbbgbgbgb", "ggbbbbbbb"),
        ("bbbgw", "ggbbw"),
        ("bbbww", "ggbbw"),
        ("bbbwwgg", "ggbbwwg"),
        ("bbbggb", "ggbbgg"),
        ("bbbggbb", "ggbbggg"),
        ("bbbggbbb", "ggbbgggb"),
    ],
)
def test_three_of_five_and_two_in_a_row(verdicts, expected):
    assert statuses(Hysteresis(), verdicts) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("..........", "gggggggggg"),
        ("bb....b", "ggggggb"),
        ("bbb.g.g", "ggbbbbg"),
        ("bbb..", "ggbbb"),
    ],
)
def test_a_busy_plugin_gets_neither_worse_nor_better_by_that(verdicts, expected):
    assert statuses(Hysteresis(), verdicts) == expected


def test_what_is_measured_of_a_busy_one_counts():
    one = Hysteresis()
    for _ in range(3):
        one.see(verdict(None, Facts(response_seconds=None, busy=True, memory_fraction=0.99)))
    assert one.status is BAD


def test_a_change_is_told_once():
    one = Hysteresis()
    told = [one.see(of(status)) for status in (BAD, BAD, BAD, BAD, GOOD, GOOD, GOOD)]
    assert [change for change in told if change] == [
        StatusChange(GOOD, BAD, "why"),
        StatusChange(BAD, GOOD, "why"),
    ]
    assert [change.turn for change in told if change] == [Turn.WORSE, Turn.BETTER]


def test_without_patience_it_is_the_last_verdict():
    assert statuses(Hysteresis(HysteresisPolicy(1, 1, 1)), "gbwgwb") == "gbwgwb"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ((0, 5, 2), "bad"),
        ((6, 5, 2), "bad"),
        ((3, 5, 0), "good"),
        ((3, 5, 6), "good"),
        ((1, 0, 1), "window"),
        ((1, 1_001, 1), "window"),
    ],
)
def test_a_policy_that_is_none(values, field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        HysteresisPolicy(*values)


@pytest.mark.parametrize(
    ("deadline", "moved", "waits", "busy"),
    [
        (11.0, 0.5, False, True),
        (11.0, 0.0, False, False),
        (11.0, 0.0, True, True),
        (10.0, 0.5, False, False),
        (9.0, 0.5, True, False),
        (None, 0.5, True, False),
    ],
)
def test_busy_is_who_works_within_the_deadline(deadline, moved, waits, busy):
    assert busy is is_busy(
        deadline=deadline, now=10.0, cpu_moved_seconds=moved, waits_for_host=waits
    )

"""docs/lifecycle.md is what the tables are, and its figures are the defaults."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from sandbox_host.health.alerts import AlertPolicy
from sandbox_host.health.hysteresis import HysteresisPolicy
from sandbox_host.supervision import lifecycle, rollout
from sandbox_host.supervision.picture import BLOCKS, mermaid, page
from sandbox_host.supervision.restart import RestartPolicy

PAGE = Path(__file__).parents[3] / "docs" / "lifecycle.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_what_is_generated_is_up_to_date():
    """If not: .venv/bin/python -m tests.support.lifecycle_page."""
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", TEXT)) == set(BLOCKS)
    assert page(TEXT) == TEXT


def test_an_edit_by_hand_is_undone():
    assert page(TEXT.replace("discovered --> verified: verify", "verified --> verified: x")) == TEXT
    with pytest.raises(KeyError):
        page("<!-- generated: unknown -->\n<!-- end of generated -->")


@pytest.mark.parametrize(
    ("table", "first", "ends"),
    [
        (lifecycle.TABLE, lifecycle.FIRST, ()),
        (rollout.TABLE, rollout.FIRST, rollout.ENDS),
    ],
    ids=["lifecycle", "rollout"],
)
def test_a_picture_has_every_arrow_and_no_other(table, first, ends):
    drawn = set()
    for line in mermaid(table, first, ends).splitlines():
        if arrow := re.fullmatch(r"    (\w+) --> (\w+): ([a-z, ]+)", line):
            drawn |= {(arrow[1], trigger, arrow[2]) for trigger in arrow[3].split(", ")}
    assert drawn == {
        (state.replace("-", "_"), trigger.replace("-", " "), after.replace("-", "_"))
        for state, row in table.items()
        for trigger, after in row.items()
    }


def test_the_figures_of_restarting():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", TEXT, re.MULTILINE)
    assert {name: float(value) for name, value in rows} == asdict(RestartPolicy())


def test_the_figures_in_the_text():
    policy, alerts = HysteresisPolicy(), AlertPolicy()
    assert (policy.bad, policy.window, policy.good) == (3, 5, 2)
    words = " ".join(TEXT.split())
    assert "*worse* when three of the last five" in words
    assert "*better* when two in a row" in words
    assert (alerts.pause_seconds, alerts.repeat_seconds, alerts.max_open) == (60, 3_600, 1_000)
    for told in ("at most once a minute", "again every hour", "At most 1,000 are open"):
        assert told in words

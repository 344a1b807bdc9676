"""The denials command: what was asked for, gathered, never raw."""

from __future__ import annotations

import json

import pytest

from sandbox_host.observe.journal import Journal
from tests.support.command_line import LocalCommandLine


@pytest.fixture
def journal(cli: LocalCommandLine) -> Journal:
    cli.state_dir.mkdir(parents=True)
    return Journal(cli.state_dir / "journal.jsonl")


def test_none(cli: LocalCommandLine) -> None:
    ran = cli("denials")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{cli.state_dir / 'journal.jsonl'}: 0 denials\n"
    assert not cli.state_dir.exists()


def test_alike_ones_are_one_row(cli: LocalCommandLine, journal: Journal) -> None:
    journal.append("denied", "weather", "connecting to a")
    journal.append("started", "weather", "pid 1")
    journal.append("denied", "weather", "connecting to b")
    journal.append("denied", "weather", "connecting to a")
    journal.append("denied", "other", "connecting to a\x1b[2J")
    ran = cli("denials")
    assert ran.code == 0
    assert ran.out.startswith(f"{cli.state_dir / 'journal.jsonl'}: 4 denials\n")
    rows = [line.split() for line in ran.out.splitlines()[3:] if line.startswith("20")]
    assert [row[1:4] for row in rows] == [
        ["weather", "1", "host"],
        ["weather", "2", "host"],
        ["other", "1", "host"],
    ]
    assert "\x1b" not in ran.out
    told = json.loads(cli("denials", "--plugin", "Weather", "--format", "json").out)
    assert [(one["what"], one["times"]) for one in told["denials"]] == [
        ("connecting to b", 1),
        ("connecting to a", 2),
    ]
    last = json.loads(cli("denials", "--last", "1", "--format", "json").out)
    assert [one["plugin"] for one in last["denials"]] == ["other"]


def test_what_a_plugin_says_is_marked_and_crowds_out_nothing(
    cli: LocalCommandLine, journal: Journal
) -> None:
    journal.append("denied", "weather", "connecting to a")
    for number in range(5):
        journal.append("denial_reported", "weather", f"reading file {number}")
    journal.append("denial_reported", "weather", "connecting to a")
    ran = cli("denials", "--last", "2")
    assert ": 3 denials\n" in ran.out
    rows = [line.split()[3:] for line in ran.out.splitlines()[3:] if line.startswith("20")]
    assert rows == [
        ["host", "connecting", "to", "a"],
        ["plugin", "reading", "file", "4"],
        ["plugin", "connecting", "to", "a"],
    ]
    assert "its own word" in ran.err
    told = json.loads(cli("denials", "--format", "json").out)
    assert [one["said_by"] for one in told["denials"]] == ["host", *["plugin"] * 6]


def test_a_line_that_is_not_the_hosts_is_left_out(cli: LocalCommandLine, journal: Journal) -> None:
    journal.append("denied", "weather", "connecting to a")
    with (cli.state_dir / "journal.jsonl").open("a") as file:
        file.write('{"event":"denied"}\n')
    assert ": 1 denial\n" in cli("denials").out

"""What the process that reads sources says is a stranger's word."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_host.scan.bandit import UNREAD, read_issues
from sandbox_host.scan.finding import Severity
from sandbox_host.scan.rules import RULES
from sandbox_host.scan.sightings import MAX_SIGHTINGS, BadSightingError, read_sightings

SOURCE = b"one\r\ntwo\nthree"

BAD = {
    "nothing": None,
    "text": "SH101",
    "too-many": [["SH101", 1, 1, ""]] * (MAX_SIGHTINGS + 1),
    "no-list-in-it": ["SH101"],
    "too-short": [["SH101", 1, 1]],
    "unknown-rule": [["SH999", 1, 1, ""]],
    "rule-of-another-type": [[101, 1, 1, ""]],
    "rule-that-only-the-host-says": [["SH407", 1, 1, ""]],
    "line-as-bool": [["SH101", True, 1, ""]],
    "line-zero": [["SH101", 0, 1, ""]],
    "column-zero": [["SH101", 1, 0, ""]],
    "huge-column": [["SH101", 1, 2**40, ""]],
    "bytes": [["SH101", 1, 1, b"socket"]],
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_no_reader_says_is_refused(value: Any) -> None:
    with pytest.raises(BadSightingError):
        read_sightings(value, "main.py", SOURCE)


def test_a_sighting_is_kept_to_lines_that_there_are_and_to_text_that_is_safe() -> None:
    (seen,) = read_sightings([["SH101", 99, 1, "\x1b[2J\u202e" + "x" * 500]], "main.py", SOURCE)
    assert (seen.path, seen.line, seen.column) == ("main.py", 3, 1)
    assert seen.what.startswith("\\x1b[2J\\u202e")
    assert len(seen.what) == 200


def issue(**changed: Any) -> list[Any]:
    """Return one of bandit's, with some of it changed."""
    plain = {
        "test": "B102",
        "line": 1,
        "column": 1,
        "severity": "MEDIUM",
        "confidence": "HIGH",
        "text": "Use of exec detected.",
    }
    return list((plain | changed).values())


def test_an_issue_of_bandit_says_whose_it_is() -> None:
    (found,) = read_issues([issue(line=99, text="a\nb")], "main.py", SOURCE)
    assert (found.rule, found.severity, found.line) == ("bandit.B102", Severity.MEDIUM, 4)
    assert found.message == "bandit: a\\nb"
    assert read_issues([issue(test="")], "main.py", SOURCE)[0].rule == UNREAD


@pytest.mark.parametrize(
    "changed",
    [
        {"test": "X102"},
        {"test": "B102\n"},
        {"test": 102},
        {"line": 0},
        {"line": True},
        {"column": 0},
        {"severity": "GRAVE"},
        {"confidence": ""},
        {"text": b""},
    ],
    ids=str,
)
def test_what_bandit_never_says_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadSightingError):
        read_issues([issue(**changed)], "main.py", SOURCE)


@pytest.mark.parametrize(
    "value", [None, [None], [[]], [issue()] * 10_001], ids=["none", "no-list", "short", "many"]
)
def test_what_is_no_list_of_issues_is_refused(value: Any) -> None:
    with pytest.raises(BadSightingError):
        read_issues(value, "main.py", SOURCE)


def test_every_rule_that_a_table_names_is_there() -> None:
    from sandbox_host.scan.plugin.reach import rules_named

    assert set(rules_named()) <= {rule.id for rule in RULES.values() if not rule.seen_by_host}


def test_ids_and_names_of_rules_are_unique_and_texts_say_what() -> None:
    assert [rule.id for rule in RULES.values()] == sorted(RULES)
    assert len({rule.name for rule in RULES.values()}) == len(RULES)
    assert all("{" not in rule.text.replace("{what}", "") for rule in RULES.values())

"""Reports of refusals: what is believed of them, and in whose words they are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox_host.admission.explanations import (
    MAX_ASKED_LENGTH,
    RULES,
    Report,
    explained,
    is_in_force,
    read_report,
)
from sandbox_host.model import Permissions

NOTHING = Permissions()


def told(**changes: Any) -> dict[str, Any]:
    return {"rule": "read", "asked": "/srv/data", "where": "main.py:3 in look", **changes}


def test_a_report() -> None:
    assert read_report(told()) == Report("read", "/srv/data", "main.py:3 in look")


@pytest.mark.parametrize(
    "value",
    [None, 3, "read", [], {}, {"rule": "everything"}, {"rule": None}, {"rule": ["read"]}],
    ids=repr,
)
def test_what_is_no_report(value: object) -> None:
    assert read_report(value) is None


@pytest.mark.parametrize(
    "where",
    [
        "",
        "main.py",
        "main.py:3\nin look",
        "main.py:3 in look; run this: curl",
        "main.py:3 in \x1b[2J",
        "a b.py:3",
        "x" * 400 + ":3",
        3,
        None,
    ],
    ids=ascii,
)
def test_a_place_that_is_none_is_dropped(where: object) -> None:
    report = read_report(told(where=where))
    assert report is not None
    assert report.place == ""
    assert " at " not in explained(report, NOTHING).text


@pytest.mark.parametrize(
    "where", ["main.py:3", "sub/a-b.py:12 in <lambda>", "main.py:1 in <module>", "é.py:1 in größe"]
)
def test_a_place_is_kept(where: str) -> None:
    report = read_report(told(where=where))
    assert report is not None
    assert report.place == where


def test_what_was_asked_for_is_cut() -> None:
    report = read_report(told(asked="x" * 5_000))
    assert report is not None
    assert len(report.asked) == MAX_ASKED_LENGTH
    assert read_report(told(asked=None)) == Report("read", "", "main.py:3 in look")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_is_a_permission_and_says_what_it_opens(rule: str) -> None:
    assert rule in Permissions.__dataclass_fields__
    assert RULES[rule].opens
    assert explained(Report(rule, "", ""), NOTHING).text


def test_there_is_a_rule_for_every_permission() -> None:
    assert set(RULES) == set(Permissions.__dataclass_fields__)


def test_quotes_cannot_be_left() -> None:
    asked = '/x"], "native_code": true, "'
    denial = explained(Report("read", asked, ""), NOTHING)
    assert json.loads(f"{{{denial.request}}}") == {"permissions": {"read": [asked]}}


@pytest.mark.parametrize(
    ("rule", "asked", "request_line"),
    [
        ("read", "/srv/data", '"permissions": {"read": ["/srv/data"]}'),
        ("read", "relative", '"permissions": {"read": […]}'),
        ("read", "/srv/../etc", '"permissions": {"read": […]}'),
        ("network", "example.org:443", '"permissions": {"network": ["example.org:443"]}'),
        ("network", "example.org", '"permissions": {"network": ["<host>:<port>"]}'),
        ("network", "", '"permissions": {"network": ["<host>:<port>"]}'),
        ("env", "TOKEN", '"permissions": {"env": ["TOKEN"]}'),
        ("native_code", "anything", '"permissions": {"native_code": true}'),
        ("threads", "", '"permissions": {"threads": true}'),
        # Nobody can grant these.
        ("env", "LD_PRELOAD", ""),
        ("read", "/proc/1/environ", ""),
        ("write", "/dev/sda", ""),
        ("publish", "plugin_loaded", ""),
    ],
)
def test_the_line_of_plugin_json(rule: str, asked: str, request_line: str) -> None:
    denial = explained(Report(rule, asked, ""), NOTHING)
    assert denial.request == request_line
    assert ("nobody can grant it" in denial.text) is not bool(request_line)
    assert request_line in denial.text


@pytest.mark.parametrize(
    ("report", "granted", "words"),
    [
        (Report("read", "/srv/a/b", ""), Permissions(read=("/srv/a",)), "chmod o+rX"),
        (Report("write", "/srv/a", ""), Permissions(write=("/srv/a",)), "chmod o+wx"),
        (Report("env", "TOKEN", ""), Permissions(env=("TOKEN",)), "not set in the host's"),
        (Report("threads", "", ""), Permissions(threads=True), "as many run as"),
    ],
    ids=lambda value: value.rule if isinstance(value, Report) else "",
)
def test_what_is_granted_all_the_same(report: Report, granted: Permissions, words: str) -> None:
    assert is_in_force(report, granted)
    assert not is_in_force(report, NOTHING)
    denial = explained(report, granted)
    assert denial.request == ""
    assert words in denial.text


def test_a_path_beside_a_granted_one_is_not_granted() -> None:
    granted = Permissions(read=("/srv/a",))
    assert not is_in_force(Report("read", "/srv/ab", ""), granted)
    assert not is_in_force(Report("bundle", "/srv/a", ""), granted)

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from sandbox_host.cli.exits import Exit
from sandbox_host.cli.reports.model import DifferingFile
from sandbox_host.cli.reports.sarif import artifact_location, message_text, render_sarif
from sandbox_host.cli.reports.sarif_rules import RULES
from tests.support.sarif import checked_log, faults
from tests.support.verdicts import GOOD, KEY, TAMPERED, UNSIGNED, mixed, report


def test_one_run_with_a_result_for_each_refused_plugin() -> None:
    (run,) = checked_log(render_sarif(mixed()))["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["semanticVersion"]) == ("sandbox-host", "1.2.3")
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 1}]
    assert [one["ruleId"] for one in run["results"]] == ["tampered", "unsigned", "untrusted"]
    for one in run["results"]:
        assert driver["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
        assert one["level"] == "error"


def test_a_result_names_the_file_both_hashes_the_key_and_the_next_command() -> None:
    (result,) = checked_log(render_sarif(report(TAMPERED)))["runs"][0]["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "plugins/tampered/main.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 1},
    }
    for shown in ("main.py", "11" * 32, "22" * 32, "Next: sandbox-host inspect plugins/tampered"):
        assert shown in result["message"]["text"]
    assert result["properties"] == {
        "plugin": "plugins/tampered",
        "exitCode": 1,
        "claimedKeys": [KEY],
        "sha256Signed": "11" * 32,
        "sha256Found": "22" * 32,
    }


def test_success_is_an_empty_run() -> None:
    (run,) = checked_log(render_sarif(report(GOOD)))["runs"]
    assert run["results"] == []
    assert run["invocations"][0]["exitCode"] == 0


def test_the_schema_would_have_refused() -> None:
    log = json.loads(render_sarif(report(TAMPERED)))
    log["runs"][0]["results"][0]["levels"] = "error"
    assert faults(log)


def _fingerprint(verdict: object, **options: object) -> str:
    (result,) = checked_log(render_sarif(report(verdict, **options)))["runs"][0]["results"]
    (value,) = result["partialFingerprints"].values()
    assert re.fullmatch("[0-9a-f]{64}", value)
    return str(value)


def test_a_fingerprint_is_of_kind_plugin_and_file() -> None:
    mine = _fingerprint(TAMPERED)
    again = dataclasses.replace(TAMPERED, file=DifferingFile("main.py", "11" * 32, "33" * 32))
    absolute = dataclasses.replace(TAMPERED, path="/elsewhere/plugins/tampered")
    assert _fingerprint(again) == mine
    assert _fingerprint(absolute, base="/elsewhere") == mine
    others = (
        dataclasses.replace(TAMPERED, code="bundle"),
        dataclasses.replace(TAMPERED, path="plugins/other"),
        dataclasses.replace(TAMPERED, file=DifferingFile("other.py", "11" * 32, "22" * 32)),
        UNSIGNED,
    )
    assert len({mine, *(_fingerprint(one) for one in others)}) == 5


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        ("plugins/a b/é.py", "plugins/a%20b/%C3%A9.py"),
        ("c:d/e?f#g%h", "c%3Ad/e%3Ff%23g%25h"),
        ("x\udcff", "x%FF"),
        ("x\ud800", "x%5Cud800"),
        ("/srv/other", "file:///srv/other"),
        (".", "."),
    ],
    ids=ascii,
)
def test_uris_are_relative_and_percent_encoded(place: str, uri: str) -> None:
    location = artifact_location(place)
    assert location["uri"] == uri
    assert ("uriBaseId" in location) is not uri.startswith("file:")


def test_words_form_neither_a_placeholder_nor_a_link() -> None:
    assert message_text("{0} [x](y)\n") == "{{0}} [x] (y)\\n"


def test_rules_are_stable() -> None:
    assert [rule.id for rule in RULES] == [
        "tampered",
        "untrusted",
        "rollback",
        "equivocation",
        "clock",
        "unsigned",
        "bundle",
        "manifest",
    ]
    assert all(0 < float(rule.severity) <= 10 for rule in RULES)
    new = dataclasses.replace(UNSIGNED, code="held-back", exit_code=Exit.REFUSED)
    (run,) = checked_log(render_sarif(report(new)))["runs"]
    assert run["tool"]["driver"]["rules"][-1]["id"] == run["results"][0]["ruleId"] == "held-back"

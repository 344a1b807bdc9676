"""Whatever strangers write into names and reasons, each format stays what it is."""

from __future__ import annotations

import json
import re
import string
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

from hypothesis import given, settings

from sandbox_host.cli.reports import FORMATS, Report
from sandbox_host.cli.reports.github import render_github
from sandbox_host.cli.reports.json_ import render_json
from sandbox_host.cli.reports.junit import render_junit
from sandbox_host.cli.reports.sarif import artifact_location, render_sarif
from sandbox_host.cli.reports.text import render_text, verdict_lines
from tests.support.sarif import checked_log
from tests.support.verdicts import reports, words
from tests.support.workflow_commands import workflow_commands

# Control characters, line ends but ours, halves of surrogate pairs, directions of writing.
_ACTED_ON = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_URI = set(string.ascii_letters + string.digits + "-._~%/")


@given(reports)
def test_every_format_is_whole_lines_that_nothing_can_act_on(report: Report) -> None:
    for render in FORMATS.values():
        text = render(report)
        assert text.endswith("\n")
        assert not _ACTED_ON.search(text)


@given(reports)
def test_text_has_a_line_for_each_thing_said(report: Report) -> None:
    said = sum(len(verdict_lines(verdict)) for verdict in report.verdicts)
    counted = 2 if len(report.verdicts) > 1 else 0
    assert len(render_text(report).splitlines()) == said + counted


@given(reports)
def test_json_has_every_verdict(report: Report) -> None:
    text = render_json(report)
    assert text.isascii()
    told = json.loads(text)
    assert [one["verdict"] for one in told["verdicts"]] == [v.code for v in report.verdicts]
    assert told["exit_code"] == report.exit_code


@settings(max_examples=60)  # the schema is large
@given(reports)
def test_sarif_is_valid_and_has_every_refusal(report: Report) -> None:
    text = render_sarif(report)
    assert text.isascii()
    (run,) = checked_log(text)["runs"]
    assert [one["ruleId"] for one in run["results"]] == [v.code for v in report.refused]
    for one in run["results"]:
        message = one["message"]["text"]
        assert not {"{", "}"}.intersection(message.replace("{{", "").replace("}}", ""))
        assert "](" not in message


@given(words)
def test_a_uri_is_no_more_than_a_path(place: str) -> None:
    location = artifact_location(place)
    uri = location["uri"].removeprefix("file://")
    assert set(uri) <= _URI
    assert b"\0" in unquote_to_bytes(uri) or unquote_to_bytes(uri).count(b"/") == place.count("/")


@given(reports)
def test_github_sees_our_annotations_and_no_other_command(report: Report) -> None:
    found = workflow_commands(render_github(report))
    assert [one.name for one in found] == ["error"] * len(report.refused)
    for one, verdict in zip(found, report.refused, strict=True):
        assert set(one.properties) == {"file", "line", "title"}
        assert one.properties["title"].endswith(f"not verified ({verdict.code})")


@given(reports)
def test_junit_is_xml_with_our_elements_only(report: Report) -> None:
    root = ET.fromstring(render_junit(report))
    tags = [element.tag for element in root.iter()]
    assert tags.count("testcase") == len(report.verdicts)
    assert tags.count("failure") == len(report.refused)
    assert len(tags) == 2 + len(report.verdicts) + len(report.refused)

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

import pytest

from sandbox_host.cli.reports.junit import render_junit
from tests.support.verdicts import FOREIGN, GOOD, HOSTILE, mixed, report


def test_a_test_case_for_each_plugin() -> None:
    root = ET.fromstring(render_junit(mixed()))
    assert root.tag == "testsuites"
    (suite,) = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures")) == ("4", "3")
    assert [case.get("name") for case in suite] == [
        f"plugins/{name}" for name in ("good", "tampered", "unsigned", "foreign")
    ]
    good, tampered, *_ = suite
    assert list(good) == []
    assert tampered.get("file") == "plugins/tampered/main.py"
    (failure,) = tampered
    assert failure.get("type") == "tampered"
    assert "main.py" in str(failure.get("message"))
    for shown in ("11" * 32, "22" * 32, "sandbox-host inspect plugins/tampered"):
        assert shown in str(failure.text)


def test_success_has_no_failure() -> None:
    root = ET.fromstring(render_junit(report(GOOD)))
    assert root.get("failures") == "0"
    assert root.findall(".//failure") == []


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_name_forges_an_element(text: str) -> None:
    hostile = dataclasses.replace(FOREIGN, path=text, reason=text, code=text, command=text)
    root = ET.fromstring(render_junit(report(hostile)))
    assert [element.tag for element in root.iter()] == [
        "testsuites",
        "testsuite",
        "testcase",
        "failure",
    ]

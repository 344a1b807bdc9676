from __future__ import annotations

import dataclasses

import pytest

from sandbox_host.cli.reports.github import render_github
from sandbox_host.cli.reports.model import DifferingFile
from tests.support.verdicts import FOREIGN, GOOD, HOSTILE, KEY, STRANGER, TAMPERED, mixed, report
from tests.support.workflow_commands import workflow_commands


def test_an_annotation_for_each_refused_plugin_and_a_count() -> None:
    lines = render_github(mixed()).splitlines()
    assert [line.startswith("::error ") for line in lines] == [True, True, True, False]
    assert lines[-1] == mixed().summary
    assert render_github(report(GOOD)) == "1 plugin: 1 verified\n"


def test_it_stands_at_the_file_and_names_hashes_key_and_the_next_command() -> None:
    (one,) = workflow_commands(render_github(report(TAMPERED)))
    assert one.name == "error"
    assert one.properties == {
        "file": "plugins/tampered/main.py",
        "line": "1",
        "title": "plugins/tampered: not verified (tampered)",
    }
    assert one.message.splitlines() == [
        TAMPERED.reason,
        "File: main.py",
        f"SHA-256 signed: {'11' * 32}",
        f"SHA-256 found: {'22' * 32}",
        f"Claims key: {KEY}, weather team (publisher)",
        TAMPERED.remedy,
        "Next: sandbox-host inspect plugins/tampered",
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_name_forges_a_command(text: str) -> None:
    hostile = dataclasses.replace(
        FOREIGN, path=text, reason=text, remedy=text, file=DifferingFile(text, text, text)
    )
    (one,) = workflow_commands(render_github(report(hostile)))
    assert (one.name, set(one.properties)) == ("error", {"file", "line", "title"})
    assert f"Claims key: {STRANGER}" in one.message

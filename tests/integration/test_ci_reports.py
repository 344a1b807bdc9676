"""One command over a tree with a good, a tampered, an unsigned and a foreign plugin."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from tests.support.ci_services import KEY, STRANGER, make_store, make_tree
from tests.support.command_line import CommandLine
from tests.support.sarif import checked_log
from tests.support.workflow_commands import workflow_commands

SIGNED, FOUND = (hashlib.sha256(source).hexdigest() for source in (b"x = 1\n", b"x = 2\n"))


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    found = CommandLine(tmp_path)
    make_tree(tmp_path)
    make_store(tmp_path).parent.rename(tmp_path / "trust-store")
    found.config_dir.parent.mkdir()
    (tmp_path / "trust-store").rename(found.config_dir)
    return found


def test_sarif_to_a_file_and_annotations_to_the_log(command_line: CommandLine) -> None:
    ran = command_line("verify", "plugins/", "--format", "sarif=out.sarif", "--format", "github")
    assert (ran.code, ran.err) == (1, "")
    home = command_line.home
    log = checked_log((home / "out.sarif").read_text())
    assert stat.S_IMODE((home / "out.sarif").stat().st_mode) == 0o644
    results = log["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["untrusted", "tampered", "unsigned"]
    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results]
    assert uris == [
        "plugins/foreign/plugin.json",
        "plugins/tampered/main.py",
        "plugins/unsigned/plugin.json",
    ]
    foreign, tampered, unsigned = workflow_commands(ran.out)
    assert STRANGER.key_id in foreign.message
    for shown in ("main.py", SIGNED, FOUND, KEY.key_id, "weather team"):
        assert shown in tampered.message
    assert tampered.message.endswith("\nNext: sandbox-host inspect plugins/tampered")
    assert unsigned.message.endswith("\nNext: sandbox-host sign plugins/unsigned")
    assert ran.out.endswith("\n4 plugins: 1 verified, 1 tampered, 1 unsigned, 1 untrusted\n")


def test_text_names_the_first_differing_file_with_both_hashes_and_the_next_command(
    command_line: CommandLine,
) -> None:
    ran = command_line("verify", "plugins/")
    assert (ran.code, ran.err) == (1, "")
    lines = ran.out.splitlines()
    start = lines.index("plugins/tampered: NOT VERIFIED (tampered)")
    for line in (
        "  file        main.py",
        f"  signed      {SIGNED}",
        f"  found       {FOUND}",
        f"  claims key  {KEY.key_id}",
        "  which is    weather team (publisher)",
        "  for         good, tampered",
        "  command     sandbox-host inspect plugins/tampered",
    ):
        assert line in lines[start:]


@pytest.mark.parametrize("kind", ["text", "json", "sarif", "github", "junit"])
def test_standard_output_may_be_closed_early(command_line: CommandLine, kind: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with command_line.start("verify", "plugins", "--format", kind, stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate()
    assert process.returncode == 141
    assert "Traceback" not in err

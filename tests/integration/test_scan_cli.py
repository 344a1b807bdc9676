"""`scan` as its users meet it: what it prints, its exit codes, and that it leaves nothing."""

from __future__ import annotations

import json
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from sandbox_host.bundle.source import read_bundle
from tests.support.archives import packed
from tests.support.bundles import plugin_files, write_files
from tests.support.command_line import LocalCommandLine, snapshot
from tests.support.sarif import checked_log

pytestmark = pytest.mark.needs

SUSPICIOUS = "import os\nos.system('id')\nx = getattr(os, y)\nz = getattr(x, y)  # nosec\n"


EXPECTED = """\
{root}/odd: odd 1.0.0: 2 high, 0 medium, 1 low
{root}/odd/main.py:2:1: high [SH112 process-use, confidence high] uses os.system, which starts \
processes; plugin.json does not ask for that (permissions.subprocess)
{root}/odd/main.py:3:5: high [SH221 computed-name-in-module, confidence medium] computes which \
name to take: getattr of os
{root}/odd/main.py:4:5: low [SH220 computed-attribute, confidence low] computes an attribute's \
name: getattr
{root}/plain: plain 1.0.0: no findings

2 plugins: 2 high, 0 medium, 1 low
"""


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


@pytest.fixture
def plugins(cli: LocalCommandLine) -> Path:
    """A directory of a suspicious plugin and a harmless one."""
    root = cli.home / "my plugins"
    write_files(root / "odd", plugin_files({"main.py": SUSPICIOUS}, name="odd"))
    write_files(root / "plain", plugin_files({"main.py": "x = 1\n"}, name="plain"))
    return root


def test_findings_are_told_by_file_and_line_and_change_no_exit_code(
    cli: LocalCommandLine, plugins: Path
) -> None:
    before = snapshot(cli.home)
    ran = cli("scan", plugins)
    assert snapshot(cli.home) == before
    assert ran.code == 0
    assert ran.out == EXPECTED.format(root=plugins)
    assert "does not make a plugin harmless" in ran.err


def test_what_was_asked_for_is_no_finding(cli: LocalCommandLine) -> None:
    files = plugin_files({"main.py": SUSPICIOUS}, permissions={"subprocess": True})
    ran = cli("scan", write_files(cli.home / "sample", files))
    assert (ran.code, "SH112" in ran.out, "SH221" in ran.out) == (0, False, True)


@pytest.mark.parametrize(
    ("name", "least", "code"),
    [("odd", "high", 1), ("odd", "low", 1), ("plain", "low", 0)],
    ids=str,
)
def test_fail_on_is_what_changes_the_exit_code(
    cli: LocalCommandLine, plugins: Path, name: str, least: str, code: int
) -> None:
    assert cli("scan", plugins / name, "--fail-on", least).code == code


def test_every_format_tells_the_same(cli: LocalCommandLine, plugins: Path) -> None:
    sarif = cli.home / "scan.sarif"
    ran = cli("scan", plugins, "--format", f"sarif={sarif}", "--format", "json")
    assert ran.code == 0
    told = json.loads(ran.out)
    found = [(one["rule"], one["line"]) for one in told["plugins"][0]["findings"]]
    assert found == [("SH112", 2), ("SH221", 3), ("SH220", 4)]
    assert told["plugins"][0]["counts"] == {"high": 2, "medium": 0, "low": 1}
    (run,) = checked_log(sarif.read_text())["runs"]
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [
        ("SH112", "error"),
        ("SH221", "error"),
        ("SH220", "note"),
    ]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 2, "startColumn": 1}
    assert place["artifactLocation"]["uri"].endswith("my%20plugins/odd/main.py")
    rules = run["tool"]["driver"]["rules"]
    assert [rules[one["ruleIndex"]]["id"] for one in run["results"]] == found_rules(found)
    assert len({one["partialFingerprints"]["sandboxHostFinding/v1"] for one in run["results"]}) == 3


def found_rules(found: list[tuple[str, int]]) -> list[str]:
    """Return the rules alone."""
    return [rule for rule, _ in found]


def test_an_archive_is_scanned_as_it_is(cli: LocalCommandLine, plugins: Path) -> None:
    archive = cli.home / "odd.plugin"
    archive.write_bytes(packed(read_bundle(plugins / "odd").files))
    ran = cli("scan", archive)
    assert (ran.code, f"{archive}(main.py):2:1: high [SH112" in ran.out) == (0, True)


def test_what_cannot_be_scanned_is_told_and_the_others_are_scanned(
    cli: LocalCommandLine, plugins: Path
) -> None:
    write_files(plugins / "broken", {"plugin.json": b"{\x1b[2J"})
    sarif = cli.home / "scan.sarif"
    ran = cli("scan", plugins, "--format", "text", "--format", f"sarif={sarif}")
    assert ran.code == 1
    assert f"{plugins}/broken: NOT SCANNED" in ran.out
    assert "SH112" in ran.out
    assert "\x1b" not in ran.out + ran.err
    (run,) = checked_log(sarif.read_text())["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    empty = cli.home / "empty"
    empty.mkdir()
    assert cli("scan", empty).code == 1


def test_a_hostile_source_forges_no_line(cli: LocalCommandLine) -> None:
    source = "import os\nos.environ['A\\n/forged:1:1: high\\x1b[2J\\u202e']\n"
    ran = cli("scan", write_files(cli.home / "sample", plugin_files({"main.py": source})))
    assert len(ran.out.splitlines()) == 2
    assert "A\\n/forged:1:1: high\\x1b[2J\\u202e" in ran.out


WRONG = {
    "nothing": (),
    "no-such-path": ("missing",),
    "no-such-format": ("my plugins", "--format", "html"),
    "no-such-severity": ("my plugins", "--fail-on", "grave"),
    "two-on-one-stream": ("my plugins", "--format", "text", "--format", "json"),
    "report-in-a-plugin": ("my plugins", "--format", "json=my plugins/odd/scan.json"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_a_wrong_use_is_told_with_exit_code_2(
    cli: LocalCommandLine,
    plugins: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(cli.home)
    assert cli("scan", *arguments).code == 2


def test_bandit_that_is_not_installed_is_refused_with_how_to_install_it(
    cli: LocalCommandLine, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    ran = cli("scan", plugins, "--bandit")
    assert (ran.code, ran.out) == (6, "")
    assert 'pip install "sandbox-host[bandit]"' in ran.err


def test_bandit_looks_in_the_sandbox_and_its_findings_say_so(
    cli: LocalCommandLine, plugins: Path
) -> None:
    pytest.importorskip("bandit")
    source = SUSPICIOUS + "import pickle  # nosec\n"
    write_files(plugins / "odd", {"main.py": source.encode(), "deep.py": b"-" * 50_000 + b"1"})
    before = snapshot(cli.home)
    ran = cli("scan", plugins / "odd", "--bandit", "--format", "json")
    assert snapshot(cli.home) == before
    assert ran.code == 0
    (plugin,) = json.loads(ran.out)["plugins"]
    found = {(one["rule"], one["path"], one["line"]) for one in plugin["findings"]}
    assert {("bandit.B403", "main.py", 5), ("bandit.B605", "main.py", 2)} <= found
    assert ("SH112", "main.py", 2) in found
    assert ("bandit.B000", "deep.py", 1) in found

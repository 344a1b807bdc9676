"""The journal command: verify, show, follow, and a new one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.observe.journal import Journal
from sandbox_host.observe.journal_head import head_path
from tests.support.command_line import CommandLine, LocalCommandLine


@pytest.fixture
def path(cli: LocalCommandLine) -> Path:
    path = cli.state_dir / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("host_started", "", "pid 1")
        journal.append("refused", "", "plugins/x\x1b[2J: [tampered]")
        journal.append("admitted", "weather_model", "key ab")
    return path


def changed(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"tampered", b"innocent"))


def test_a_whole_one(cli: LocalCommandLine, path: Path) -> None:
    ran = cli("journal", "verify")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{path}: as hosts wrote it, 3 lines in 1 file\n")
    document = json.loads(cli("journal", "verify", "--format", "json").out)
    assert document["whole"] is True
    assert document["head"] is True
    assert document["last"]["seq"] == 3
    assert document["last"]["hash"] in ran.out


def test_one_that_was_changed_is_told_with_its_line(cli: LocalCommandLine, path: Path) -> None:
    changed(path)
    ran = cli("journal", "verify")
    assert ran.code == 1
    assert "line 2: its hash does not match its contents" in ran.out
    assert "sandbox-host journal new" in ran.out
    ran = cli("journal", "verify", "--format", "json")
    assert ran.code == 1
    assert json.loads(ran.out)["fault"] == {
        "file": "journal.jsonl",
        "line": 2,
        "reason": "its hash does not match its contents",
    }


def test_one_that_was_cut_off_is_told(cli: LocalCommandLine, path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    ran = cli("journal", "verify")
    assert ran.code == 1
    assert "line 3: it is missing" in ran.out


def test_without_its_head(cli: LocalCommandLine, path: Path) -> None:
    head_path(path).unlink()
    ran = cli("journal", "verify")
    assert ran.code == 0
    assert "its head is missing" in ran.err


@pytest.mark.parametrize("command", ["verify", "follow"])
def test_one_that_cannot_be_read(cli: LocalCommandLine, command: str) -> None:
    cli.state_dir.mkdir(parents=True)
    (cli.state_dir / "journal.jsonl").symlink_to("elsewhere")
    ran = cli("journal", command)
    assert ran.code == 6
    assert "cannot be read" in ran.err


def test_none_at_all(cli: LocalCommandLine) -> None:
    assert cli("journal", "verify").code == 6
    ran = cli("journal", "show")
    assert (ran.code, ran.err) == (0, "")
    assert "0 entries" in ran.out
    assert not cli.state_dir.exists()


def test_show(cli: LocalCommandLine, path: Path) -> None:
    ran = cli("journal", "show")
    assert ran.code == 0
    assert ran.out.startswith(f"{path}: 3 entries\n")
    assert "\x1b" not in ran.out
    ran = cli("journal", "show", "--last", "1")
    assert ": 1 entry\n" in ran.out
    assert "weather_model" in ran.out
    assert "refused" not in ran.out


def test_show_for_scripts(cli: LocalCommandLine, path: Path) -> None:
    def events(*options: str) -> list[str]:
        document = json.loads(cli("journal", "show", "--format", "json", *options).out)
        assert document["schema_version"] == 1
        return [one["event"] for one in document["entries"]]

    assert events() == ["host_started", "refused", "admitted"]
    assert events("--plugin", "WeatherModel") == ["admitted"]
    assert events("--event", "refused") == ["refused"]
    assert events("--event", "refused", "--plugin", "weather_model") == []


def test_a_new_one_needs_a_reason_and_a_word(cli: LocalCommandLine, path: Path) -> None:
    changed(path)
    before = path.read_bytes()
    assert cli("journal", "new").code == 2
    assert cli("journal", "new", "--reason", " ", "--yes").code == 2
    ran = cli("journal", "new", "--reason", "r")
    assert ran.code == 2
    assert "Give --yes." in ran.err
    assert path.read_bytes() == before


def test_a_new_one(cli: LocalCommandLine, path: Path) -> None:
    changed(path)
    before = path.read_bytes()
    ran = cli("journal", "new", "--reason", "restored", "--yes")
    assert ran.code == 0, ran.err
    assert "changed: line 2" in ran.out
    (aside,) = cli.state_dir.glob("journal-aside-*")
    assert (aside / "journal.jsonl").read_bytes() == before
    assert cli("journal", "verify").code == 0
    document = json.loads(cli("journal", "show", "--format", "json").out)
    assert [one["event"] for one in document["entries"]] == ["journal-new"]
    assert "restored" in document["entries"][0]["detail"]


def test_a_new_one_for_a_head_that_is_none(cli: LocalCommandLine, path: Path) -> None:
    head_path(path).write_bytes(b"x")
    assert cli("journal", "verify").code == 6
    assert cli("journal", "new", "--reason", "r", "--yes").code == 0
    assert cli("journal", "verify").code == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Who is started in the background may have been told to ignore the key."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_follow(tmp_path: Path) -> None:
    """In a process of its own, because it goes on until it is told."""
    cli = CommandLine(tmp_path)
    with Journal(cli.state_dir / "journal.jsonl") as journal:
        for number in range(3):
            journal.append("admitted", "weather", f"old {number}")
        arguments = ("journal", "follow", "--last", "2", "--plugin", "weather", "--format", "json")
        with cli.start(*arguments) as process:
            try:
                assert process.stdout is not None
                told = [json.loads(process.stdout.readline())["detail"] for _ in range(2)]
                assert told == ["old 1", "old 2"]
                journal.append("admitted", "other", "no")
                journal.append("admitted", "weather", "new")
                entry = json.loads(process.stdout.readline())
                assert (entry["detail"], entry["schema_version"]) == ("new", 1)
                os.kill(process.pid, signal.SIGINT)
                assert process.wait(20) == 130
            finally:
                process.kill()

"""`data` on what plugins left: told so that it acts on no terminal, and removed if meant."""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.model import Limits
from sandbox_host.observe import verify_journal
from sandbox_host.runtime import data_locks
from sandbox_host.runtime.data_locks import DataLocks
from sandbox_host.runtime.workspace import remove_tree
from tests.support.bundles import make_key, signed_plugin, trust_store
from tests.support.command_line import LocalCommandLine
from tests.support.hostile_tree import fill

SOURCE = r"""
import os
from plugin_sdk import context, operation

@operation
def mess():
    os.chdir(context().data_dir)
    for name in (b"\x1b[2J", b"new\nline", b"\xff"):
        open(name, "wb").close()
    for _ in range(1_000):
        os.mkdir("d")
        os.chdir("d")
    return True
"""


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalCommandLine]:
    monkeypatch.setattr(data_locks, "PATIENCE_SECONDS", 0.1)
    made = LocalCommandLine(tmp_path, capsys, monkeypatch)
    yield made
    remove_tree(made.state_dir / "data")


@pytest.fixture
def data(cli: LocalCommandLine) -> Path:
    """Two data directories: of ``sample``, with a load and limits, and of ``other``."""
    for name in ("", "data", "data/sample", "data/other", "locks", "logs", "run"):
        (cli.state_dir / name).mkdir(mode=0o700, parents=True)
    place = cli.state_dir / "data"
    (place / "sample" / "file").write_bytes(os.urandom(300_000))
    locks = DataLocks(cli.state_dir / "locks")
    locks.take("sample", Limits(data_bytes=1_000_000, data_files=2))
    locks.give_back("sample")
    return place


class Terminal(io.StringIO):
    """Standard input on which somebody types."""

    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(text))


# -- list ----------------------------------------------------------------------------------------


def test_list_where_there_is_nothing(cli: LocalCommandLine) -> None:
    ran = cli("data", "list")
    assert (ran.code, ran.out, ran.err) == (0, f"{cli.state_dir}: 0 data directories, 0 B\n", "")
    assert not cli.state_dir.exists()


def test_list(cli: LocalCommandLine, data: Path) -> None:
    ran = cli("data", "list")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0][1:4] == ["2", "data", "directories,"]
    (other,) = (line for line in lines if line[0] == "other")
    (sample,) = (line for line in lines if line[0] == "sample")
    assert other[1:] == ["0", "B", "0", "-", "-", "-"]
    assert sample[2:5] == ["KiB", "1", "50%"]
    assert sample[-2:] == ["UTC", "-"]


def test_list_for_scripts(cli: LocalCommandLine, data: Path) -> None:
    locks = DataLocks(cli.state_dir / "locks")
    locks.take("other")
    (data / "third").symlink_to("/etc")
    (data / "\x1b[2J\n").touch()
    (data / ".removed-file").touch()
    ran = cli("data", "list", "--format", "json")
    locks.give_back("other")
    assert ran.code == 0
    told = json.loads(ran.out)
    other, sample, third = told["directories"]
    assert (other["plugin"], other["loaded"], other["process"]) == ("other", True, os.getpid())
    assert (sample["files"], sample["complete"], sample["limit_files"]) == (1, True, 2)
    assert 300_000 <= sample["bytes"] < 400_000
    assert sample["path"] == str(data / "sample")
    assert sample["last_used"].endswith("Z")
    assert (sample["loaded"], sample["process"], sample["fault"]) == (False, None, "")
    assert "link" in third["fault"]
    assert told["foreign"] == ["\\x1b[2J\\n"]
    assert told["left"] == [{"path": ".removed-file", "reason": "Not a directory"}]


def test_list_tells_what_is_odd_and_nothing_acts_on_the_terminal(
    cli: LocalCommandLine, data: Path
) -> None:
    (data / "third").symlink_to("/etc")
    (data / "\x1b[2J\n").touch()
    ran = cli("data", "list")
    assert ran.code == 0
    assert f"note: {data / 'third'} cannot be measured: a link stands there" in ran.err
    assert "\\x1b[2J\\n is not of any plugin" in ran.err
    assert "\x1b" not in ran.out + ran.err


def test_list_of_a_state_directory_that_others_may_write(cli: LocalCommandLine, data: Path) -> None:
    cli.state_dir.chmod(0o777)
    for command in (("list",), ("remove", "sample", "--yes")):
        ran = cli("data", *command)
        assert (ran.code, ran.out) == (6, "")
        assert "chmod go-w" in ran.err
    assert (data / "sample").exists()


# -- remove --------------------------------------------------------------------------------------


def test_remove_whatever_is_there(cli: LocalCommandLine, data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    names = fill(data / "other", outside)
    ran = cli("data", "remove", "other", "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert f" in {names} names, in {data / 'other'}\n" in ran.out
    assert ran.out.endswith(f"other: removed, {names + 1} names\n")
    assert os.listdir(data) == ["sample"]
    assert (outside / "precious").exists()
    journal = cli.state_dir / "journal.jsonl"
    assert '"event":"data_removal","plugin":"other"' in journal.read_text()
    assert verify_journal(journal) is None


@pytest.mark.parametrize(
    ("typed", "code", "kept"),
    [("y\n", 0, []), ("n\n", 1, ["other", "sample"]), ("\n", 1, ["other", "sample"])],
    ids=["yes", "no", "neither"],
)
def test_remove_asks(
    cli: LocalCommandLine,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
    kept: list[str],
) -> None:
    answer(monkeypatch, typed)
    ran = cli("data", "remove", "Sample", "other")
    assert ran.code == code
    assert "KiB in 1 name, in" in ran.out
    assert "Remove them for good? [y/N]" in ran.err
    assert ("nothing was removed" in ran.err) is bool(kept)
    assert sorted(os.listdir(data)) == kept


def test_remove_does_not_do_it_unasked(
    cli: LocalCommandLine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ran = cli("data", "remove", "sample")
    assert ran.code == 2
    assert "Give --yes." in ran.err
    assert (data / "sample").exists()


@pytest.mark.parametrize(
    ("names", "code", "why"),
    [
        (("sample", "../other"), 2, "is no plugin's name"),
        (("/etc",), 2, "is no plugin's name"),
        (("\x1b[2J\n",), 2, "is no plugin's name"),
        (("sample", "nosuch"), 1, "There is no data directory of nosuch"),
        ((), 2, "Missing argument"),
    ],
    ids=["climbing", "absolute", "odd", "missing", "none"],
)
def test_names_are_checked_before_anything_is_removed(
    cli: LocalCommandLine, data: Path, names: tuple[str, ...], code: int, why: str
) -> None:
    ran = cli("data", "remove", "--yes", *names)
    assert (ran.code, ran.out) == (code, "")
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.err
    assert sorted(os.listdir(data)) == ["other", "sample"]


def test_one_that_is_in_use_does_not_save_the_others(cli: LocalCommandLine, data: Path) -> None:
    locks = DataLocks(cli.state_dir / "locks")
    locks.take("other")
    ran = cli("data", "remove", "--yes", "other", "sample")
    locks.give_back("other")
    assert ran.code == 1
    assert "The data directory of other is in use" in ran.err
    assert os.listdir(data) == ["other"]


def test_link_is_refused(cli: LocalCommandLine, data: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (data / "third").symlink_to(tmp_path / "precious")
    ran = cli("data", "remove", "--yes", "third")
    assert ran.code == 6
    assert "a link stands there, which is not followed" in ran.err
    assert (data / "third").is_symlink()
    assert (tmp_path / "precious").exists()


def test_what_is_left_is_told_and_swept_by_the_next_command(
    cli: LocalCommandLine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "other" / "kept\x1b").touch()
    real = os.unlink

    def unlink(name: str, **options: int) -> None:
        if name.startswith("kept"):
            raise PermissionError(1, os.strerror(1))
        real(name, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        ran = cli("data", "remove", "--yes", "other")
    assert ran.code == 1
    assert "not all of what was in it" in ran.err
    assert "/kept\\x1b could not be removed: Operation not permitted\n" in ran.err
    assert len(os.listdir(data)) == 2
    ran = cli("data", "list")
    assert (ran.code, ran.err) == (0, "")
    assert os.listdir(data) == ["sample"]


@pytest.mark.needs("landlock", "seccomp")
def test_of_a_real_plugin(cli: LocalCommandLine, tmp_path: Path) -> None:
    trust_store(tmp_path, make_key()).rename(tmp_path / "trust.toml")
    signed_plugin(tmp_path / "sample", make_key(), {"main.py": SOURCE})
    assert cli("call", "sample", "mess", "--trust-store", "trust.toml").code == 0
    ran = cli("data", "list", "--format", "json")
    (sample,) = json.loads(ran.out)["directories"]
    assert (sample["files"], sample["limit_files"]) == (1_003, Limits().data_files)
    assert sample["loaded"] is False
    assert cli("data", "remove", "sample", "--yes").code == 0
    assert os.listdir(cli.state_dir / "data") == []
    with (cli.state_dir / "locks" / "sample").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""The file of durable events: made whole, refused where it is not right, never replaced."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_host.broker.store_file import STORE_NAME, StoreLock
from sandbox_host.errors import EventStoreError, EventStoreInUseError
from tests.support.event_stores import all_of, shop


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one event that waits."""
    with shop(tmp_path) as opened:
        opened.read()
        opened.publish("kept")
    return tmp_path / STORE_NAME


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def overwrite(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 600)


def be_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no database\n" * 1_000),
    "header": lambda path: overwrite(path, 0),
    "pages": lambda path: overwrite(path, 4_096),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "another program's": lambda path: change(path, "PRAGMA application_id=1"),
    "another format": lambda path: change(path, "PRAGMA user_version=2"),
    "another table": lambda path: change(path, "CREATE TABLE more (x)"),
    "a trigger": lambda path: change(
        path, "CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM waiting; END"
    ),
    "no counter": lambda path: change(path, "DELETE FROM counter"),
    "patterns": lambda path: change(path, "UPDATE subscription SET patterns = '[\"é\"]'"),
    "no patterns": lambda path: change(path, "UPDATE subscription SET patterns = '7'"),
    "a link": be_a_link,
    "a second name": lambda path: os.link(path, path.with_name("other")),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "readable by others": lambda path: path.chmod(0o640),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_not_as_it_should_be(path: Path, damage: Callable[[Path], object]) -> None:
    damage(path)
    before = path.lstat()
    for _ in range(2):  # it refuses again: nothing was made in its place
        with pytest.raises(
            EventStoreError, match=r"events\.sqlite3 cannot be used: .+\."
        ) as caught:
            shop(path.parent).__enter__()
        assert "put back a backup" in caught.value.remedy
    after = path.lstat()
    assert (after.st_ino, after.st_size, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mode,
    )


def test_a_log_without_its_store(path: Path) -> None:
    path.with_name(f"{STORE_NAME}-wal").write_bytes(b"x")
    path.unlink()
    with pytest.raises(EventStoreError, match="it is missing, and"):
        shop(path.parent).__enter__()
    assert not path.exists()


def test_left_by_a_host_that_was_killed_while_it_made_one(tmp_path: Path) -> None:
    draft = tmp_path / f".{STORE_NAME}.new"
    draft.write_bytes(b"half")
    with shop(tmp_path) as opened:
        opened.read()
    assert not draft.exists()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with shop(tmp_path) as opened:
            opened.read()
            modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert modes == {0o600}


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    """FULL: fsync(2) of the log at each commit (sqlite.org/pragma.html#pragma_synchronous)."""
    with shop(tmp_path) as opened:
        told = [
            opened.store._connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("journal_mode", "synchronous")
        ]
    assert told == [("wal",), (2,)]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(EventStoreError, match="cannot be taken"):
        shop(tmp_path / "missing").__enter__()


def test_one_host_at_a_time(path: Path) -> None:
    with shop(path.parent) as first:
        with pytest.raises(EventStoreInUseError, match=f"process {os.getpid()} has them"):
            shop(path.parent).__enter__()
        assert all_of(first.read()) == ["kept"]
    with shop(path.parent) as second:
        assert all_of(second.read()) == ["kept"]


def test_the_lock_is_waited_for(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path)
    with pytest.raises(EventStoreInUseError):
        StoreLock(tmp_path, 0.02)
    lock.give_back()
    StoreLock(tmp_path, 10.0).give_back()


def test_a_lock_is_not_inherited(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path)
    script = "import sys; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        lock.forget()  # not given back: closed, as by the host's end
        StoreLock(tmp_path).give_back()


def test_a_copy_taken_while_it_is_used_is_whole(path: Path, tmp_path: Path) -> None:
    """What stands on the disk at any moment, log and all, is what a crash leaves."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with shop(path.parent) as opened:
        opened.publish("not in the database itself yet")
        for name in (STORE_NAME, f"{STORE_NAME}-wal"):
            shutil.copy(path.with_name(name), copy / name)
    with shop(copy) as again:
        assert all_of(again.read()) == ["kept", "not in the database itself yet"]

"""What a removal of a data directory leaves behind, and who clears it away."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sandbox_host.runtime import data as module
from sandbox_host.runtime.data import DataDirectories
from sandbox_host.runtime.data_locks import DataLocks
from tests.support.hostile_tree import fill
from tests.support.traces import eventually


def entries(state: Path) -> list[str]:
    return sorted(os.listdir(state / "data"))


def test_what_cannot_be_removed_is_told_and_swept_later(
    state: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample / "sub").mkdir()
    (sample / "sub" / "kept\n").touch()
    (sample / "gone").touch()
    real = os.unlink

    def unlink(name: Any, **options: Any) -> None:
        if str(name).startswith("kept"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real(name, **options)

    directories = DataDirectories(state)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        done = directories.remove("sample")
        again = directories.sweep()
    (doomed,) = entries(state)
    for left in (done.left, again):
        assert ("Operation not permitted", "kept\\n") in {
            (one.reason, one.path.rpartition("/")[2]) for one in left
        }
        assert all(one.path.startswith(doomed) for one in left)
    assert directories.measure() == ()
    assert directories.sweep() == ()
    assert entries(state) == []


def test_more_than_there_is_time_for(
    state: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample / "file").touch()
    monkeypatch.setattr(module, "REMOVE_SECONDS", 0.0)
    (left,) = DataDirectories(state).remove("sample").left
    assert left.reason == "not over after 0 s"
    assert DataDirectories(state).sweep() == ()
    assert entries(state) == []


def test_interrupted(state: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    (sample / "file").touch()
    with monkeypatch.context() as patched:
        patched.setattr(module.Removal, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            DataDirectories(state).remove("sample")
    (doomed,) = entries(state)
    assert doomed.startswith(".removed-")
    with DataLocks(state / "locks").holding("sample"):
        pass
    assert DataDirectories(state).sweep() == ()
    assert entries(state) == []


def test_sweep_leaves_to_another_what_that_is_at(state: Path, outside: Path) -> None:
    doomed = state / "data" / ".removed-0011"
    doomed.mkdir()
    (doomed / "file").touch()
    (state / "data" / ".removed-link").symlink_to(outside)
    with_lock = os.open(doomed, os.O_RDONLY)
    fcntl.flock(with_lock, fcntl.LOCK_EX)
    (link,) = DataDirectories(state).sweep()
    assert (link.path, link.reason) == (".removed-link", "Not a directory")
    assert (doomed / "file").exists()
    os.close(with_lock)
    (link,) = DataDirectories(state).sweep()
    assert entries(state) == [".removed-link"]
    assert (outside / "precious").exists()


def test_a_host_sweeps_in_the_background(
    state: Path, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doomed = state / "data" / ".removed-0011"
    doomed.mkdir()
    fill(doomed, outside)
    (state / "data" / ".removed-file").touch()
    directories = DataDirectories(state)
    directories.start_sweeping()
    assert eventually(lambda: not doomed.exists(), seconds=30.0)
    told = ".removed-file could not be removed: Not a directory"
    assert eventually(lambda: told in caplog.text)
    directories.close()
    assert "sandbox-host-sweeper" not in {thread.name for thread in threading.enumerate()}


def test_a_host_that_closes_does_not_wait_for_all_of_it(state: Path) -> None:
    doomed = state / "data" / ".removed-0011"
    doomed.mkdir()
    (doomed / "file").touch()
    directories = DataDirectories(state)
    directories._stop.set()
    directories.start_sweeping()
    directories.close()
    assert (doomed / "file").exists()

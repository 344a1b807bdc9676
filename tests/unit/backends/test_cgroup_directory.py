"""Bounded reads and writes, and the sweeping of what killed hosts left: on plain directories."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup_directory, cgroup_text
from sandbox_host.backends.linux.cgroup_directory import OwnDirectory


@pytest.fixture(scope="module")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def own_start() -> int:
    return cgroup_text.parse_start_time(Path("/proc/self/stat").read_text())


def test_read_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345\xff")
    assert cgroup_directory.read(file, 6) == os.fsdecode(b"12345\xff")
    with pytest.raises(OSError, match="longer than 5 bytes") as caught:
        cgroup_directory.read(file, 5)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(file)


def test_write_then_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    cgroup_directory.write(file, "+memory +pids")
    assert file.read_text() == "+memory +pids"


def test_a_failure_says_where_and_when(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match="while it was read") as caught:
        cgroup_directory.read(missing)
    assert caught.value.filename == str(missing)
    with pytest.raises(FileNotFoundError, match="while '12' was written") as caught:
        cgroup_directory.write(missing, "12")
    assert caught.value.filename == str(missing)
    assert not missing.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    with pytest.raises(OSError, match="was read"):
        cgroup_directory.read(link)
    with pytest.raises(OSError, match="was written"):
        cgroup_directory.write(link, "after")
    assert target.read_text() == "before"


def test_remove_what_is_gone(tmp_path: Path) -> None:
    assert cgroup_directory.remove(tmp_path / "gone", 0.0)


def test_remove_waits_while_it_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, calls = tmp_path / "group", []
    directory.mkdir()
    rmdir = os.rmdir

    def busy_twice(path: Path) -> None:
        calls.append(path)
        if len(calls) < 3:
            raise OSError(errno.EBUSY, "busy")
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", busy_twice)
    assert cgroup_directory.remove(directory, 30.0)
    assert len(calls) == 3


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM, errno.ENOTEMPTY])
def test_remove_never_raises(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "rmdir", refused)
    assert not cgroup_directory.remove(tmp_path, 0.01)


def test_own_directory_is_named_after_this_process(tmp_path: Path) -> None:
    first, second = OwnDirectory(tmp_path), OwnDirectory(tmp_path)
    name = f"sandbox-host-{os.getpid()}-{own_start()}"
    assert first.path == tmp_path / name
    assert second.path == tmp_path / f"{name}-1"
    (first.path / "sandbox-a").mkdir()
    assert first.close()
    assert second.close()
    assert list(tmp_path.iterdir()) == []


def test_own_directory_that_is_in_use_stays(tmp_path: Path) -> None:
    own = OwnDirectory(tmp_path)
    (own.path / "sandbox-a" / "below").mkdir(parents=True)
    assert not own.close()
    assert not own.close()
    assert own.path.is_dir()


def test_a_process_has_a_bounded_number_of_them(tmp_path: Path) -> None:
    own = [OwnDirectory(tmp_path) for _ in range(64)]
    with pytest.raises(OSError, match="64 hosts") as caught:
        OwnDirectory(tmp_path)
    assert caught.value.errno == errno.EMFILE
    assert all(directory.close() for directory in own)


def test_sweep_takes_what_dead_hosts_left(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f"sandbox-host-{dead_pid}-5" / "sandbox-a").mkdir(parents=True)
    # The number is in use again, by a process that started later.
    (tmp_path / f"sandbox-host-{os.getpid()}-{own_start() - 1}-63").mkdir()
    assert cgroup_directory.sweep(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []


def test_own_directory_sweeps_first(tmp_path: Path, dead_pid: int) -> None:
    left = tmp_path / f"sandbox-host-{dead_pid}-5"
    left.mkdir()
    own = OwnDirectory(tmp_path)
    assert not left.exists()
    assert own.close()


def test_sweep_leaves_everything_else(tmp_path: Path, dead_pid: int) -> None:
    outside = tmp_path / "outside"
    (outside / "sandbox-a").mkdir(parents=True)
    base = tmp_path / "base"
    base.mkdir()
    start = own_start()
    for name in (
        f"sandbox-host-{os.getpid()}-{start}",  # alive
        f"sandbox-host-{os.getpid()}-{start}-2",
        f"sandbox-host-{dead_pid}",  # not ours
        f"sandbox-host-{dead_pid}-5-x",
        f"sandbox-host-{dead_pid}-5\n",
        f"xsandbox-host-{dead_pid}-5",
        "sandbox-host-0-5",
        "sandbox-host--1-5",
    ):
        (base / name).mkdir()
    (base / f"sandbox-host-{dead_pid}-6").symlink_to(outside)
    (base / f"sandbox-host-{dead_pid}-7").touch()
    before = sorted(base.iterdir())
    assert cgroup_directory.sweep(base) == 0
    assert sorted(base.iterdir()) == before
    assert (outside / "sandbox-a").is_dir()


def test_sweep_leaves_a_group_that_is_not_empty(tmp_path: Path, dead_pid: int) -> None:
    left = tmp_path / f"sandbox-host-{dead_pid}-5"
    (left / "sandbox-empty").mkdir(parents=True)
    (left / "sandbox-used" / "member").mkdir(parents=True)
    assert cgroup_directory.sweep(tmp_path) == 0
    assert [path.name for path in left.iterdir()] == ["sandbox-used"]


def test_sweep_leaves_what_is_locked(tmp_path: Path, dead_pid: int) -> None:
    left = tmp_path / f"sandbox-host-{dead_pid}-5"
    left.mkdir()
    descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        assert cgroup_directory.sweep(tmp_path) == 0
    finally:
        os.close(descriptor)
    assert cgroup_directory.sweep(tmp_path) == 1


def test_own_directory_is_locked_while_it_is_open(tmp_path: Path) -> None:
    own = OwnDirectory(tmp_path)
    descriptor = os.open(own.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert own.close()
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_sweep_is_bounded(tmp_path: Path, dead_pid: int) -> None:
    for number in range(70):
        (tmp_path / f"sandbox-host-{dead_pid}-{number}").mkdir()
    assert cgroup_directory.sweep(tmp_path) == 64
    assert cgroup_directory.sweep(tmp_path) == 6


def test_sweep_of_what_is_not_there(tmp_path: Path) -> None:
    assert cgroup_directory.sweep(tmp_path / "missing") == 0

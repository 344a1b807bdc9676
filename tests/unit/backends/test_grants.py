"""What may be granted for reading: files, not the kernel and not the host itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_host.backends.base import Places
from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.grants import granted_place
from sandbox_host.backends.linux.landlock import READ, Place
from sandbox_host.errors import ConfinementError

ROOT_LINE = "1 0 8:1 / / rw - ext4 /dev/a rw"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    state = tmp_path / "state"
    (state / "data" / "sample").mkdir(parents=True)
    run = state / "run" / "1"
    return Places(
        python=Path("/usr/bin/python3"),
        sdk_dir=run / "sdk",
        package_dir=run / "bundles" / "sample",
        data_dir=state / "data" / "sample",
        scratch_dir=run / "scratch",
        canary=run / "canary",
    )


def refused(path: str | Path, places: Places) -> str:
    with pytest.raises(ConfinementError) as caught:
        granted_place(str(path), places)
    assert caught.value.remedy
    return str(caught.value)


def test_directory_and_file(tmp_path: Path, places: Places) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").touch()
    shared = str(tmp_path / "shared")
    assert granted_place(shared, places) == Place(shared, READ, is_directory=True)
    assert granted_place(f"{shared}/file", places) == Place(
        f"{shared}/file", READ, is_directory=False
    )
    assert granted_place(f"/{shared}/", places).path == shared


def test_links_and_missing_paths_are_told_apart(tmp_path: Path, places: Places) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    told = refused(tmp_path / "link" / "file", places)
    assert f"{tmp_path}/link is a link to real" in told
    assert f"Grant {tmp_path}/real/file instead" in told
    assert "is a link to nowhere" in refused(tmp_path / "dangling", places)
    assert "there is nothing of that name" in refused(tmp_path / "missing", places)
    assert "an absolute path" in refused("real", places)


@pytest.mark.parametrize(
    "below", ["", "data", "data/sample", "data/other", "run", "journal.jsonl", "logs/sample.log"]
)
def test_nothing_of_the_hosts_own(places: Places, below: str) -> None:
    state = places.data_dir.parent.parent
    path = state / below
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert f"the host's own state directory {state}" in refused(path, places)


def test_nothing_above_the_hosts_own(tmp_path: Path, places: Places) -> None:
    assert "it contains the host's own state directory" in refused(tmp_path, places)
    # Beside it, whatever the names have in common.
    (tmp_path / "state2").mkdir()
    assert granted_place(str(tmp_path / "state2"), places)


def test_state_directory_behind_a_link(tmp_path: Path, places: Places) -> None:
    (tmp_path / "way").symlink_to(tmp_path / "state")
    places = replace(places, data_dir=tmp_path / "way" / "data" / "sample")
    assert "state directory" in refused(tmp_path / "state" / "data", places)


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/shm"])
def test_the_kernels_own_paths(places: Places, path: str) -> None:
    if os.path.islink(path):  # /proc/self
        path = os.path.realpath(path)
    assert "shows the machine and other processes" in refused(path, places)


def test_the_root(places: Places) -> None:
    assert "the whole file system" in refused("/", places)


def mounted(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Have the kernel say what is mounted, in this order."""
    text = "".join(f"{line}\n" for line in (ROOT_LINE, *lines))
    monkeypatch.setattr(procfs, "read", lambda pid, name: text)


def line(point: Path, kind: str) -> str:
    escaped = str(point).replace(" ", "\\040")
    return f"2 1 0:5 / {escaped} rw,relatime shared:1 - {kind} none rw"


@pytest.mark.parametrize(
    "kind", ["proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "mqueue", "bpf"]
)
@pytest.mark.parametrize("where", ["at", "above", "below"])
def test_file_systems_of_the_kernel(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    path = tmp_path / "ch root" / "srv"
    path.mkdir(parents=True)
    point = {"at": path, "above": path.parent, "below": path / "proc"}[where]
    mounted(monkeypatch, line(point, kind))
    told = refused(path, places)
    assert f"it reaches {point}, where a file system of the type {kind} is mounted" in told


def test_other_mounts(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "srv"
    path.mkdir()
    mounted(
        monkeypatch,
        line(Path("/proc"), "proc"),
        line(tmp_path / "srv2", "proc"),
        line(path / "disk", "ext4"),
        line(path / "memory", "tmpfs"),
    )
    assert granted_place(str(path), places).path == str(path)


def test_the_innermost_and_topmost_mount_is_the_one_a_path_is_in(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    # A disk in what was a /proc, and a disk on top of one.
    mounted(monkeypatch, line(tmp_path, "proc"), line(tmp_path / "a", "ext4"))
    assert granted_place(str(path), places)
    mounted(monkeypatch, line(tmp_path / "a", "proc"), line(tmp_path / "a", "ext4"))
    assert granted_place(str(path), places)
    mounted(monkeypatch, line(tmp_path / "a", "ext4"), line(tmp_path / "a", "proc"))
    assert "of the type proc" in refused(path, places)


def test_mounts_that_cannot_be_read(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "srv"
    path.mkdir()

    def broken(pid: int, name: str) -> str:
        raise PermissionError("no")

    monkeypatch.setattr(procfs, "read", broken)
    assert "what is mounted there cannot be read" in refused(path, places)

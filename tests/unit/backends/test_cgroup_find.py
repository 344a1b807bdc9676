"""Which control groups are tried, in which order, and what the operator is told if none will do.

The hierarchies are plain directories, so that nothing can be set in them; finding real ones is
tested in tests/integration/test_cgroups.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup import Lacking, find_cgroups

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make a machine with these mounts (type, root, directory, options) and memberships."""

    def make(mounts: list[tuple[str, str, Path, str]], membership: str, *, uid: int = 1000) -> None:
        device = os.stat(tmp_path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        mountinfo = "".join(
            f"30 20 {number} {root} {directory} rw - {kind} none {options}\n"
            for kind, root, directory, options in mounts
        )
        texts = {"/proc/self/mountinfo": mountinfo, "/proc/self/cgroup": membership}
        read = cgroup_directory.read
        monkeypatch.setattr(
            cgroup_directory,
            "read",
            lambda path, *limit: texts[str(path)] if str(path) in texts else read(path, *limit),
        )
        monkeypatch.setattr(os, "geteuid", lambda: uid)

    return make


def group(path: Path, controllers: str = "memory pids") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.procs").touch()
    return path


def lacking(wanted: Path | None = None) -> Lacking:
    found = find_cgroups(wanted)
    assert isinstance(found, Lacking)
    assert found.remedy.endswith(".")
    return found


def test_nothing_is_mounted(machine: Machine) -> None:
    machine([], "0::/\n")
    assert lacking().reason == (
        "v2: it is not mounted; v1: no hierarchy has the controller memory."
    )
    assert "Delegate=yes" in lacking().remedy


def test_no_version_2_in_this_kernel(machine: Machine) -> None:
    machine([], "4:memory:/a\n")
    assert lacking().reason == (
        "v2: it is not mounted; v1: no mounted hierarchy of the controller memory shows the "
        "group /a."
    )


def test_controllers_that_are_not_delegated(machine: Machine, tmp_path: Path) -> None:
    group(tmp_path / "a", "cpu pids")
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/a\n")
    assert f"v2: {tmp_path}/a offers cpu, pids, but not memory;" in lacking().reason


def test_root_tries_the_root_of_the_hierarchy_too(machine: Machine, tmp_path: Path) -> None:
    group(tmp_path, "cpu")
    group(tmp_path / "a", "")
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/a\n", uid=0)
    reason = lacking().reason
    assert f"v2: {tmp_path}/a offers no controller, but not memory, pids;" in reason
    assert f"v2, at the root: {tmp_path} offers cpu, but not memory, pids;" in reason
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/\n", uid=0)
    assert "at the root" not in lacking().reason


def test_own_group_is_outside_the_mount(machine: Machine, tmp_path: Path) -> None:
    machine([("cgroup2", "/docker/x", tmp_path, "rw")], "0::/docker/y\n")
    assert "v2: the host's own control group /docker/y is in no mounted" in lacking().reason


def test_root_of_the_mount_is_subtracted(machine: Machine, tmp_path: Path) -> None:
    group(tmp_path / "y", "cpu")
    machine([("cgroup2", "/docker/x", tmp_path, "rw")], "0::/docker/x/y\n")
    assert f"{tmp_path}/y offers cpu" in lacking().reason


def test_a_hidden_mount_is_not_used(machine: Machine, tmp_path: Path) -> None:
    machine([("cgroup2", "/", Path("/proc"), "rw")], "0::/\n")
    assert "v2: the host's own control group / is in no mounted hierarchy" in lacking().reason


def test_what_cannot_be_limited_is_not_left_behind(machine: Machine, tmp_path: Path) -> None:
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    memory.mkdir()
    (pids / "b").mkdir(parents=True)
    machine(
        [("cgroup", "/", memory, "rw,memory"), ("cgroup", "/", pids, "rw,pids")],
        "4:memory:/\n8:pids:/b\n",
    )
    assert "sandbox-trial/memory.limit_in_bytes" in lacking().reason
    assert list(memory.iterdir()) == []
    assert list((pids / "b").iterdir()) == []


def test_the_same_for_version_2(machine: Machine, tmp_path: Path) -> None:
    base = group(tmp_path / "a")
    (base / "cgroup.subtree_control").write_text("cpu")
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/a\n")
    assert "cgroup.subtree_control" in lacking().reason
    assert [path.name for path in base.iterdir() if path.is_dir()] == []


def test_a_named_directory_and_nothing_else(machine: Machine, tmp_path: Path) -> None:
    named = group(tmp_path / "named", "cpu")
    group(tmp_path / "own", "io")
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/own\n", uid=0)
    group(tmp_path)
    assert lacking(named).reason == f"v2: {named} offers cpu, but not memory, pids."


def test_a_named_link_is_resolved(machine: Machine, tmp_path: Path) -> None:
    named, link = group(tmp_path / "named", "cpu"), tmp_path / "link"
    link.symlink_to(named)
    group(tmp_path)
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/\n")
    assert lacking(link).reason == f"v2: {named} offers cpu, but not memory, pids."


def test_a_named_directory_of_version_1_is_that_of_every_hierarchy(
    machine: Machine, tmp_path: Path
) -> None:
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    (memory / "mine").mkdir(parents=True)
    pids.mkdir()
    machine(
        [("cgroup", "/", memory, "rw,memory"), ("cgroup", "/", pids, "rw,pids")],
        "4:memory:/\n8:pids:/\n",
    )
    assert lacking(memory / "mine").reason == (
        "v1: no mounted hierarchy of the controller pids shows the group /mine."
    )


def test_a_named_directory_that_is_none(machine: Machine, tmp_path: Path) -> None:
    machine([("cgroup2", "/", tmp_path / "groups", "rw")], "0::/\n")
    missing = lacking(tmp_path / "missing")
    assert missing.reason == f"{tmp_path}/missing is no directory."
    assert "delegate" in missing.remedy
    elsewhere = lacking(tmp_path)
    assert elsewhere.reason == f"{tmp_path} is not in a control group file system."
    assert "/sys/fs/cgroup" in elsewhere.remedy


def test_the_way_there_must_be_open(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def access(path: Path, mode: int, *, effective_ids: bool) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", access)
    for name in ("users", "users/own", "users/named"):
        group(tmp_path / name)
    machine([("cgroup2", "/", tmp_path, "rw")], "0::/users/own\n")
    assert lacking(tmp_path / "users" / "named").reason == (
        "v2: no process can be moved from the host's control group /users/own into "
        f"{tmp_path}/users/named: that takes the right to write cgroup.procs of /users."
    )
    assert asked == [tmp_path / "users" / "cgroup.procs"]


@pytest.mark.parametrize(("uid", "closed"), [(1000, True), (0, False)])
def test_a_way_there_that_is_not_shown_is_open_to_root(
    uid: int, closed: bool, machine: Machine, tmp_path: Path
) -> None:
    named = group(tmp_path / "named", "cpu")
    machine([("cgroup2", "/docker/x", tmp_path, "rw")], "0::/docker/y\n", uid=uid)
    assert ("no process can be moved" in lacking(named).reason) is closed


def test_proc_is_not_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, *limit: int) -> str:
        raise FileNotFoundError(2, "No such file", str(path))

    monkeypatch.setattr(cgroup_directory, "read", missing)
    assert lacking() == Lacking("/proc/self/mountinfo: No such file.", "Mount /proc.")

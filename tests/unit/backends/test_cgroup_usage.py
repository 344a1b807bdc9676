"""What a group tells of all its processes together, on plain directories; or that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup_directory import Place
from sandbox_host.backends.linux.cgroup_group import Group, GroupUsage
from sandbox_host.backends.linux.cgroup_text import Mount
from sandbox_host.backends.linux.cgroup_v1 import GroupV1
from sandbox_host.backends.linux.cgroup_v2 import GroupV2


def place(point: Path, prefix: str) -> Place:
    mount = Mount(0, "/", point, "cgroup2" if prefix == "0:" else "cgroup", frozenset())
    return Place(mount, prefix, point)


@pytest.fixture
def v1(tmp_path: Path) -> GroupV1:
    owns = {}
    for number, controller in enumerate(("memory", "pids", "cpuacct")):
        point = tmp_path / controller
        point.mkdir()
        owns[controller] = (place(point, f"{number}:{controller}"), point)
    group = GroupV1("a", owns, {"cpuacct"})
    memory, pids, accounting = group.paths
    (memory / "memory.stat").write_text("cache 5000\nrss 900\ntotal_cache 5000\ntotal_rss 1000\n")
    (pids / "pids.current").write_text("4\n")
    (accounting / "cpuacct.usage").write_text("1500000000\n")
    (memory / "cgroup.procs").write_text("12\n0\n34\n")
    return group


@pytest.fixture
def v2(tmp_path: Path) -> GroupV2:
    group = GroupV2("a", place(tmp_path, "0:"), tmp_path, ("memory", "pids"))
    (path,) = group.paths
    (path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 9\nsystem_usec 7\n")
    (path / "memory.stat").write_text("anon 1000\nfile 5000\nkernel 300\n")
    (path / "pids.current").write_text("4\n")
    (path / "cgroup.procs").write_text("12\n0\n34\n")
    return group


@pytest.fixture(params=["v1", "v2"])
def group(request: pytest.FixtureRequest) -> Group:
    found: Group = request.getfixturevalue(request.param)
    return found


def test_what_all_use(group: Group) -> None:
    assert group.usage() == GroupUsage(1.5, 1_000, 4)
    assert group.cpu_seconds() == 1.5


def test_processes_that_are_seen_from_here(group: Group) -> None:
    assert group.processes() == [12, 34]


@pytest.mark.parametrize("name", ["cpuacct.usage", "cpu.stat", "memory.stat", "pids.current"])
@pytest.mark.parametrize("text", [None, "", "nonsense\n"])
def test_what_the_kernel_does_not_tell(group: Group, name: str, text: str | None) -> None:
    found = [path / name for path in group.paths if (path / name).exists()]
    if not found:
        assert group.usage() is not None  # it is the other version's
        return
    for path in found:
        path.unlink() if text is None else path.write_text(text)
    assert group.usage() is None
    assert (group.cpu_seconds() is None) is name.startswith("cpu")


def test_group_that_is_gone(group: Group) -> None:
    for path in group.paths:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    assert (group.usage(), group.cpu_seconds(), group.processes()) == (None, None, [])


def test_version_1_without_accounting(tmp_path: Path) -> None:
    owns = {}
    for controller in ("memory", "pids"):
        (tmp_path / controller).mkdir()
        owns[controller] = (place(tmp_path / controller, f"1:{controller}"), tmp_path / controller)
    group = GroupV1("a", owns)
    assert (group.usage(), group.cpu_seconds()) == (None, None)


def test_accounting_that_the_process_is_kept_out_of(
    v1: GroupV1, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel may do with one of a real-time policy, where it is mounted with cpu."""

    def write(path: Path, _: str) -> None:
        if "cpuacct" in str(path):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(cgroup_directory, "write", write)
    v1.add(12)
    assert (v1.usage(), v1.cpu_seconds()) == (None, None)
    assert not any("cpuacct" in line for line in v1.lines)

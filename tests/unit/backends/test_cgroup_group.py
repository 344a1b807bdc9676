"""Groups on plain directories: names, membership, limits that are read back."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.backends.base import OutOfMemory
from sandbox_host.backends.linux import cgroup_directory, cgroup_group
from sandbox_host.backends.linux.cgroup_directory import Place
from sandbox_host.backends.linux.cgroup_group import Group
from sandbox_host.backends.linux.cgroup_text import Mount
from sandbox_host.backends.linux.cgroup_v1 import MAX_SLACK_BYTES, GroupV1, shares_of, weight_of
from sandbox_host.backends.linux.cgroup_v2 import GroupV2

PAGE = cgroup_group.PAGE_BYTES
MIB = 1024 * 1024


def place(point: Path, prefix: str, root: str = "/") -> Place:
    mount = Mount(0, root, point, "cgroup2" if prefix == "0:" else "cgroup", frozenset())
    return Place(mount, prefix, point)


@pytest.fixture
def hierarchies(tmp_path: Path) -> tuple[tuple[Place, Path], tuple[Place, Path]]:
    pairs = []
    for prefix, root in (("4:memory", "/service"), ("8:pids", "/")):
        point = tmp_path / prefix
        (point / "own").mkdir(parents=True)
        pairs.append((place(point, prefix, root), point / "own"))
    return pairs[0], pairs[1]


@pytest.fixture
def v2(tmp_path: Path) -> GroupV2:
    return GroupV2("a", place(tmp_path, "0:"), tmp_path, ("memory", "pids"))


@given(st.text(max_size=10))
def test_names(text: str) -> None:
    allowed = text != "" and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789_@-")
    if allowed:
        # No file of the kernel's begins with that.
        assert cgroup_group.directory_name(text) == f"sandbox-{text}"
    else:
        with pytest.raises(ValueError, match="not a name for a control group"):
            cgroup_group.directory_name(text)


@pytest.mark.parametrize("name", ["..", "a/b", "a\n", "A", "x" * 193])
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a name"):
        Group(name, [(place(tmp_path, "0:"), tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_group_has_a_directory_and_a_line_in_each_hierarchy(hierarchies) -> None:
    group = Group("tasks", hierarchies)
    (_, memory), (_, pids) = hierarchies
    assert group.paths == (memory / "sandbox-tasks", pids / "sandbox-tasks")
    assert all(path.is_dir() for path in group.paths)
    assert group.lines == ("4:memory:/service/own/sandbox-tasks", "8:pids:/own/sandbox-tasks")
    assert group.remove()
    assert not any(path.exists() for path in group.paths)


def test_a_group_is_made_everywhere_or_nowhere(hierarchies) -> None:
    (_, memory), (_, pids) = hierarchies
    (pids / "sandbox-a").mkdir()
    with pytest.raises(FileExistsError):
        Group("a", hierarchies)
    assert list(memory.iterdir()) == []


def test_membership_takes_every_line(hierarchies) -> None:
    group = Group("a", hierarchies)
    memory, pids = group.lines
    assert group.is_member(f"9:cpu:/\n{pids}\n{memory}\n0::/\n")
    assert not group.is_member(f"{pids}\n")
    assert not group.is_member(f"{pids}\n{memory}/below\n")
    assert not group.is_member(f"{pids}\n{memory} (deleted)\n")
    assert not group.is_member(f"{pids}\nx{memory}\n")
    assert not group.is_member(f"{pids}\nx\r{memory}\x85\n")
    assert not group.is_member("")


@pytest.mark.parametrize("pid", [0, -1])
def test_no_process_is_added_by_mistake(pid: int, v2: GroupV2) -> None:
    procs = v2.paths[0] / "cgroup.procs"
    procs.touch()
    with pytest.raises(ValueError, match="not a pid"):
        v2.add(pid)
    assert procs.read_text() == ""
    v2.add(12)
    assert procs.read_text() == "12"


def test_membership_of_this_process() -> None:
    assert cgroup_group.read_membership(os.getpid()) == Path("/proc/self/cgroup").read_text()


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have a kernel that says something else than what was written."""
    monkeypatch.setattr(cgroup_directory, "write", lambda path, value: path.write_text(text))


@pytest.mark.parametrize("told", ["8192", "8191", "4096", "0"])
def test_a_limit_may_be_rounded(told: str, tmp_path: Path, monkeypatch) -> None:
    answer(monkeypatch, told)
    cgroup_group.limit(tmp_path / "memory.max", 4096, slack=4096)
    assert cgroup_group.read_limit(tmp_path / "memory.max") == int(told)


@pytest.mark.parametrize("told", ["max", "8193", "9223372036854771712", "", "no"])
def test_a_limit_that_is_not_in_force(told: str, tmp_path: Path, monkeypatch) -> None:
    answer(monkeypatch, told)
    with pytest.raises(OSError, match=r"asked for 4096|expected a number") as caught:
        cgroup_group.limit(tmp_path / "memory.max", 4096, slack=4096)
    assert caught.value.filename == str(tmp_path / "memory.max")


def test_limits_of_version_1(hierarchies) -> None:
    group = GroupV1("a", dict(zip(("memory", "pids"), hierarchies, strict=True)))
    memory, pids = group.paths
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    for file in (*(memory / name for name in names), pids / "pids.max"):
        file.touch()
    group.set_limits(8 * PAGE, 5)
    assert [(memory / name).read_text() for name in names] == [str(8 * PAGE)] * 2
    assert group.limits() == {"memory_bytes": 8 * PAGE, "swap_bytes": 0, "tasks": 5}
    (memory / names[1]).unlink()
    assert group.limits() == {"memory_bytes": 8 * PAGE, "tasks": 5}


def test_controllers_of_version_1_that_are_mounted_together(tmp_path: Path) -> None:
    both = place(tmp_path, "4:memory,pids"), tmp_path
    group = GroupV1("a", {"memory": both, "pids": both})
    assert group.paths == (tmp_path / "sandbox-a",)
    assert group.lines == ("4:memory,pids:/sandbox-a",)
    for name in ("memory.limit_in_bytes", "pids.max"):
        (group.paths[0] / name).touch()
    group.set_limits(PAGE, 2)
    assert group.limits() == {"memory_bytes": PAGE, "tasks": 2}


def test_limits_of_version_2(v2: GroupV2) -> None:
    (path,) = v2.paths
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max"):
        (path / name).touch()
    v2.set_limits(8 * PAGE, 5)
    assert (path / "memory.oom.group").read_text() == "1"
    assert v2.limits() == {"memory_bytes": 8 * PAGE, "swap_bytes": 0, "tasks": 5}
    (path / "memory.swap.max").write_text("max")
    assert v2.limits() == {"memory_bytes": 8 * PAGE, "tasks": 5}


def test_only_the_controllers_that_are_there(tmp_path: Path) -> None:
    group = GroupV2("a", place(tmp_path, "0:"), tmp_path, ("hugetlb",))
    group.set_limits(PAGE, 1)
    assert group.limits() == {}
    pids = tmp_path / "pids"
    (pids / "own").mkdir(parents=True)
    alone = GroupV1("a", {"pids": (place(pids, "8:pids"), pids / "own")})
    assert alone.out_of_memory() is OutOfMemory.NO
    assert not alone.at_memory_limit()
    alone.loosen(PAGE)
    assert not alone.kill()


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        ("oom 1\noom_kill 1\n", OutOfMemory.OWN_LIMIT),
        ("oom 0\noom_kill 2\n", OutOfMemory.ABOVE),
        ("oom_kill 2\noom_group_kill 1\n", OutOfMemory.ABOVE),
        ("max 90\noom 1\noom_kill 0\n", OutOfMemory.NO),
        ("", OutOfMemory.NO),
    ],
    ids=["own", "above", "above, no count of its own", "somebody else was faster", "untold"],
)
def test_whose_memory_ran_out_in_version_2(text: str, whose: OutOfMemory, v2: GroupV2) -> None:
    (v2.paths[0] / "memory.events").write_text(text)
    assert v2.out_of_memory() is whose
    assert not v2.at_memory_limit()


HELD = "oom_kill_disable 1\nunder_oom 1\noom_kill"
KILLS = "oom_kill_disable 0\nunder_oom 0\noom_kill"
FAR, NEAR = 64 * MIB - 3 * MIB, 64 * MIB - PAGE


def memory_group(hierarchies, control: str = "", peak: int = FAR, peak_with_swap: int = FAR):
    """Return a group with a limit of 64 MiB, for which the kernel says something."""
    group = GroupV1("a", {"memory": hierarchies[0]})
    for name, value in (
        ("memory.limit_in_bytes", 64 * MIB),
        ("memory.memsw.limit_in_bytes", 64 * MIB),
        ("memory.usage_in_bytes", peak),
        ("memory.max_usage_in_bytes", peak),
        ("memory.memsw.max_usage_in_bytes", peak_with_swap),
    ):
        (group.paths[0] / name).write_text(f"{value}\n")
    (group.paths[0] / "memory.oom_control").write_text(control)
    return group


@pytest.mark.parametrize(
    ("control", "peaks", "whose"),
    [
        (f"{HELD} 0\n", (NEAR, NEAR), OutOfMemory.NO),
        (f"{HELD} 1\n", (NEAR, NEAR), OutOfMemory.ABOVE),
        (f"{HELD} 1\n", (FAR, FAR), OutOfMemory.ABOVE),
        (f"{KILLS} 0\n", (NEAR, NEAR), OutOfMemory.NO),
        (f"{KILLS} 1\n", (FAR, FAR), OutOfMemory.ABOVE),
        (f"{KILLS} 1\n", (NEAR, FAR), OutOfMemory.UNTOLD),
        (f"{KILLS} 1\n", (FAR, NEAR), OutOfMemory.UNTOLD),
        ("oom_kill_disable 0\nunder_oom 0\n", (NEAR, NEAR), OutOfMemory.NO),
        ("", (NEAR, NEAR), OutOfMemory.NO),
    ],
    ids=[
        *("held, nobody killed", "held, so it was not this group", "held and far from the limit"),
        *("kills, nobody killed", "kills, and was far from the limit"),
        *("kills, and was near it", "kills, and was near it with swap", "old kernel", "untold"),
    ],
)
def test_whose_memory_ran_out_in_version_1(control: str, peaks, whose, hierarchies) -> None:
    assert memory_group(hierarchies, control, *peaks).out_of_memory() is whose


def hold(group: GroupV1) -> None:
    group.set_limits(64 * MIB, 1)
    assert (group.paths[0] / "memory.oom_control").read_text() == "1"


@pytest.mark.parametrize(
    ("text", "used", "at_limit"),
    [
        (f"{HELD} 0\n", NEAR, True),
        (f"{HELD} 0\n", FAR, False),
        ("oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", NEAR, False),
        ("", NEAR, False),
    ],
    ids=["held at its own", "held at one above", "near and not held", "untold"],
)
def test_at_memory_limit(text: str, used: int, at_limit: bool, hierarchies) -> None:
    group = memory_group(hierarchies, "", used)
    hold(group)
    (group.paths[0] / "memory.oom_control").write_text(text)
    assert group.at_memory_limit() is at_limit
    group.remove(0.0)
    assert not group.at_memory_limit()


def test_a_kernel_that_does_not_hold(hierarchies) -> None:
    group = memory_group(hierarchies)
    (group.paths[0] / "memory.oom_control").unlink()
    group.set_limits(64 * MIB, 1)
    assert not group.at_memory_limit()
    group.loosen(PAGE)
    assert group.limits()["memory_bytes"] == 64 * MIB


@given(st.lists(st.integers(-1, 2 * MAX_SLACK_BYTES), max_size=6))
def test_nothing_held_gets_more_than_the_slack(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        point = Path(directory)
        group = memory_group([(place(point, "4:memory"), point)])
        hold(group)
        for size in sizes:
            group.loosen(size)
        given_out = group.limits()["memory_bytes"] - 64 * MIB
        assert given_out == min(sum(size for size in sizes if size > 0), MAX_SLACK_BYTES)
        assert given_out + group.limits()["swap_bytes"] in {0, MAX_SLACK_BYTES}
        group.remove(0.0)


@given(st.integers(1, 10_000))
def test_weights_of_version_1(weight: int) -> None:
    assert 2 <= shares_of(weight) <= 262_144
    assert weight_of(shares_of(weight)) == weight


def test_cpu_weight(tmp_path: Path, hierarchies) -> None:
    cpu = tmp_path / "cpu"
    (cpu / "own").mkdir(parents=True)
    v1 = GroupV1("a", {"cpu": (place(cpu, "1:cpu"), cpu / "own")}, {"cpu"})
    (v1.paths[0] / "cpu.shares").touch()
    v1.set_limits(PAGE, 1, 50)
    assert (v1.paths[0] / "cpu.shares").read_text() == "512"
    assert v1.limits() == {"cpu_weight": 50}
    v2 = GroupV2("b", place(tmp_path, "0:"), tmp_path, ("cpu",))
    (v2.paths[0] / "cpu.weight").touch()
    v2.set_limits(PAGE, 1, 50)
    assert v2.limits() == {"cpu_weight": 50}


def test_cpu_weight_that_is_not_in_force(tmp_path: Path, monkeypatch) -> None:
    answer(monkeypatch, "2")
    with pytest.raises(OSError, match="asked for 1, and the kernel says 2"):
        cgroup_group.set_weight(tmp_path / "cpu.weight", 1)


def test_a_process_that_an_optional_controller_refuses(hierarchies, monkeypatch) -> None:
    write = cgroup_directory.write

    def refuse(path: Path, value: str) -> None:
        if path.name == "cgroup.procs" and "8:pids" in path.parts:
            raise OSError(22, "Invalid argument", str(path))
        write(path, value)

    monkeypatch.setattr(cgroup_directory, "write", refuse)
    pairs = dict(zip(("memory", "cpu"), hierarchies, strict=True))
    group = GroupV1("a", pairs, {"cpu"})
    for path in group.paths:
        for name in ("cgroup.procs", "memory.limit_in_bytes", "cpu.shares"):
            (path / name).touch()
    group.set_limits(PAGE, 1)
    assert set(group.limits()) == {"memory_bytes", "cpu_weight"}
    group.add(12)
    assert set(group.limits()) == {"memory_bytes"}
    assert group.lines == ("4:memory:/service/own/sandbox-a",)
    demanded = GroupV1("b", pairs)
    (demanded.paths[0] / "cgroup.procs").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        demanded.add(12)


def test_a_group_that_is_gone(v2: GroupV2) -> None:
    assert v2.remove()
    assert v2.remove()
    assert v2.out_of_memory() is OutOfMemory.NO
    assert not v2.kill()
    with pytest.raises(FileNotFoundError, match="was read"):
        v2.limits()
    with pytest.raises(FileNotFoundError, match="was written"):
        v2.add(os.getpid())

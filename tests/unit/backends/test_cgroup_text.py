"""What the kernel writes about control groups, and what it never wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.backends.linux import cgroup_text
from sandbox_host.backends.linux.cgroup_text import Membership, Mount

MOUNTINFO = r"""23 1 254:0 / / rw,relatime - ext4 /dev/vda rw
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 /docker/a\040b /sys/fs/my\040groups rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
MEMBERSHIP = """8:pids:/
4:memory:/process/a:b
3:cpu,cpuacct:/x
9:name=systemd:/user.slice
0::/user.slice/user-1000.slice
"""
# A name of a group: no slash, no line end (the kernel forbids it), not the two that mean others.
NAMES = st.text(
    st.characters(exclude_characters="/\n\0", exclude_categories=("Cs",)), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, max_size=4).map(lambda names: "/" + "/".join(names))


def mangled(text: str) -> str:
    """Escape as the kernel does in mountinfo."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


def mount(root: str = "/", point: str = "/sys/fs/cgroup") -> Mount:
    return Mount(38, root, Path(point), "cgroup2", frozenset())


def test_mounts_are_those_of_control_groups() -> None:
    memory, cpu, unified = cgroup_text.parse_mountinfo(MOUNTINFO)
    assert memory == Mount(
        os.makedev(0, 32), "/", Path("/sys/fs/cgroup/memory"), "cgroup", frozenset({"rw", "memory"})
    )
    assert cpu.options == {"rw", "cpu", "cpuacct"}
    assert unified.kind == "cgroup2"
    assert unified.root == "/docker/a b"
    assert unified.point == Path("/sys/fs/my groups")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-",
        "35 31 0:32 / /x rw",
        "35 31 0:32 / /x rw - cgroup",
        "35 31 0:32 / /x rw - cgroup cgroup",
        "35 31 0 / /x rw - cgroup cgroup rw",
        "35 31 a:b / /x rw - cgroup cgroup rw",
        "35 31 0:99999999999999999999 / /x rw - cgroup cgroup rw",
        "35 31 0:32 / x rw - cgroup cgroup rw",
        "35 31 0:32 / /x rw - cgroup3 cgroup rw",
    ],
)
def test_a_mount_that_is_not_understood_is_left_out(line: str) -> None:
    assert cgroup_text.parse_mountinfo(line) == ()


@given(st.text())
def test_mountinfo_of_anything(text: str) -> None:
    assert cgroup_text.parse_mountinfo(f"35 31 {text}\n{MOUNTINFO}")[-3:] == (
        cgroup_text.parse_mountinfo(MOUNTINFO)
    )


@given(NAMES, NAMES)
def test_names_in_mountinfo_come_back(root: str, point: str) -> None:
    line = f"41 31 0:38 /{mangled(root)} /{mangled(point)} rw - cgroup2 cgroup2 rw"
    (found,) = cgroup_text.parse_mountinfo(line)
    assert found.root == f"/{root}"
    assert found.point == Path(f"/{point}")


@given(st.binary(max_size=30))
def test_names_that_are_not_utf_8_come_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    assert cgroup_text.unescape(name.replace("\\", "\\134")) == name


def test_memberships() -> None:
    found = {m.prefix: m for m in cgroup_text.parse_membership(MEMBERSHIP)}
    assert found["4:memory"] == Membership("4:memory", frozenset({"memory"}), "/process/a:b")
    assert found["3:cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert found["0:"].path == "/user.slice/user-1000.slice"
    assert [m.prefix for m in found.values() if m.unified] == ["0:"]


@pytest.mark.parametrize("line", ["", ":", "::", "0:", "0::", "0::x", "x::/", "4:memory", "-1::/"])
def test_a_membership_that_is_not_understood_is_left_out(line: str) -> None:
    assert cgroup_text.parse_membership(line) == ()


@given(st.text())
def test_memberships_of_anything(text: str) -> None:
    for found in cgroup_text.parse_membership(text):
        assert found.path.startswith("/")
        assert f"{found.prefix}:{found.path}" in text.split("\n")


@given(PATHS, PATHS, PATHS)
def test_group_and_directory_lead_to_each_other(root: str, point: str, inner: str) -> None:
    there = mount(root, point)
    path = (root.rstrip("/") + inner).rstrip("/") or "/"
    directory = cgroup_text.directory_of(there, path)
    assert directory is not None
    assert directory.is_relative_to(there.point)
    assert cgroup_text.path_of(there, directory) == path


@pytest.mark.parametrize(
    ("root", "path", "directory"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/docker/x", "/docker/x", "/m"),
        ("/docker/x", "/docker/x/y", "/m/y"),
        ("/docker/x", "/docker/xy", None),
        ("/docker/x", "/", None),
        ("/", "/..", None),
        ("/", "/../../a", None),
        ("/..", "/../a", "/m/a"),
        ("/..", "/", None),
        ("/..", "/../../a", None),
    ],
)
def test_directory_of_a_group(root: str, path: str, directory: str | None) -> None:
    found = cgroup_text.directory_of(mount(root, "/m"), path)
    assert found == (None if directory is None else Path(directory))


def test_no_group_beside_the_mount() -> None:
    with pytest.raises(ValueError, match="not in the subpath"):
        cgroup_text.path_of(mount(point="/m"), Path("/n/a"))


@pytest.mark.parametrize(
    ("text", "counters"),
    [
        ("low 0\noom 2\noom_kill 1\n", {"low": 0, "oom": 2, "oom_kill": 1}),
        ("oom_kill_disable 0\nunder_oom 1\n", {"oom_kill_disable": 0, "under_oom": 1}),
        ("", {}),
        ("oom_kill\noom_kill x\noom_kill -1\n 1\noom_kill 1 2", {}),
        ("oom_kill \u0663", {}),
        ("oom_kill " + "1" * 5000, {}),
    ],
)
def test_counters(text: str, counters: dict[str, int]) -> None:
    assert cgroup_text.parse_counters(text) == counters


@given(st.text())
def test_counters_of_anything(text: str) -> None:
    assert all(value >= 0 for value in cgroup_text.parse_counters(text).values())


def test_limits() -> None:
    assert cgroup_text.parse_limit("max\n") is None
    assert cgroup_text.parse_limit("9223372036854771712\n") == 9223372036854771712
    for text in ("", "-1", "1.5", "maximum", "\u0663", "1" * 21):
        with pytest.raises(ValueError, match="expected a number or max"):
            cgroup_text.parse_limit(text)


@given(st.text(max_size=20), st.integers(0, 2**64 - 1))
def test_start_time_stands_behind_the_name(name: str, start: int) -> None:
    fields = ["S", *["0"] * 18, str(start), *["0"] * 30]
    assert cgroup_text.parse_start_time(f"12 ({name}) {' '.join(fields)}") == start


@pytest.mark.parametrize("text", ["", "12 (x", "12 (x) S 1 2 3", "12 (x) " + "x " * 30])
def test_start_time_that_is_cut_off(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cgroup_text.parse_start_time(text)

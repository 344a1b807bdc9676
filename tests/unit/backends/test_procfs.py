"""What the kernel says of a process, with a name that the process chose to mislead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sandbox_host.backends.linux import procfs

STATUS = "Name:\tpython\nState:\tS (sleeping)\nPPid:\t1\nCapEff:\t0000000000000000\nThreads:\t3\n"
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1000                 1000                 files
Max nice priority         0                    0
"""


def stat_line(name: str, *, threads: int = 1, ticks: int = 50) -> str:
    fields = ["0"] * 50
    fields[0], fields[11], fields[12] = "S", str(ticks), str(ticks)
    fields[17] = str(threads)
    return f"123 ({name}) " + " ".join(fields)


@pytest.mark.parametrize("name", ["python", "a b", ") R 1 2 3", "((", "x\n) Z 9", ""])
def test_stat_is_cut_behind_the_last_parenthesis(name: str) -> None:
    stat = procfs.parse_stat(stat_line(name, threads=7, ticks=procfs.TICKS_PER_SECOND))
    assert stat == procfs.Stat("S", 2.0, 7)


def test_pages_of_files_are_not_a_process_s_own() -> None:
    assert procfs.parse_statm("900 500 200 1 0 300 0\n") == 300 * procfs.PAGE_BYTES


def test_status() -> None:
    status = procfs.parse_status(STATUS)
    assert (status["Name"], status["Threads"], status["PPid"]) == ("python", "3", "1")


def test_limits() -> None:
    limits = procfs.parse_limits(LIMITS)
    assert limits["Max cpu time"] == ("unlimited", "unlimited")
    assert limits["Max open files"] == ("1000", "1000")
    assert limits["Max nice priority"] == ("0", "0")


def test_this_process() -> None:
    pid = os.getpid()
    stat = procfs.parse_stat(procfs.read(pid, "stat"))
    assert stat.state in "RS"
    assert stat.threads >= 1
    assert procfs.parse_statm(procfs.read(pid, "statm")) > 1 << 20
    assert procfs.parse_status(procfs.read(pid, "status"))["PPid"] == str(os.getppid())
    soft, _ = procfs.parse_limits(procfs.read(pid, "limits"))["Max open files"]
    assert soft.isdigit() or soft == "unlimited"


def test_descriptors_of_this_process() -> None:
    before = procfs.count_descriptors(os.getpid())
    read_end, write_end = os.pipe()
    assert procfs.count_descriptors(os.getpid()) == before + 2
    os.close(read_end)
    os.close(write_end)


def test_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert procfs.count_descriptors(process.pid) == 0
    with pytest.raises(OSError, match=str(process.pid)):
        procfs.read(process.pid, "stat")


MOUNTINFO = (
    "90 89 0:48 / /proc ro,nosuid,nodev - proc proc ro,hidepid=ptraceable,subset=pid\n"
    "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 propagate_from:3 - ext3 /dev/root rw\n"
    "37 35 98:0 / /with\\040space\\134and\\011tab rw - tmpfs none rw,size=65536k\n"
)


def test_mounts() -> None:
    proc, ext3, odd = procfs.parse_mounts(MOUNTINFO)
    assert proc == procfs.MountLine(
        "/proc", frozenset({"ro", "nosuid", "nodev"}), "proc", "ro,hidepid=ptraceable,subset=pid"
    )
    assert (ext3.point, ext3.kind, ext3.data) == ("/mnt2", "ext3", "rw")
    assert (odd.point, odd.data) == ("/with space\\and\ttab", "rw,size=65536k")
    assert procfs.parse_mounts("") == ()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("nonsense", id="nonsense"),
        pytest.param("90 89 0:48 / /proc ro proc proc ro", id="no separator"),
        pytest.param("90 89 0:48 / /proc - proc proc ro", id="too few before it"),
        pytest.param("90 89 0:48 / /proc ro - proc proc", id="too few behind it"),
        pytest.param(" - ", id="only the separator"),
    ],
)
def test_mounts_that_are_not_as_documented(line: str) -> None:
    with pytest.raises(ValueError, match="mountinfo"):
        procfs.parse_mounts(f"{MOUNTINFO}{line}\n")


@pytest.mark.parametrize("name", ["ü", "a\u2028b", "a\x0bb", "\udcff", "a\rb"])
def test_mount_point_may_be_any_bytes(name: str) -> None:
    (line,) = procfs.parse_mounts(f"90 89 0:48 / /{name} ro - proc proc ro\n")
    assert line.point == f"/{name}"


def test_mounts_of_this_process() -> None:
    lines = procfs.parse_mounts(procfs.read(os.getpid(), "mountinfo"))
    assert "/" in {line.point for line in lines}
    assert all(line.options & {"ro", "rw"} for line in lines)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ("rw,size=65536k,nr_inodes=16384,mode=700", 1 << 26),
        ("size=1", 1),
        ("rw,size=2g", 1 << 31),
        ("rw,size=3m", 3 << 20),
        ("rw", None),
        ("", None),
        ("rw,size=,mode=700", None),
        ("rw,size=50%", None),
        ("rw,oversize=7", None),
        ("rw,size=-1", None),
    ],
)
def test_size_of_a_tmpfs(data: str, size: int | None) -> None:
    assert procfs.size_of_tmpfs(data) == size

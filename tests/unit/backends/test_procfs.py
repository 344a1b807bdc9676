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


def stat_line(name: str, *, threads: int = 1, pages: int = 100, ticks: int = 50) -> str:
    fields = ["0"] * 50
    fields[0], fields[11], fields[12] = "S", str(ticks), str(ticks)
    fields[17], fields[21] = str(threads), str(pages)
    return f"123 ({name}) " + " ".join(fields)


@pytest.mark.parametrize("name", ["python", "a b", ") R 1 2 3", "((", "x\n) Z 9", ""])
def test_stat_is_cut_behind_the_last_parenthesis(name: str) -> None:
    stat = procfs.parse_stat(stat_line(name, threads=7, pages=3, ticks=procfs.TICKS_PER_SECOND))
    assert stat == procfs.Stat("S", 2.0, 7, 3 * procfs.PAGE_BYTES)


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
    assert stat.resident_bytes > 1 << 20
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

"""What a plugin that may start processes has done to it: its children work, and none is the plugin.

All in an interpreter of its own, which is changed for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PRELUDE = """
import os, subprocess, sys, threading, time
from plugin_sdk.child.processes import Orphans, _children

def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)

def is_zombie(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"

def child_status(work):
    pid = os.fork()
    if pid == 0:
        os._exit(work() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

pytestmark = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(),
    reason="the kernel keeps no list of children",
)


def run(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_strangers_are_collected() -> None:
    run(
        """
        stranger = os.fork()
        if stranger == 0:
            os._exit(1)
        orphans = Orphans()
        orphans.install()
        forked = os.fork()
        if forked == 0:
            os._exit(2)
        opened = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        code = ["python", "-c", "raise SystemExit(4)"]
        spawned = os.posix_spawn(sys.executable, code, os.environ)
        until(lambda: all(map(is_zombie, (forked, opened.pid, spawned))))
        until(lambda: not os.path.exists(f"/proc/{stranger}") or is_zombie(stranger))
        orphans.collect()
        assert stranger not in _children()
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 2
        assert opened.wait() == 3
        assert os.waitstatus_to_exitcode(os.waitpid(spawned, 0)[1]) == 4
        orphans.collect()
        assert orphans._own == set()
        """
    )


def test_one_that_runs_is_left_to_run() -> None:
    run(
        """
        receive, send = os.pipe()
        stranger = os.fork()
        if stranger == 0:
            os.close(send)
            os.read(receive, 1)
            os._exit(5)
        orphans = Orphans()
        orphans.collect()
        assert stranger in _children()
        os.close(send)
        assert os.waitstatus_to_exitcode(os.waitpid(stranger, 0)[1]) == 5
        """
    )


def test_own_child_that_the_kernel_leaves_out_stays_ones_own() -> None:
    run(
        """
        from plugin_sdk.child import processes
        orphans = Orphans()
        orphans.install()
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        until(lambda: is_zombie(child.pid))
        processes._children = set
        orphans.collect()
        processes._children = _children
        orphans.collect()
        assert child.wait() == 3
        """
    )


def test_children_of_other_threads() -> None:
    run(
        """
        orphans = Orphans()
        orphans.install()
        found = []
        def start():
            found.append(subprocess.Popen([sys.executable, "-c", "raise SystemExit(6)"]))
        for _ in range(4):
            thread = threading.Thread(target=start)
            thread.start()
            thread.join()
        assert [child.wait() for child in found] == [6] * 4
        """
    )


def test_copy_forks_as_it_likes() -> None:
    run(
        """
        orphans = Orphans()
        orphans.install()
        def work():
            stranger = os.fork()
            if stranger == 0:
                os._exit(0)
            until(lambda: is_zombie(stranger))
            os.fork() or os._exit(0)
            os.waitpid(stranger, 0)
            return 9
        assert child_status(work) == 9
        """
    )


PREPARED = """
import faulthandler, io
from plugin_sdk.child.io import ChildChannel
from plugin_sdk.child.processes import prepare
from plugin_sdk.wire.messages import Publish

there, their = os.pipe(), os.pipe()
trace = os.pipe()
channel = ChildChannel(there[0], their[1])
faulthandler.enable(file=trace[1])
prepare(channel, trace[1], "/somewhere/sample-1/sample")
"""


def test_what_is_executed_prints_where_the_plugin_prints() -> None:
    told = run(
        "for descriptor in (0, 1, 2): os.set_inheritable(descriptor, False)\n"
        + PREPARED
        + "subprocess.run([sys.executable, '-c', 'print(1)'])"
    )
    assert told == "1\n"


def test_children_find_the_package_by_its_name() -> None:
    assert run(PREPARED + "print(sys.path[-1])") == "/somewhere/sample-1\n"


def test_copy_takes_no_part_in_the_conversation() -> None:
    run(
        PREPARED
        + """
def work():
    try:
        channel.send(Publish("model_updated", payload=b"x"))
    except BrokenPipeError as error:
        assert "only the plugin's own process" in str(error)
    for descriptor in (there[0], their[1], trace[1]):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        return descriptor
    return 0

holding, go = threading.Event(), threading.Event()
def hold():
    with channel._lock:
        holding.set()
        go.wait()
threading.Thread(target=hold).start()
holding.wait()
assert child_status(work) == 0
found = []
thread = threading.Thread(target=lambda: found.append(child_status(work)))
thread.start()
thread.join()
assert found == [0]
go.set()
os.close(their[1])
assert os.read(their[0], 100) == b""
"""
    )


def test_crash_of_a_copy_is_told_in_the_log() -> None:
    told = run(
        PREPARED
        + """
def work():
    os.dup2(1, 2)
    import ctypes
    ctypes.string_at(1)

assert child_status(work) == -11
os.close(trace[1])
faulthandler.disable()
assert os.read(trace[0], 100) == b""
"""
    )
    assert "Segmentation fault" in told
    assert "in work" in told

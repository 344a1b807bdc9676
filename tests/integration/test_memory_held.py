"""A hog that the kernel holds at its limit, and does not kill: version 1 of control groups.

Held processes of the test's own first, then plugins. The watchdog of these hosts does not see how
large a plugin is, so that its control group is always first.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Cause, SandboxHost
from sandbox_host.backends.base import OutOfMemory, Sample
from sandbox_host.backends.linux import backend, cgroup, cgroup_directory
from sandbox_host.backends.linux.cgroup_directory import Place
from sandbox_host.backends.linux.cgroup_v1 import MAX_SLACK_BYTES, CgroupsV1, GroupV1
from sandbox_host.backends.linux.process import LinuxChild, keep_pages
from sandbox_host.errors import (
    AttestationError,
    BudgetExceededError,
    ConfinementError,
    PluginEndedError,
)
from sandbox_host.model import MIB
from sandbox_host.runtime.watch import Watch
from tests.support.control_groups import offer_of_version_1, running, tell
from tests.support.host import Workshop
from tests.support.traces import eventually, is_running, processes_of, still_there

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 20.0
LIMIT = 48 * MIB

HOG = """
import faulthandler, mmap, signal, sys, threading, time
faulthandler.enable()
faulthandler.register(signal.SIGUSR1, file=int(sys.argv[2]), all_threads=True, chain=False)
def hog():
    held = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(held), 4096):
        held[at] = 1
def spin():
    while True:
        pass
sys.stdin.readline()
if sys.argv[1] == "main":
    hog()
threading.Thread(target=hog, daemon=True).start()
spin() if sys.argv[1] == "beside a busy one" else time.sleep(600)
"""
WRITER = """
import os, sys
sys.stdin.readline()
with open(sys.argv[1], "wb+", buffering=0) as file:
    for _ in range(100):
        file.write(bytes(1 << 20))
    os.fsync(file.fileno())
    file.seek(0)
    while file.read(1 << 20):
        pass
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def groups() -> Iterator[CgroupsV1]:
    with offer_of_version_1() as offer:
        assert isinstance(offer.groups, CgroupsV1)
        probe = offer.groups.create("probe", LIMIT, 1)
        held = probe._oom is not None
        probe.remove()
        if not held:
            pytest.skip("this kernel holds nobody")
        yield offer.groups


def peak(group: GroupV1) -> int:
    return int(cgroup_directory.read(group.paths[0] / "memory.max_usage_in_bytes"))


# -- processes of the test's own --------------------------------------------------------------


@pytest.mark.parametrize("where", ["main", "beside a waiting one", "beside a busy one"])
def test_stacks_of_who_is_held(groups: CgroupsV1, where: str) -> None:
    """The main thread answers whether it is held itself or another is; nobody gets far."""
    group = groups.create("a", LIMIT, 7)
    trace, theirs = os.pipe()
    keep_pages(theirs, trace)
    ends = [os.open(os.devnull, os.O_RDWR) for _ in range(5)]
    with running(HOG, where, str(theirs), pass_fds=(theirs,)) as process:
        os.close(theirs)
        child = LinuxChild(
            process.pid,
            os.pidfd_open(process.pid),
            ends[0],
            ends[1],
            (ends[2], ends[3]),
            trace,
            ends[4],
        )
        child.group = group
        group.add(process.pid)
        tell(process)
        assert eventually(group.at_memory_limit, PATIENCE_SECONDS)
        sample = child.sample()
        assert sample is not None
        assert sample.at_memory_limit
        child.ask_for_stacks()
        assert select.select([trace], [], [], PATIENCE_SECONDS)[0]
        dump = b""
        while b" in <module>" not in dump:  # the outermost frame of the main thread, told last
            dump += os.read(trace, 65_536)
        assert b" in hog" in dump
        for _ in range(3):
            child.ask_for_stacks()
        assert eventually(group.at_memory_limit, PATIENCE_SECONDS)
        assert LIMIT < peak(group) <= LIMIT + MAX_SLACK_BYTES
        child.kill()
        assert process.wait() == -signal.SIGKILL
        child.close()
    assert group.remove()


def test_page_cache_that_is_reclaimed_holds_nobody(groups: CgroupsV1, tmp_path: Path) -> None:
    """And an operator's SIGKILL of who was at the limit is no lack of memory."""
    group = groups.create("a", LIMIT, 7)
    with running(WRITER, str(tmp_path / "large")) as process:
        group.add(process.pid)
        tell(process)
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        # The kernel charges a page above the limit where it must not wait for another to be freed.
        assert LIMIT - MIB < peak(group) <= LIMIT + MAX_SLACK_BYTES
        assert not group.at_memory_limit()
        process.kill()
        process.wait()
    assert group.out_of_memory() is OutOfMemory.NO
    assert group.remove()


@contextlib.contextmanager
def group_above(*, holds: bool) -> Iterator[tuple[CgroupsV1, Path]]:
    """Yield groups below one that has a limit of its own, and that one."""
    place = cgroup._place_v1(cgroup._look(), None, "memory")
    path = place.directory / f"test-above-{os.getpid()}"
    path.mkdir()
    try:
        cgroup_directory.write(path / "memory.limit_in_bytes", str(LIMIT))
        cgroup_directory.write(path / "memory.oom_control", str(int(holds)))
        made = CgroupsV1({"memory": Place(place.mount, place.prefix, path)})
        yield made, path
        assert made.close()
    finally:
        assert cgroup_directory.remove(path, 1.0)


@pytest.mark.usefixtures("groups")
def test_whom_the_kernel_chose_when_a_group_above_ran_out() -> None:
    """As when the machine does: nothing of it is the plugin's own limit."""
    with group_above(holds=False) as (below, _), running(HOG, "main", "1") as process:
        group = below.create("a", 4 * LIMIT, 7)
        group.add(process.pid)
        tell(process)
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        assert group.out_of_memory() is OutOfMemory.ABOVE
        assert group.remove()


@pytest.mark.usefixtures("groups")
def test_who_is_held_by_a_group_above_is_not_at_its_own_limit() -> None:
    with group_above(holds=True) as (below, path), running(HOG, "main", "1") as process:
        group = below.create("a", 4 * LIMIT, 7)
        group.add(process.pid)
        tell(process)
        control = path / "memory.oom_control"
        assert eventually(lambda: "under_oom 1" in cgroup_directory.read(control), PATIENCE_SECONDS)
        assert not group.at_memory_limit()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert group.out_of_memory() is OutOfMemory.NO
        assert group.remove()


# -- plugins ----------------------------------------------------------------------------------

PLUGIN = """
import mmap

def grow():
    held = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(held), 4096):
        held[at] = 1

@operation
def hog():
    grow()

@operation
def hog_in_a_thread():
    threading.Thread(target=grow, daemon=True).start()
    time.sleep(600)
"""
BUDGET = 32 * MIB
LIMITS = {"memory": BUDGET, "scratch": MIB}
GROUP_LIMIT = BUDGET + MIB + backend.MEMORY_HEADROOM
needs = pytest.mark.needs("cgroup", "landlock", "seccomp")


@pytest.fixture
def sees_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a watchdog that only sees that a plugin is held."""
    sample = LinuxChild.sample

    def without_size(child: LinuxChild) -> Sample | None:
        found = sample(child)
        return found and replace(found, resident_bytes=0)

    monkeypatch.setattr(LinuxChild, "sample", without_size)


@pytest.fixture
def sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "look", lambda *_: None)


def group_of(plugin: BlockingPlugin) -> GroupV1:
    child = plugin._process._child
    assert isinstance(child, LinuxChild)
    assert isinstance(child.group, GroupV1)
    return child.group


@needs
@pytest.mark.usefixtures("groups", "sees_no_size")
@pytest.mark.parametrize("operation", ["hog", "hog_in_a_thread"])
def test_place_of_a_held_hog(workshop: Workshop, host: BlockingHost, operation: str) -> None:
    """It has a moment to tell, which a machine that is busy may not give it every time."""
    bundle, places = workshop.write(PLUGIN, limits=LIMITS, permissions={"threads": True}), []
    while not any(places) and len(places) < 10:
        plugin = host.load(bundle)
        with pytest.raises(BudgetExceededError) as caught:
            plugin.call(operation, deadline=PATIENCE_SECONDS)
        error = caught.value
        assert (error.budget, error.limit, error.used) == ("memory", BUDGET, BUDGET)
        assert plugin.cause is Cause.MEMORY
        places.append(error.place)
        host.unload("sample")
    assert places[-1].startswith("main.py:")
    # The main thread's: where it only waits for the hog, that is what the operation is doing.
    assert places[-1].endswith(" in grow" if operation == "hog" else " in hog_in_a_thread")


@needs
@pytest.mark.usefixtures("groups", "sees_no_size")
def test_import_that_hogs_is_held_and_told(workshop: Workshop, host: BlockingHost) -> None:
    with pytest.raises(BudgetExceededError) as caught:
        host.load(workshop.write(PLUGIN + "\ngrow()\n", limits=LIMITS))
    assert (caught.value.budget, caught.value.used) == ("memory", BUDGET)
    assert host.plugins == {}


@needs
@pytest.mark.usefixtures("groups", "sees_nothing")
def test_operator_who_kills_what_is_held(workshop: Workshop, host: BlockingHost) -> None:
    """The kernel's count says that it was not for memory, although it had come to its limit."""
    plugin = host.load(workshop.write(PLUGIN, limits=LIMITS))
    group, ends = group_of(plugin), []

    def call() -> None:
        with pytest.raises(PluginEndedError) as caught:
            plugin.call("hog", deadline=60.0)
        ends.append(caught.value)

    caller = threading.Thread(target=call)
    caller.start()
    assert eventually(group.at_memory_limit, PATIENCE_SECONDS)
    assert GROUP_LIMIT - MIB < peak(group) <= GROUP_LIMIT + MAX_SLACK_BYTES
    os.kill(plugin.receipt.pid, signal.SIGKILL)
    caller.join()
    assert [error.cause for error in ends] == [Cause.KILLED]
    assert "not by this host, nor for want of memory" in str(ends[0])
    assert eventually(lambda: not group.paths[0].exists())


@needs
@pytest.mark.usefixtures("groups")
def test_child_that_is_held_in_its_lock_down(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that is too small for it costs the start, and leaves nothing."""
    monkeypatch.setattr(backend, "MEMORY_HEADROOM", 64 * 1024 - BUDGET - MIB)
    before = processes_of(os.getpid())
    with SandboxHost.blocking(workshop.config(start_timeout_seconds=1.0)) as host:
        with pytest.raises((ConfinementError, AttestationError)):
            host.load(workshop.write(PLUGIN, limits=LIMITS))
        # Of those that it has started the nursery alone goes on, once the other has been reaped.
        assert eventually(
            lambda: sum(map(is_running, processes_of(os.getpid()) - before)) == 1, PATIENCE_SECONDS
        )
        monkeypatch.undo()
        assert host.load(workshop.write(PLUGIN, limits=LIMITS)).call("echo", 1) == 1


LONELY = """
import sys
from sandbox_host import HostConfig, SandboxHost
from sandbox_host.runtime.watch import Watch
trust_store, state_dir, bundle = sys.argv[1:]
Watch.look = lambda *_: None
config = HostConfig(trust_store=trust_store, state_dir=state_dir)
with SandboxHost.blocking(config) as host:
    plugin = host.load(bundle)
    print(plugin.receipt.pid, plugin._process._child.group.paths[0], flush=True)
    plugin.call("hog", deadline=600.0)
"""


@needs
@pytest.mark.usefixtures("groups")
def test_what_is_held_does_not_outlive_its_host(workshop: Workshop) -> None:
    bundle = workshop.write(PLUGIN, limits=LIMITS)
    arguments = [str(path) for path in (workshop.trust_store, workshop.state_dir, bundle)]
    with subprocess.Popen(
        [sys.executable, "-c", LONELY, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        try:
            assert host.stdout is not None
            pid, path = host.stdout.readline().split(maxsplit=1)
            control = Path(path.rstrip("\n"), "memory.oom_control")
            assert eventually(lambda: "under_oom 1" in control.read_text(), PATIENCE_SECONDS)
            assert is_running(int(pid))
            started = processes_of(host.pid)
        finally:
            host.kill()
        assert still_there(started) == set()
    with offer_of_version_1():  # whose finding sweeps away what the killed one left
        assert not control.exists()

"""Control groups for real: processes of the test's own in groups of this machine's kernel.

Which versions and controllers: `tests.support.control_groups`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from sandbox_host.backends.base import OutOfMemory
from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup import Cgroups, Lacking, find_cgroups
from sandbox_host.backends.linux.cgroup_group import PAGE_BYTES, read_membership
from tests.support.control_groups import (
    SLEEPER,
    Offer,
    delegated_group,
    go,
    offer_of_version_1,
    running,
    tell,
)
from tests.support.traces import eventually

MIB = 1024 * 1024

HOG = "import sys; sys.stdin.readline(); held = bytearray(256 << 20); print(len(held))"
FORKER = """
import os, sys
sys.stdin.readline()
children = []
try:
    while len(children) < 10:
        if (pid := os.fork()) == 0:
            sys.stdin.readline()
            os._exit(0)
        children.append(pid)
except OSError as error:
    print(len(children), error.errno, flush=True)
else:
    print(len(children), 0, flush=True)
sys.stdin.readline()
for pid in children:
    os.waitpid(pid, 0)
"""


@pytest.fixture(params=["v1", "v2"])
def offer(request: pytest.FixtureRequest) -> Iterator[Offer]:
    if request.param == "v1":
        with offer_of_version_1() as found:
            yield found
        return
    with delegated_group() as delegated:
        groups = find_cgroups(delegated.path, delegated.controllers)
        assert not isinstance(groups, Lacking), groups.reason
        yield Offer(groups, delegated.controllers)
        groups.close()


@pytest.fixture
def groups(offer: Offer) -> Cgroups:
    return offer.groups


def needs(offer: Offer, controller: str) -> None:
    if controller not in offer.controllers:
        pytest.skip(f"version 1 has the controller {controller} here, so version 2 has not")


def test_limits_are_read_back(offer: Offer) -> None:
    group = offer.groups.create("a", 64 * MIB + 1, 7)
    wanted = {"memory": ("memory_bytes", 64 * MIB), "pids": ("tasks", 7)}
    found = group.limits()
    assert found.pop("swap_bytes", 0) == 0
    assert found.pop("cpu_weight", 100) == 100
    assert found == dict(wanted[name] for name in wanted if name in offer.controllers)
    assert group.remove()


def test_no_name_twice(groups: Cgroups) -> None:
    group = groups.create("tasks", 64 * MIB, 7)
    with pytest.raises(FileExistsError):
        groups.create("tasks", 64 * MIB, 7)
    assert all(path.is_dir() for path in group.paths)
    assert group.remove()
    assert groups.create("tasks", 64 * MIB, 7).remove()


def test_membership(groups: Cgroups) -> None:
    group, other = groups.create("a", 64 * MIB, 7), groups.create("b", 64 * MIB, 7)
    with running(SLEEPER) as process:
        assert not group.is_member(read_membership(process.pid))
        group.add(process.pid)
        assert group.is_member(read_membership(process.pid))
        assert not other.is_member(read_membership(process.pid))
        assert not group.is_member(read_membership(os.getpid()))
        assert not group.remove(0.0)
        go(process)
        assert process.wait() == 0
    with pytest.raises(ProcessLookupError):
        group.add(process.pid)
    assert group.remove()
    assert not any(path.exists() for path in group.paths)


def test_kill(groups: Cgroups) -> None:
    group = groups.create("a", 64 * MIB, 7)
    with running(FORKER) as process:
        group.add(process.pid)
        assert go(process)
        if groups.kind == "v1":
            assert not group.kill()
            assert process.poll() is None
            # Its children read from the same pipe and end with it.
            assert process.stdin
            process.stdin.close()
            assert process.wait() == 0
        else:
            assert group.kill()
            assert process.wait() == -signal.SIGKILL
    assert group.remove()


def test_memory_is_bounded(offer: Offer) -> None:
    needs(offer, "memory")
    tight, wide = offer.groups.create("a", 64 * MIB, 7), offer.groups.create("b", 512 * MIB, 7)
    with running(HOG) as process:
        wide.add(process.pid)
        assert go(process) == f"{256 * MIB}\n"
        assert process.wait() == 0
    with running(HOG) as process:
        tight.add(process.pid)
        tell(process)
        if offer.groups.kind == "v1":
            assert eventually(tight.at_memory_limit)
            assert process.poll() is None
            process.kill()
        assert process.wait() == -signal.SIGKILL
    own = OutOfMemory.NO if offer.groups.kind == "v1" else OutOfMemory.OWN_LIMIT
    assert tight.out_of_memory() is own
    assert wide.out_of_memory() is OutOfMemory.NO
    assert tight.remove()
    assert wide.remove()
    assert tight.out_of_memory() is OutOfMemory.NO


def test_a_kill_is_not_taken_for_a_lack_of_memory(offer: Offer) -> None:
    needs(offer, "memory")
    group = offer.groups.create("a", 64 * MIB, 7)
    with running(SLEEPER) as process:
        group.add(process.pid)
        process.kill()
        process.wait()
    assert group.out_of_memory() is OutOfMemory.NO
    assert group.remove()


@pytest.mark.parametrize(("tasks", "forked"), [(3, "2 11"), (64, "10 0")])
def test_tasks_are_bounded(offer: Offer, tasks: int, forked: str) -> None:
    needs(offer, "pids")
    group = offer.groups.create("a", 256 * MIB, tasks)
    with running(FORKER) as process:
        group.add(process.pid)
        assert go(process) == f"{forked}\n"
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
    assert group.remove()


FAMILY = """
import os, sys, time
sys.stdin.readline()
kept = os.urandom(30 << 20)
for _ in range(2):
    if os.fork() == 0:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        os.write(1, b"done\\n")  # in one go: there are two of them
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


def test_usage_is_that_of_all_processes(offer: Offer) -> None:
    needs(offer, "memory")
    needs(offer, "pids")
    group = offer.groups.create("a", 256 * MIB, 64, processes=True)
    if group.usage() is None:
        pytest.skip("no control group with the controller cpuacct")
    with running(FAMILY) as process:
        group.add(process.pid)
        assert go(process) == "done\n"
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        used = group.usage()
        assert used is not None
        assert 0.4 < used.cpu_seconds < 10
        assert used.tasks == 3
        # What a fork shares with its parent is there once.
        assert 30 * MIB < used.memory_bytes < 60 * MIB
        assert process.pid in group.processes()
        assert len(group.processes()) == 3
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
    assert group.remove()


def test_closing_leaves_nothing(groups: Cgroups) -> None:
    own = {path.parent for path in groups.create("forgotten", MIB, 1).paths}
    assert all(path.name.startswith(f"sandbox-host-{os.getpid()}-") for path in own)
    assert groups.close()
    assert not any(path.exists() for path in own)
    assert groups.close()
    with pytest.raises(FileNotFoundError):
        groups.create("late", MIB, 1)


def test_closing_tells_what_it_leaves(groups: Cgroups) -> None:
    group = groups.create("a", 64 * MIB, 7)
    with running(SLEEPER) as process:
        group.add(process.pid)
        assert not groups.close()
        assert group.is_member(read_membership(process.pid))
        go(process)
        process.wait()
    assert group.remove()
    for path in group.paths:
        assert cgroup_directory.remove(path.parent, 0.0)


def test_limits_that_the_kernel_refuses_leave_no_group(groups: Cgroups) -> None:
    if groups.create("probe", MIB, 1).limits() == {}:
        pytest.skip("no limit to refuse")
    with pytest.raises(OSError, match="written") as caught:
        groups.create("a", -2 * PAGE_BYTES, -2)
    assert "sandbox-a/" in str(caught.value.filename)
    assert groups.create("a", MIB, 1).remove()


# -- the share of the CPU ---------------------------------------------------------------------

SPIN = "import sys\nsys.stdin.readline()\nwhile True: pass"


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("weights", [(100, 10), (1_000, 100)], ids=["100 and 10", "1000 and 100"])
def test_weights_share_a_cpu(weights: tuple[int, int]) -> None:
    with offer_of_version_1() as offer, running(SPIN) as one, running(SPIN) as other:
        made = [
            offer.groups.create(name, 64 * MIB, 7, weight)
            for name, weight in zip("ab", weights, strict=True)
        ]
        if "cpu_weight" not in made[0].limits():
            pytest.skip("no control group with the controller cpu")
        assert tuple(group.limits()["cpu_weight"] for group in made) == weights
        cpu = min(os.sched_getaffinity(0))
        for process, group in zip((one, other), made, strict=True):
            group.add(process.pid)
            os.sched_setaffinity(process.pid, {cpu})
            tell(process)
        # A share is what many turns come to, whoever else wants the CPU meanwhile.
        assert eventually(lambda: cpu_seconds(one) + cpu_seconds(other) > 1.0, 30.0)
        assert cpu_seconds(one) >= 3 * cpu_seconds(other)
        for process, group in zip((one, other), made, strict=True):
            process.kill()
            process.wait()
            assert group.remove()


def test_a_process_of_a_real_time_policy() -> None:
    """Where the kernel keeps it from the controller cpu, it goes without a weight."""
    with offer_of_version_1() as offer, running(SLEEPER) as process:
        group = offer.groups.create("a", 64 * MIB, 7)
        try:
            os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pytest.skip("this root may give nobody a real-time policy")
        group.add(process.pid)
        membership = read_membership(process.pid)
        assert group.is_member(membership)
        inside = [line for line in membership.split() if line.endswith("/sandbox-a")]
        has_weight = "cpu_weight" in group.limits()
        assert any(":cpu" in line for line in inside) is has_weight
        go(process)
        process.wait()
        assert group.remove()

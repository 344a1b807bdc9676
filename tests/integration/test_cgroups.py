"""Control groups for real: processes of the test's own in groups of this machine's kernel.

Version 1 needs root and writable hierarchies. Version 2 needs root and controllers in
its hierarchy, and uses those that it offers: memory and pids, or whatever version 1 left.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup, cgroup_directory
from sandbox_host.backends.linux.cgroup import CONTROLLERS, Cgroup, Cgroups, Lacking, find_cgroups
from sandbox_host.backends.linux.cgroup_group import PAGE_BYTES, read_membership
from tests.support import ordinary_user

MIB = 1024 * 1024
REPOSITORY = Path(__file__).parents[2]

# Starts its work when it is told to: until then it can be moved.
SLEEPER = "import sys; sys.stdin.readline()"
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
# A host: moves into a group first, if told to, and does as it is told line by line.
HOST = """
import json, os, sys
from pathlib import Path
from sandbox_host.backends.linux.cgroup import Lacking, find_cgroups
start, controllers, count = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
if start:
    Path(start, "cgroup.procs").write_text(str(os.getpid()))
wanted = Path(sys.argv[4]) if sys.argv[4] else None
def told(value):
    own = Path("/proc/self/cgroup").read_text().split("\\n")
    print(json.dumps([value, [line for line in own if line.startswith("0:")]]), flush=True)
found = [find_cgroups(wanted, controllers) for _ in range(count)]
if isinstance(found[0], Lacking):
    told(found[0].reason)
    sys.exit()
groups = [one.create("left", 1 << 26, 4) for one in found]
told([[str(path) for path in group.paths] for group in groups])
sys.stdin.readline()
told([one.close() for one in found])
"""


@contextmanager
def running(source: str, *arguments: str, **options) -> Iterator[subprocess.Popen[str]]:
    """Run Python source; whatever happens, it is ended and reaped."""
    command = [sys.executable, "-c", source, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> str:
    """Tell a process to go on, and return the line that it prints, or "" if it ends instead."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def first_line(process: subprocess.Popen[str]):
    assert process.stdout
    return json.loads(process.stdout.readline())


@dataclass
class Offer:
    """Groups found, and the controllers that they have."""

    groups: Cgroups
    controllers: tuple[str, ...]


@contextmanager
def offer_of_version_1() -> Iterator[Offer]:
    try:
        groups = cgroup._open_v1(cgroup._look(), None, CONTROLLERS)
    except (OSError, cgroup_directory.UnusableError) as error:
        pytest.skip(f"no writable version 1 hierarchies of memory and pids: {error}")
    try:
        yield Offer(groups, CONTROLLERS)
    finally:
        groups.close()


@dataclass
class Delegated:
    """A group of version 2 of the test's own, with the controllers that this machine offers."""

    path: Path
    controllers: tuple[str, ...]


@contextmanager
def delegated_group() -> Iterator[Delegated]:
    view = cgroup._look()
    own = view.unified()
    place = own and view.place(own, "/")
    if not place or os.geteuid() != 0:
        pytest.skip("needs root and the root of a version 2 hierarchy")
    root = place.directory
    offered = cgroup_directory.read(root / "cgroup.controllers").split()
    controllers = tuple(c for c in CONTROLLERS if c in offered) or ("hugetlb",)
    if not set(controllers) <= set(offered):
        pytest.skip("the version 2 hierarchy has no controller: version 1 has them all")
    lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Workers of one test run take turns: what one of them hands out, another takes back.
        fcntl.flock(lock, fcntl.LOCK_EX)
        control = root / "cgroup.subtree_control"
        before = control.read_text().split()
        path = root / f"test-{os.getpid()}"
        try:
            control.write_text(" ".join(f"+{name}" for name in controllers))
            path.mkdir()
        except OSError as error:
            pytest.skip(f"the version 2 hierarchy is not writable: {error}")
        yield Delegated(path, controllers)
        for directory in sorted(path.rglob("*"), reverse=True):
            if directory.is_dir():
                cgroup_directory.remove(directory, 5.0)
        assert cgroup_directory.remove(path, 5.0)
        for name in set(controllers) - set(before):
            with suppress(OSError):
                control.write_text(f"-{name}")
    finally:
        os.close(lock)


@pytest.fixture
def delegated() -> Iterator[Delegated]:
    with delegated_group() as found:
        yield found


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


# -- both versions ----------------------------------------------------------------------------


def test_limits_are_read_back(offer: Offer) -> None:
    group = offer.groups.create("a", 64 * MIB + 1, 7)
    wanted = {"memory": ("memory_bytes", 64 * MIB), "pids": ("tasks", 7)}
    found = group.limits()
    assert found.pop("swap_bytes", 0) == 0
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


def hog(group: Cgroup) -> int:
    with running(HOG) as process:
        group.add(process.pid)
        assert go(process) in {"", f"{256 * MIB}\n"}
        return process.wait()


def test_memory_is_bounded(offer: Offer) -> None:
    needs(offer, "memory")
    tight, wide = offer.groups.create("a", 64 * MIB, 7), offer.groups.create("b", 512 * MIB, 7)
    assert not tight.out_of_memory()
    assert hog(wide) == 0
    assert hog(tight) == -signal.SIGKILL
    assert tight.out_of_memory()
    assert not wide.out_of_memory()
    assert tight.remove()
    assert wide.remove()
    assert not tight.out_of_memory()


def test_a_kill_is_not_taken_for_a_lack_of_memory(offer: Offer) -> None:
    needs(offer, "memory")
    group = offer.groups.create("a", 64 * MIB, 7)
    with running(SLEEPER) as process:
        group.add(process.pid)
        process.kill()
        process.wait()
    assert not group.out_of_memory()
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


# -- one version ------------------------------------------------------------------------------


def test_a_killed_host_is_swept_away() -> None:
    with offer_of_version_1():
        pass
    with running(HOST, "", "memory,pids", "1", "", cwd=REPOSITORY) as host:
        (paths,), _ = first_line(host)
        left = [Path(path) for path in paths]
        host.kill()
        host.wait()
    assert all(path.is_dir() for path in left)
    with running(SLEEPER) as process:
        for path in left:
            cgroup_directory.write(path / "cgroup.procs", str(process.pid))
        with offer_of_version_1():
            assert all(path.is_dir() for path in left)
        go(process)
        process.wait()
    with offer_of_version_1() as offer:
        assert not any(path.parent.exists() for path in left)
        assert offer.groups.detail.startswith("v1: memory below ")


def test_a_living_host_is_not_swept_away() -> None:
    with offer_of_version_1():
        pass
    with running(HOST, "", "memory,pids", "1", "", cwd=REPOSITORY) as host:
        (paths,), _ = first_line(host)
        with offer_of_version_1():
            assert all(Path(path).is_dir() for path in paths)
        assert json.loads(go(host))[0] == [True]
        assert not any(Path(path).parent.exists() for path in paths)


@pytest.mark.parametrize("count", [1, 2])
def test_a_host_that_is_alone_in_its_group_steps_aside(delegated: Delegated, count: int) -> None:
    base, controllers = delegated.path, ",".join(delegated.controllers)
    with running(HOST, str(base), controllers, str(count), "", cwd=REPOSITORY) as host:
        paths, membership = first_line(host)
        assert membership == [f"0::/{base.name}/host"]
        assert all(Path(path).parents[1] == base for (path,) in paths)
        assert json.loads(go(host)) == [[True] * count, [f"0::/{base.name}"]]
        assert host.wait() == 0
    assert [path.name for path in base.iterdir() if path.is_dir()] == []
    assert cgroup_directory.read(base / "cgroup.subtree_control").split() == []


def test_a_host_that_was_killed_aside_does_not_hinder_the_next(delegated: Delegated) -> None:
    base, controllers = delegated.path, ",".join(delegated.controllers)
    with running(HOST, str(base), controllers, "1", "", cwd=REPOSITORY) as host:
        first_line(host)
        host.kill()
        host.wait()
    assert (base / "host").is_dir()
    # Its group hands controllers out now, so that the next cannot start in it: only elsewhere.
    with running(HOST, "", controllers, "1", str(base), cwd=REPOSITORY) as host:
        paths, _ = first_line(host)
        names = {path.name for path in base.iterdir() if path.is_dir()}
        assert names == {"host", Path(paths[0][0]).parent.name}
        assert json.loads(go(host))[0] == [True]


def test_a_host_does_not_move_others(delegated: Delegated) -> None:
    base, controllers = delegated.path, ",".join(delegated.controllers)
    with running(SLEEPER) as process:
        cgroup_directory.write(base / "cgroup.procs", str(process.pid))
        with running(HOST, str(base), controllers, "1", str(base), cwd=REPOSITORY) as host:
            reason, membership = first_line(host)
            assert host.wait() == 0
        if set(delegated.controllers) == {"pids"}:
            pytest.skip("the rule is not for the controller pids")
        text = f"v2: {base} cannot hand out its controllers: processes other than the host live"
        assert reason.startswith(text)
        assert f"(pid {process.pid})" in reason
        assert membership == [f"0::/{base.name}"]
        go(process)
        process.wait()
    assert [path.name for path in base.iterdir() if path.is_dir()] == []


def test_root_goes_to_the_root_of_the_hierarchy_instead(delegated: Delegated) -> None:
    base, controllers = delegated.path, ",".join(delegated.controllers)
    if set(delegated.controllers) == {"pids"}:
        pytest.skip("the rule is not for the controller pids")
    with running(SLEEPER) as process:
        cgroup_directory.write(base / "cgroup.procs", str(process.pid))
        with running(HOST, str(base), controllers, "1", "", cwd=REPOSITORY) as host:
            ((path,),), membership = first_line(host)
            assert Path(path).parents[1] == base.parent
            assert membership == [f"0::/{base.name}"]
            assert json.loads(go(host))[0] == [True]
            assert not Path(path).parent.exists()
        go(process)
        process.wait()


@pytest.mark.skipif(bool(ordinary_user.why_not()), reason=ordinary_user.why_not())
@pytest.mark.parametrize("inside", [True, False])
def test_delegation_to_an_ordinary_user(delegated: Delegated, inside: bool) -> None:
    base, controllers = delegated.path, ",".join(delegated.controllers)
    nobody = ordinary_user.NOBODY
    for path in (base, *(base / f"cgroup.{name}" for name in ("procs", "subtree_control"))):
        os.chown(path, nobody, nobody)
    with ordinary_user.readable_copy() as root:
        command = [str(ordinary_user.system_python()), "-s", "-c", HOST]
        with subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                'read go; exec "$@"',
                "sh",
                *command,
                "",
                controllers,
                "1",
                str(base),
            ],
            env={"PYTHONPATH": str(root / "tree"), "HOME": str(root / "own")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root / "own",
            user=nobody,
            group=nobody,
            extra_groups=[],
        ) as host:
            try:
                if inside:
                    cgroup_directory.write(base / "cgroup.procs", str(host.pid))
                told, membership = json.loads(go(host))
                if inside:
                    assert membership == [f"0::/{base.name}/host"]
                    assert json.loads(go(host)) == [[True], [f"0::/{base.name}"]]
                else:
                    assert told.startswith("v2: no process can be moved from the host's")
                assert host.wait() == 0
            finally:
                host.kill()
    assert [path.name for path in base.iterdir() if path.is_dir()] == []

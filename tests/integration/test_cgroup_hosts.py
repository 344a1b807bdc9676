"""Hosts and their control groups: where they make them, what they leave, whom they move.

In processes of their own, which move into groups and are killed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.backends.linux import cgroup_directory
from tests.support import ordinary_user
from tests.support.control_groups import (
    SLEEPER,
    Delegated,
    delegated_group,
    go,
    offer_of_version_1,
    running,
)

REPOSITORY = Path(__file__).parents[2]

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


def first_line(process: subprocess.Popen[str]):
    assert process.stdout
    return json.loads(process.stdout.readline())


@pytest.fixture
def delegated() -> Iterator[Delegated]:
    with delegated_group() as found:
        yield found


def test_a_killed_host_is_swept_away() -> None:
    with offer_of_version_1():
        pass
    with (
        running(HOST, "", "memory,pids", "1", "", cwd=REPOSITORY) as host,
        running(SLEEPER) as process,
    ):
        (paths,), _ = first_line(host)
        left = [Path(path) for path in paths]
        # Before it dies: what is empty then, any other test's host sweeps away.
        for path in left:
            cgroup_directory.write(path / "cgroup.procs", str(process.pid))
        host.kill()
        host.wait()
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

"""A host in unusual places: process 1 of a pid namespace, a control group of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox_host import SandboxHost
from sandbox_host.backends.linux.cgroup import Cgroup, Lacking, find_cgroups
from tests.support.host import Workshop
from tests.support.strikes import journey, stopping_plugin
from tests.support.survival import run_directories, why_not_taken
from tests.support.traces import eventually, groups_of, processes_of, still_there

pytestmark = pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root")

REPOSITORY = Path(__file__).parents[2]
AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--mount-proc"]
if os.geteuid() != 0:
    AS_PROCESS_1[1:1] = ["--user", "--map-current-user"]

NO_GROUPS = why_not_taken("group-made")
NEEDS_GROUPS = pytest.mark.skipif(bool(NO_GROUPS), reason=NO_GROUPS)

INTO_GROUPS = """
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec "$@"
"""


def run(by: list[str], module: str, *arguments: str) -> Any:
    done = subprocess.run(
        [*by, sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_process_1(workshop: Workshop, tmp_path: Path) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        active = sorted(host.load(workshop.write()).receipt.active)
    root = tmp_path / "inside"
    root.mkdir()
    told = run(AS_PROCESS_1, "tests.support.crashes", str(root), "6")
    assert told["pid"] == 1
    assert told["active"] == active


def test_killed_process_1(workshop: Workshop) -> None:
    """Nothing in its name says whose the directory is: each namespace has a process 1."""
    bundle = workshop.write("@operation\ndef spin():\n    while True:\n        pass\n")
    arguments = [str(workshop.trust_store), str(workshop.state_dir), str(bundle)]
    with subprocess.Popen(
        [*AS_PROCESS_1, sys.executable, "-m", "tests.support.lonely_host", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as unshare:
        assert unshare.stdout is not None
        assert json.loads(unshare.stdout.readline())
        (host,) = psutil.Process(unshare.pid).children()
        pids = processes_of(unshare.pid)
        host.kill()
        unshare.wait(timeout=20)
    assert len(pids) == 3
    assert still_there(pids) == set()
    (abandoned,) = run_directories(workshop)
    assert abandoned.startswith("1-")
    groups = groups_of(1)
    with SandboxHost.blocking(workshop.config()) as following:
        assert following.load(bundle).call("echo", 1) == 1
    assert run_directories(workshop) == []
    # Of other tests there may be some, which have a process 1 as well.
    assert eventually(lambda: not set(groups) & set(groups_of(1)))


@contextmanager
def group_of_its_own() -> Iterator[Cgroup]:
    """Make a group; where it is v1 in each hierarchy."""
    groups = find_cgroups(None)
    assert not isinstance(groups, Lacking)
    try:
        yield groups.create("place", 1 << 30, 500)
    finally:
        assert groups.close()


@NEEDS_GROUPS
def test_host_in_a_group_of_its_own(tmp_path: Path) -> None:
    with group_of_its_own() as group:
        into = ["sh", "-c", INTO_GROUPS, "sh", *map(str, group.paths), "--"]
        told = run(into, "tests.support.crashes", str(tmp_path), "6")
        found = {Path(path).parents[1] for path in told["groups"] if "neighbour" in path}
        assert found == set(group.paths)
        assert group.remove()


@NEEDS_GROUPS
def test_killed_host_in_a_group_of_its_own(workshop: Workshop, tmp_path: Path) -> None:
    """The next one in the same place sweeps away what it left."""
    bundle = stopping_plugin(workshop, "calling")
    told = {
        "trust_store": str(workshop.trust_store),
        "state_dir": str(workshop.state_dir),
        "step": "calling",
        "data_dir": str(workshop.data_dir("victim")),
        "bundle": str(bundle),
        "before": [],
        "config": {},
    }
    with group_of_its_own() as group:
        into = ["sh", "-c", INTO_GROUPS, "sh", *map(str, group.paths), "--"]
        command = [*into, sys.executable, "-m", "tests.support.struck_host", json.dumps(told)]
        killed = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        with killed:
            assert killed.stdout is not None
            assert still_there(json.loads(killed.stdout.readline())) == set()
        assert groups_of(killed.pid)
        root = tmp_path / "next"
        root.mkdir()
        run(into, "tests.support.crashes", str(root), "0")
        assert groups_of(killed.pid) == []
        assert group.remove()
    with SandboxHost.blocking(workshop.config()) as host:
        journey(host, bundle)
    assert run_directories(workshop) == []

"""SIGKILL of the host, of the nursery, of the plugin, at each step of a start: nothing is left.

What survives tells by an error of its own what happened, and starts the same plugin again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host import SandboxHost
from tests.support.host import Workshop
from tests.support.strikes import (
    ALL,
    BOOTING,
    CONFINING,
    LOCKING,
    RUNNING,
    journey,
    stopping_plugin,
)
from tests.support.survival import run_directories, struck, why_not_taken
from tests.support.traces import groups_of, still_there

pytestmark = [
    pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root"),
    pytest.mark.usefixtures("own_temporary"),
]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _taken(request: pytest.FixtureRequest) -> None:
    """Skip the steps that are not taken."""
    reason = why_not_taken(request.node.callspec.params.get("step", ""))
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="class")
def hosts() -> Iterator[subprocess.Popen[str]]:
    """What forks a host for each line that it is told, see `tests.support.struck_host`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.struck_host"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as forking:
        yield forking


class TestKilledHost:
    """What forks the hosts ends with these tests: others count the processes that they start."""

    @pytest.mark.parametrize("step", [s for s in ALL if s not in LOCKING[:-3]])
    def test_nothing_is_left(
        self, workshop: Workshop, hosts: subprocess.Popen[str], step: str
    ) -> None:
        bundle = stopping_plugin(workshop, step)
        told = {
            "trust_store": str(workshop.trust_store),
            "state_dir": str(workshop.state_dir),
            "step": step,
            "data_dir": str(workshop.data_dir("victim")),
            "bundle": str(bundle),
            "before": [] if step in BOOTING else [str(workshop.write(name="neighbour"))],
            "config": {},
        }
        assert hosts.stdin is not None
        assert hosts.stdout is not None
        print(json.dumps(told), file=hosts.stdin, flush=True)
        pids = json.loads(hosts.stdout.readline())
        killed, code = json.loads(hosts.stdout.readline())
        assert code == -signal.SIGKILL
        assert pids
        assert still_there(pids) == set()
        with SandboxHost.blocking(workshop.config()) as host:
            assert [name.split("-")[0] for name in run_directories(workshop)] == [str(os.getpid())]
            journey(host, bundle)
        assert run_directories(workshop) == []
        assert groups_of(killed) == []


@pytest.mark.parametrize("step", ALL)
def test_killed_nursery(workshop: Workshop, step: str) -> None:
    with struck(workshop, step) as host:
        host.survives_its_nursery()


@pytest.mark.parametrize("step", [*BOOTING, "forked", "locked-down", "calling"])
def test_killed_nursery_of_one_plugin(workshop: Workshop, step: str) -> None:
    with struck(workshop, step, start="exec") as host:
        host.survives_a_nursery_of_its_own()


@pytest.mark.parametrize("step", [*CONFINING, *LOCKING, *RUNNING])
def test_killed_plugin(workshop: Workshop, step: str) -> None:
    with struck(workshop, step) as host:
        host.survives_its_plugin()

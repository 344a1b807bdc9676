"""Nothing outlives the host, whatever kills it, and the next one cleans up after it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_host import SandboxHost
from tests.support.host import Workshop
from tests.support.traces import processes_of, still_there

pytestmark = pytest.mark.needs("landlock", "seccomp")

REPOSITORY = Path(__file__).parents[2]
SPIN = """
@operation
def spin():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


def start_lonely_host(workshop: Workshop, *bundles: Path) -> subprocess.Popen[str]:
    arguments = [str(workshop.trust_store), str(workshop.state_dir), *map(str, bundles)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.lonely_host", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_no_plugin_outlives_its_host(workshop: Workshop, how: signal.Signals) -> None:
    bundles = [workshop.write(SPIN, name=name) for name in ("one", "two")]
    with start_lonely_host(workshop, *bundles) as host:
        try:
            assert host.stdout is not None
            pids = json.loads(host.stdout.readline())
            assert set(pids) == {"one", "two"}
            started = processes_of(host.pid)
            assert started > set(pids.values())  # the nursery too
        finally:
            host.send_signal(how)
        host.wait(timeout=20)
        assert still_there(started) == set()


def test_next_host_removes_what_a_killed_one_left(workshop: Workshop) -> None:
    bundle = workshop.write(SPIN + "\nopen(context().scratch_dir + '/x', 'w').close()\n")
    with start_lonely_host(workshop, bundle) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.kill()
        killed.wait(timeout=20)
    run = workshop.state_dir / "run"
    (abandoned,) = run.iterdir()
    assert list((abandoned / "bundles").iterdir())
    with SandboxHost.blocking(workshop.config()) as host:
        assert abandoned not in run.iterdir()
        assert host.load(bundle).call("echo", 1) == 1
    assert list(run.iterdir()) == []


def test_two_hosts_share_a_state_directory_and_keep_each_others_files(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as first:
        plugin = first.load(workshop.write())
        with SandboxHost.blocking(workshop.config()) as second:
            assert second.load(workshop.write(name="other")).call("echo", 2) == 2
        assert plugin.call("echo", 1) == 1

"""Ways out, around and into trouble that reviewers found: each is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.backends.linux import backend as linux
from sandbox_host.errors import ConfinementError
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp", "own-root")

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
@operation
def change(how):
    status = os.stat("/proc/self/exe")
    if how == "mode":
        os.chmod("/proc/self/exe", status.st_mode)
    else:
        os.utime("/proc/self/exe", ns=(status.st_atime_ns, status.st_mtime_ns))
"""


@pytest.mark.parametrize("start", ["nursery", "exec"])
@pytest.mark.parametrize("how", ["mode", "times"])
def test_the_interpreters_file_is_out_of_reach(workshop: Workshop, start: str, how: str) -> None:
    """Its own magic link leads around the plugin's root; the mount it leads to is read-only."""
    with SandboxHost.blocking(workshop.config(start=start)) as host:
        plugin = host.load(workshop.write(PROGRAM))
        with pytest.raises(Exception, match="Read-only file system"):
            plugin.call("change", how)


@pytest.mark.parametrize("parent", [False, True], ids=["itself", "its parent"])
def test_a_granted_path_that_is_swapped_is_not_bound(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, parent: bool
) -> None:
    granted = workshop.root / "above" / "granted"
    granted.mkdir(parents=True)
    swapped = granted.parent if parent else granted
    compile_plan = linux.compile_plan

    def then_swap(*arguments: object) -> object:
        compiled = compile_plan(*arguments)  # type: ignore[arg-type]  # handed on
        swapped.rename(workshop.root / "old")
        swapped.symlink_to("/etc" if not parent else workshop.root / "old")
        return compiled

    monkeypatch.setattr(linux, "compile_plan", then_swap)
    grants = {"sample": {"read": [str(granted)]}}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        bundle = workshop.write(permissions={"read": [str(granted)]})
        with pytest.raises(ConfinementError, match="own-root") as caught:
            host.load(bundle)
    assert caught.value.layer == "own-root"


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="it closes directories to their owner")


@pytest.mark.parametrize("umask", [0o000, 0o077, pytest.param(0o777, marks=ROOT_ONLY)])
def test_the_umask_of_the_host_decides_nothing(workshop: Workshop, umask: int) -> None:
    bundle = workshop.write()
    old = os.umask(umask)
    try:
        with SandboxHost.blocking(workshop.config()) as host:
            loaded = host.load(bundle)
            os.umask(old)
            assert loaded.call("echo", 1) == 1
    finally:
        os.umask(old)


def test_an_application_may_ignore_the_end_of_children(workshop: Workshop) -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from sandbox_host import HostConfig, SandboxHost\n"
        "trust, state, bundle = sys.argv[1:]\n"
        "with SandboxHost.blocking(HostConfig(trust_store=trust, state_dir=state)) as host:\n"
        "    print(host.load(bundle).call('echo', 41))\n"
    )
    arguments = [workshop.trust_store, workshop.state_dir, workshop.write()]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.stdout == "41\n", done.stderr


def test_a_nursery_that_does_not_answer_costs_nobody_else(
    host: BlockingHost, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load is given up at its own deadline; plugins that run are not ended for it."""
    healthy = host.load(workshop.write(name="healthy"))
    late = workshop.write(name="late")
    launcher = host._core._launcher
    nursery = launcher._backend._nursery.pid
    os.kill(nursery, signal.SIGSTOP)
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr(launcher, "_config", workshop.config(start_timeout_seconds=0.5))
            with pytest.raises(ConfinementError, match="did not answer in"):
                host.load(late)
        assert healthy.call("echo", 1) == 1
    finally:
        os.kill(nursery, signal.SIGCONT)
    assert host.load(late).call("echo", 2) == 2
    assert healthy.call("echo", 3) == 3


def test_state_directory_of_odd_bytes(workshop: Workshop, load: Load) -> None:
    del load
    odd = workshop.root / "sp ace\tnew\nline ünï\\x"
    with SandboxHost.blocking(workshop.config(state_dir=odd)) as host:
        assert host.load(workshop.write()).call("echo", 1) == 1

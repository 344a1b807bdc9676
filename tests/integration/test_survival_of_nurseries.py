"""What a nursery's two stages, and the thread that starts them, may do to a host at worst."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox_host import SandboxHost
from sandbox_host.backends.linux import nursery
from sandbox_host.backends.linux.process import LinuxChild
from sandbox_host.errors import ConfinementError, PluginEndedError
from tests.support.host import Workshop
from tests.support.traces import is_running, left_since, traces

pytestmark = [
    pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root"),
    pytest.mark.usefixtures("own_temporary"),
]

REPOSITORY = Path(__file__).parents[2]
FIRST_STAGE_DIES = (
    "import os; import plugin_sdk.nursery.__main__ as stages; fork = stages.fork_sibling\n"
    "stages.fork_sibling = lambda flags: fork(flags) and os.kill(os.getpid(), 9); "
)


def test_first_stage_that_dies_before_it_tells_of_the_second(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, before = workshop.write(), traces()
    path, _, stages = nursery.BOOT.partition("from plugin_sdk")
    dying = f"{path}{FIRST_STAGE_DIES}from plugin_sdk{stages}"
    with SandboxHost.blocking(workshop.config()) as host:
        lone = traces()
        with monkeypatch.context() as patched:
            patched.setattr(nursery, "BOOT", dying)
            with pytest.raises(ConfinementError, match="ended while it was started"):
                host.load(bundle)
        assert not (left := left_since(lone)), left
        assert host.load(bundle).call("echo", 1) == 1
    assert not (left := left_since(before)), left


def test_restart_while_the_last_one_is_put_away(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds its user id leased still, to itself."""
    bundle = workshop.write("@operation\ndef leave():\n    os._exit(7)\n")
    go_on = threading.Event()
    close = LinuxChild.close

    def close_late(child: LinuxChild) -> None:
        assert go_on.wait(20)
        close(child)

    with SandboxHost.blocking(workshop.config(plugin_uids=(61_184, 1))) as host:
        first = host.load(bundle)
        ending = first._process
        owner = workshop.data_dir("sample").stat().st_uid
        with monkeypatch.context() as patched:
            patched.setattr(LinuxChild, "close", close_late)
            try:
                with pytest.raises(PluginEndedError):
                    first.call("leave")
                assert host.load(bundle).call("echo", 1) == 1
            finally:
                go_on.set()
            assert ending.ended.wait(20)
        assert workshop.data_dir("sample").stat().st_uid == owner


def test_host_outlives_the_thread_that_loaded(workshop: Workshop) -> None:
    """PR_SET_PDEATHSIG fires when the forking *thread* ends, which must not be the caller's."""
    with SandboxHost.blocking(workshop.config()) as host:
        thread = threading.Thread(target=host.load, args=(workshop.write(),))
        thread.start()
        thread.join()
        plugin = host.plugin("sample")
        assert plugin.call("echo", 1) == 1
        assert is_running(plugin.receipt.pid)
    assert not is_running(plugin.receipt.pid)


def test_host_outlives_the_main_thread(workshop: Workshop) -> None:
    """Threads of executors end when the main thread does, others do not."""
    arguments = [
        workshop.trust_store,
        workshop.state_dir,
        workshop.write(),
        workshop.write(name="b"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.headless_host", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.stderr, done.stdout.split()) == ("", ["1", "2", "3", "closed"])

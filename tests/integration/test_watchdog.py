"""The watchdog when the application, or the machine, takes away what it works with.

What an application does to its own process is done in another than the tests'.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.backends.linux.process import LinuxChild
from sandbox_host.errors import (
    AlreadyLoadedError,
    DeadlineExceededError,
    PluginEndedError,
)
from sandbox_host.runtime import warden
from tests.support.host import Load, Workshop
from tests.support.traces import eventually, is_running

pytestmark = pytest.mark.needs("landlock", "seccomp")

REPOSITORY = Path(__file__).parents[2]

SPIN = """
@operation
def spin():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""
LEAVE = "@operation\ndef leave():\n    os._exit(7)\n"

APPLICATION = """
import json, logging, os, sys, threading
from pathlib import Path
from sandbox_host import HostConfig, SandboxHost
from sandbox_host.errors import SandboxHostError

def tell(function, *args, **options):
    try:
        return type(function(*args, **options)).__name__
    except SandboxHostError as error:
        return [type(error).__name__, error.code, str(error)]

logging.basicConfig()
trust_store, state_dir, *bundles = map(Path, sys.argv[1:])
told = {}

def run():
    with SandboxHost.blocking(HostConfig(trust_store=trust_store, state_dir=state_dir)) as host:
        plugin = host.load(bundles[0])
        told["pid"] = plugin.receipt.pid
        calls = [threading.Thread(target=call, args=(plugin, n)) for n in range(2)]
        before(host, plugin, calls)
        for thread in calls:
            thread.join()
        told["state"] = plugin.state
        told["call"] = tell(plugin.call, "echo", 1)
        told["load"] = tell(host.load, bundles[1])

def call(plugin, n):
    told[f"waiting {n}"] = tell(plugin.call, "spin", deadline=1.0 if n == 0 else 60.0)

"""

RUN = """
told["leave"] = tell(run)
print(json.dumps(told), flush=True)
os._exit(0)
"""


def run_application(workshop: Workshop, before: str) -> tuple[dict[str, Any], str]:
    """Run an application that does something to itself; return what it met, and its log."""
    bundles = [workshop.write(SPIN), workshop.write(name="second")]
    arguments = [workshop.trust_store, workshop.state_dir, *bundles]
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION + before + RUN, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.stderr


def test_application_that_closes_all_descriptors(workshop: Workshop) -> None:
    """Everybody is answered with a typed error, and nothing new is taken."""
    told, log = run_application(
        workshop,
        "def before(host, plugin, calls):\n"
        "    for thread in calls:\n"
        "        thread.start()\n"
        "    while len(plugin._process.channel.outstanding()) < 2:\n"
        "        pass\n"
        "    os.closerange(3, 4096)\n",
    )
    assert [told[f"waiting {n}"][:2] for n in (0, 1)] == [["PluginEndedError", "ended"]] * 2
    assert told["state"] == "failed"
    assert told["call"][0] == "PluginEndedError"
    assert told["load"][0] == "ConfinementError"
    assert "Nothing is bounded in this host any more" in told["load"][2]
    assert told["leave"][0] == "UsageError"
    assert "the watchdog broke down" in log
    assert eventually(lambda: not is_running(told["pid"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_application_that_becomes_somebody_else(workshop: Workshop) -> None:
    """It may not signal its plugins any more, which must not let them run on."""
    told, _ = run_application(
        workshop,
        "def before(host, plugin, calls):\n"
        "    os.setgid(65534)\n"
        "    os.setuid(65534)\n"
        "    for thread in calls:\n"
        "        thread.start()\n",
    )
    assert told["waiting 0"][0] == "DeadlineExceededError"
    assert told["waiting 1"][0] == "PluginEndedError"
    assert told["state"] == "failed"
    assert told["call"][0] == "PluginEndedError"
    assert eventually(lambda: not is_running(told["pid"]))


@pytest.mark.needs("pid-namespace", "own-root")
def test_nursery_that_does_not_tell_of_an_end(
    workshop: Workshop, host: BlockingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits is answered; the name is free when the process has been seen to end."""
    monkeypatch.setattr(warden, "_DYING_SECONDS", 0.5)
    bundle = workshop.write(SPIN)
    plugin = host.load(bundle)
    (nursery,) = psutil.Process(plugin.receipt.pid).parents()[:1]
    nursery.suspend()
    try:
        with pytest.raises(DeadlineExceededError) as caught:
            plugin.call("spin", deadline=0.3)
        assert not caught.value.ended
        assert plugin.state == "failed"
        with pytest.raises(PluginEndedError, match="may live on"):
            plugin.call("echo", 1)
        with pytest.raises(AlreadyLoadedError, match=str(plugin.receipt.pid)):
            host.load(bundle)
    finally:
        if nursery.is_running():
            nursery.resume()
    assert eventually(lambda: plugin._process.gone)
    assert host.load(bundle).call("echo", 1) == 1


def test_closing_of_one_does_not_hide_another(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control groups and nurseries take long to end, and the keeper has others to look after."""
    go_on = threading.Event()
    close = LinuxChild.close

    def close_late(child: LinuxChild) -> None:
        assert go_on.wait(40)
        close(child)

    with SandboxHost.blocking(workshop.config()) as host, monkeypatch.context() as patched:
        load: Load = workshop.loader(host)
        first, other = load(LEAVE, name="first"), load(SPIN, name="other")
        patched.setattr(LinuxChild, "close", close_late)
        try:
            with pytest.raises(PluginEndedError, match="exit status 7"):
                first.call("leave")
            with pytest.raises(DeadlineExceededError) as caught:
                other.call("spin", deadline=0.3)
            assert caught.value.ended
            assert not first._process.ended.is_set()
        finally:
            go_on.set()
        assert all(plugin._process.ended.wait(20) for plugin in (first, other))

"""Plugins that hang, in every place where one can, and a host that has to close all the same."""

from __future__ import annotations

import threading
import time

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.errors import PluginEndedError, SandboxHostError
from sandbox_host.model import State
from tests.support.host import Workshop
from tests.support.traces import eventually, left_since, traces

pytestmark = [
    pytest.mark.needs("landlock", "seccomp"),
    pytest.mark.usefixtures("own_temporary"),
]

GRACE_SECONDS = 3.0

DEAF = """
def stay():
    open(context().data_dir + "/hangs", "w").close()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            pass
"""
ASLEEP = """
def stay():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    open(context().data_dir + "/hangs", "w").close()
    time.sleep(600)
"""
PLACES = {
    "operation": DEAF + "@operation\ndef work():\n    stay()\n",
    "handler": DEAF + "@on('work_due')\ndef work(event):\n    stay()\n",
    "hook": DEAF + "def cleanup():\n    stay()\n",
    "sleep": ASLEEP + "@operation\ndef work():\n    stay()\n",
}
GOOD = """
def cleanup():
    open(context().data_dir + "/cleaned", "w").close()
    return True
"""


def loaded_and_hanging(host: BlockingHost, workshop: Workshop, number: int) -> list[str]:
    """Load so many plugins, and have those hang that do so before they are to leave."""
    names = []
    for place, index in zip(list(PLACES) * number, range(number), strict=False):
        events = ["work_due"] if place == "handler" else []
        names.append(f"{place}_{index}")
        plugin = host.load(workshop.write(PLACES[place], name=names[-1], events=events))
        if place in ("operation", "sleep"):
            plugin.start("work")
    host.publish("work_due")
    for name in names:
        assert name.startswith("hook") or eventually((workshop.data_dir(name) / "hangs").exists)
    return names


def test_twenty_that_hang_take_one_grace_period(workshop: Workshop) -> None:
    before = traces()
    with SandboxHost.blocking(workshop.config(stop_timeout_seconds=GRACE_SECONDS)) as host:
        names = loaded_and_hanging(host, workshop, 20)
        host.load(workshop.write(GOOD, name="good"))  # the last one: it must not wait for them
        plugins = host.plugins
        began = time.monotonic()
    assert time.monotonic() - began < 2 * GRACE_SECONDS  # else some had a period after others
    assert all((workshop.data_dir(name) / "hangs").exists() for name in names)
    assert (workshop.data_dir("good") / "cleaned").exists()
    assert plugins["good"].state is State.STOPPED
    assert not (left := left_since(before)), left


def test_one_that_hangs_at_its_start_does_not_keep_the_host(workshop: Workshop) -> None:
    slow = "open(context().data_dir + '/hangs', 'w').close()\ntime.sleep(600)\n"
    errors = []

    def load() -> None:
        try:
            host.load(workshop.write(slow, name="slow"))
        except SandboxHostError as error:
            errors.append(error)

    with SandboxHost.blocking(workshop.config(stop_timeout_seconds=20.0)) as host:
        loading = threading.Thread(target=load)
        loading.start()
        assert eventually((workshop.data_dir("slow") / "hangs").exists)
        began = time.monotonic()
    assert time.monotonic() - began < 20.0  # it was not asked to leave: nothing of it is there yet
    loading.join(20)
    assert isinstance(errors[0], PluginEndedError)

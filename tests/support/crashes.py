"""A host in which two plugins crash and start again, in turn, and a third lives on.

No pytest in here: an ordinary user runs it as a script as well, ``python -m tests.support.crashes
DIRECTORY COUNT [START]``, which prints a line of JSON: ``pid``, ``active`` layers, ``groups``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from sandbox_host import BlockingHost, BlockingPlugin, Cause, SandboxHost, State
from sandbox_host.errors import PluginError, StartError
from sandbox_host.model import Receipt
from tests.support.host import Workshop
from tests.support.traces import (
    PROMISED_SECONDS,
    Traces,
    difference,
    eventually,
    left_since,
    steady,
    traces,
)

MIB = 1024 * 1024

GROWTH_BYTES = 4 * MIB
"""What host and nursery may take more after many crashes; once each, not for each crash."""

IDENTITIES = ("one", "two")
NEIGHBOUR = "neighbour"
UIDS = (61_184, len(IDENTITIES) + 1)
"""An id for each, and no more: a start that finds one taken still is refused."""

_CRASHING = """
import ctypes

held = []

@operation
def segfault():
    ctypes.string_at(8)

@operation
def abort():
    os.abort()

@operation
def leave():
    os._exit(7)

@operation
def hog():
    while True:
        held.append(bytearray(b"x") * (1 << 20))
"""
_FAILING = "raise RuntimeError('not today')"

CRASHES = {
    "segfault": Cause.CRASHED,
    "abort": Cause.CRASHED,
    "leave": Cause.EXITED,
    "kill": Cause.KILLED,
    "hog": Cause.MEMORY,
    "start": None,
}
"""Ways to crash, and the cause that the host tells; None where it does not even start."""


class Ward:
    """The host's plugins, and what they leave."""

    def __init__(self, host: BlockingHost, workshop: Workshop) -> None:
        self._host = host
        self._state_dir = workshop.state_dir
        self._crashed: list[threading.Event] = []
        limits = {"memory": 32 * MIB}
        self._crashing = {n: workshop.write(_CRASHING, name=n, limits=limits) for n in IDENTITIES}
        self._failing = {n: workshop.write(_FAILING, name=n) for n in IDENTITIES}
        self.neighbour = host.load(workshop.write(name=NEIGHBOUR))
        self._nursery = max(psutil.Process().children(), key=psutil.Process.create_time)

    def crash(self, identity: str, how: str) -> None:
        """Start a plugin and have it crash."""
        if CRASHES[how] is None:
            assert "not today" in _refusal(self._host, self._failing[identity])
            return
        plugin = self._host.load(self._crashing[identity])
        # Not the handle: it is some 30 KiB, and nothing of the host's.
        self._crashed.append(plugin._process.ended)
        if how == "kill":
            os.kill(plugin.receipt.pid, signal.SIGKILL)
        else:
            assert _ends(plugin, how)
        assert eventually(lambda: plugin.state is State.FAILED)
        assert plugin.cause is CRASHES[how], (how, plugin.cause)

    def crash_often(self, count: int) -> None:
        """Crash each plugin in each way, one after the other."""
        for identity, how in islice(zip(cycle(IDENTITIES), _unequally()), count):
            self.crash(identity, how)

    def traces(self) -> tuple[Traces, int, dict[str, int], list[str]]:
        """Return what is there when all that crashed has been cleaned up.

        Returns:
            What the host holds, how many descriptors the nursery has, who owns the data of each
            plugin, and the names of the plugins' private directories.
        """
        assert all(ended.wait(PROMISED_SECONDS) for ended in self._crashed)
        self._crashed.clear()
        self._host._core._janitor.submit(lambda: None).result()
        return steady(self._look)

    def _look(self) -> tuple[Traces, int, dict[str, int], list[str]]:
        owners = {path.name: path.stat().st_uid for path in (self._state_dir / "data").iterdir()}
        private = (self._state_dir / "run").glob("*/[bs]*/*-*")
        names = sorted(path.name.partition("-")[0] for path in private)
        return traces(), self._nursery.num_fds(), owners, names

    def memory(self) -> tuple[int, int]:
        """Return the resident size of host and nursery, in bytes."""
        return psutil.Process().memory_info().rss, self._nursery.memory_info().rss


def _refusal(host: BlockingHost, bundle: Path) -> str:
    try:
        return f"{host.load(bundle)} was loaded"
    except StartError as error:
        return str(error)


def _unequally() -> Any:
    # Their number is even as that of the plugins is: each would have its own ways only.
    return cycle([*CRASHES, *list(CRASHES)[1:]])


def _ends(plugin: BlockingPlugin, operation: str) -> bool:
    try:
        plugin.call(operation, deadline=20.0)
    except PluginError:
        return True
    return False


def check_that_crashes_leave_nothing(
    workshop: Workshop, count: int, **config: Any
) -> tuple[Receipt, tuple[Path, ...]]:
    """Have plugins crash ``count`` times; compare what there is with what was before.

    Returns:
        What confined the plugin that did not crash, and the control groups that there were.

    Raises:
        AssertionError: something is left, or has grown.
    """
    before = traces()
    options = {"plugin_uids": UIDS, **config}
    with SandboxHost.blocking(workshop.config(**options)) as host:
        ward = Ward(host, workshop)
        ward.crash_often(len(CRASHES) + 1)  # until everything that is made once is there
        (settled, *others), memory = ward.traces(), ward.memory()
        assert others[-1] == [NEIGHBOUR, NEIGHBOUR]
        ward.crash_often(count)
        # The nursery tells of an end before it closes what it held for it.
        eventually(lambda: ward.traces() == (settled, *others))
        now, *others_now = ward.traces()
        assert not (left := difference(now, settled)), left
        assert others_now == others
        grown = [held - was for held, was in zip(ward.memory(), memory, strict=True)]
        assert max(grown) < GROWTH_BYTES, grown
        assert ward.neighbour.call("echo", 1) == 1
    assert not (left := left_since(before)), left
    assert list((workshop.state_dir / "run").iterdir()) == []
    return ward.neighbour.receipt, now.groups


def main(root: str, count: str, start: str = "nursery") -> None:
    """Crash below a directory, and print what the host was and had."""
    own = Path(root, "temporary")
    own.mkdir()
    tempfile.tempdir = str(own)
    receipt, groups = check_that_crashes_leave_nothing(
        Workshop(Path(root)), int(count), start=start
    )
    told = {"pid": os.getpid(), "active": sorted(receipt.active), "groups": list(map(str, groups))}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

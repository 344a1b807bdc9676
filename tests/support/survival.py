"""A host whose nursery or plugin is killed at a step, and what has to be true afterwards.

No pytest in here: an ordinary user runs it as a script as well, ``python -m tests.support.survival
DIRECTORY VICTIM STEP...``, which prints one line of JSON: by step, what is wrong, or "".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from sandbox_host import BlockingHost, BlockingPlugin, Cause, SandboxHost, State
from sandbox_host.backends.linux.cgroup import Lacking, find_cgroups
from sandbox_host.errors import (
    AttestationError,
    ConfinementError,
    PluginEndedError,
    SandboxHostError,
)
from tests.support.host import Workshop
from tests.support.strikes import (
    BOOTING,
    CONFINING,
    DECIDING,
    LOCKING,
    armed,
    journey,
    nurseries_wait,
    stopping_plugin,
)
from tests.support.thrift import be_thrifty
from tests.support.traces import eventually, left_since, processes_of, still_there, traces

START_SECONDS = 15.0
"""The start timeout of these hosts: whoever waits for it has not noticed the strike."""

WITH_NURSERY = "ended with its nursery"
NURSERY, PLUGIN = "nursery", "plugin"


def why_not_taken(step: str) -> str:
    """Return why a start does not go through a step here, or ""."""
    if step.startswith("group-") and not _groups_can_be_made():
        return "no control group can be made here"
    if "uid" in step and os.geteuid() != 0:
        return "only root gives user ids"
    return ""


def _groups_can_be_made() -> bool:
    found = find_cgroups(None)
    if isinstance(found, Lacking):
        return False
    return found.close()


def run_directories(workshop: Workshop) -> list[str]:
    """Return the names of the private directories that hosts have in the workshop now."""
    return [path.name for path in (workshop.state_dir / "run").iterdir()]


@contextmanager
def struck(workshop: Workshop, step: str, **config: Any) -> Iterator[Struck]:
    """Yield a host that is to be struck at a step; see that nothing is left when it is closed."""
    before = traces()
    options = {"start_timeout_seconds": START_SECONDS, **config}
    with (
        nurseries_wait(step, workshop.data_dir("victim")),
        SandboxHost.blocking(workshop.config(**options)) as host,
    ):
        yield Struck(host, workshop, step)
    assert not (left := left_since(before)), left
    assert run_directories(workshop) == []


class Struck:
    """A host with a plugin that is killed while it starts, and a neighbour that lives already.

    Where the first nursery's own start is struck, there cannot be a neighbour yet.
    """

    def __init__(self, host: BlockingHost, workshop: Workshop, step: str) -> None:
        self._host = host
        self._step = step
        self._data_dir = workshop.data_dir("victim")
        self._bundle = stopping_plugin(workshop, step)
        self._neighbours_bundle = workshop.write(name="neighbour")
        self._alone = step in BOOTING and host._core.config.start == "nursery"
        if not self._alone:
            host.load(self._neighbours_bundle)
        self._before = processes_of(os.getpid())
        self._seen: set[int] = set()

    def survives_its_nursery(self) -> None:
        """Kill the nursery; the host tells it, also of the neighbour, and starts both again."""
        error = self._kill(_nursery)
        assert still_there(self._seen) == set()
        self._check_told(error, with_nursery=True)
        if not self._alone:
            neighbour = self._host.plugin("neighbour")
            assert eventually(lambda: neighbour.state is State.FAILED)
            assert neighbour.cause is Cause.KILLED
            assert WITH_NURSERY in _refusal(neighbour)
        journey(self._host, self._bundle)
        assert self._host.load(self._neighbours_bundle).call("echo", 1) == 1

    def survives_a_nursery_of_its_own(self) -> None:
        """Kill the nursery that only the plugin has; the neighbour does not notice."""
        error = self._kill(_nursery)
        self._check_told(error, with_nursery=True)
        self._check_unharmed()

    def survives_its_plugin(self) -> None:
        """Kill the plugin; the host tells it, and the neighbour does not notice."""
        error = self._kill(self._plugin)
        self._check_told(error, with_nursery=False)
        self._check_unharmed()

    def _check_unharmed(self) -> None:
        assert still_there(self._seen - self._before) == set()
        journey(self._host, self._bundle)
        assert still_there(self._before, 0.0) == self._before
        assert self._host.plugin("neighbour").call("echo", 1) == 1

    def _kill(self, choose: Callable[[], int]) -> SandboxHostError | None:
        """Kill one process at the step; return what the host said, before it got impatient."""

        def strike() -> None:
            victim = choose()
            self._seen = processes_of(os.getpid())
            os.kill(victim, signal.SIGKILL)
            # So that what the host meets next does not depend on how fast the kernel is.
            still_there([victim])

        error, began = None, time.monotonic()
        with armed(self._step, self._data_dir, strike) as was_struck:
            try:
                journey(self._host, self._bundle)
            except SandboxHostError as caught:
                error = caught
            assert was_struck()
        assert time.monotonic() - began < START_SECONDS, "nobody noticed"
        return error

    def _plugin(self) -> int:
        (pid,) = {child.pid for child in psutil.Process(_nursery()).children()} - self._before
        return pid

    def _check_told(self, error: SandboxHostError | None, *, with_nursery: bool) -> None:
        told = f"{type(error).__name__}: {error}"
        assert type(error) in self._expected(), told
        if isinstance(error, PluginEndedError):
            assert error.cause is Cause.KILLED, told
            assert (WITH_NURSERY in str(error)) is with_nursery, told

    def _expected(self) -> set[type[BaseException]]:
        if self._step == "unloading":
            return {type(None)}  # it is gone, which is what was asked for
        if self._step in {"layers-tried", "nursery-booted", *DECIDING}:
            return {ConfinementError, type(None)}  # another nursery was booted at once
        if self._step == "order-sent":
            return {ConfinementError, AttestationError}  # it had begun, or had even finished
        if self._step in {"locked-down", "group-joined"}:
            return {AttestationError}
        early = (*BOOTING, *CONFINING[: CONFINING.index("locked-down")], *LOCKING)
        return {ConfinementError if self._step in early else PluginEndedError}


def _refusal(plugin: BlockingPlugin) -> str:
    try:
        return f"it answered {plugin.call('echo', 1)}"
    except PluginEndedError as error:
        return str(error)


def _nursery() -> int:
    """Return the youngest child: of the two stages of a nursery the second."""
    return max(psutil.Process().children(), key=lambda child: child.create_time()).pid


def _fault(root: Path, victim: str, step: str) -> str:
    try:
        with struck(Workshop(root), step) as host:
            if victim == NURSERY:
                host.survives_its_nursery()
            else:
                host.survives_its_plugin()
    except AssertionError as error:
        return f"{error!r} at line {error.__traceback__ and error.__traceback__.tb_lineno}"
    return ""


def main(root: str, victim: str, *steps: str) -> None:
    """Strike at each step, and print by step what is wrong."""
    be_thrifty()
    own = Path(root, "temporary")
    own.mkdir()
    tempfile.tempdir = str(own)
    faults = {}
    for step in steps:
        if not why_not_taken(step):
            directory = Path(root, step)
            directory.mkdir()
            faults[step] = _fault(directory, victim, step)
    print(json.dumps(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])

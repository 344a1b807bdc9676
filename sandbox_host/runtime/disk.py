"""Measures the data directories of all plugins in turn, in one thread, and ends who holds too much.

This comes after the fact: what is written between two looks is not held back. Looking takes time
in proportion to the number of files, and so does the pause before the next look, up to a bound.
How long it is beyond that is left to chance, so that a plugin cannot be tidy when it is looked at.

A look at a plugin that runs proves nothing if names changed meanwhile: a file that was moved into a
directory that was counted already is missed, one that was moved out of it is counted twice, and of
two that followed each other both are counted, which an honest cache or database does all day. No
sum over such a look is fair to the one plugin and safe against the other. So nobody is ended for
it. It is repeated while the plugin is stopped (SIGSTOP), if it found too much, or was the second in
a row that something changed under: of what cannot run nothing changes, and what is counted then is
what there is. That costs a busy plugin the time of a look, at every other one; it is told nothing,
and cannot know beforehand. A stopped process can end no system call but the one it is in; one look
more suffices for that.

A plugin that may start processes is stopped with all of them. What changes although it is stopped
is changed by processes that it must not have (without the seccomp layer nobody keeps it from
forking), and a part that cannot be read it must not make: after some looks in a row that ended so,
it is ended.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sandbox_host.budget.disk import DiskUse, judge_disk, measure
from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.model import Cause
from sandbox_host.trees import SETTLING_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.model import Limits

_log = logging.getLogger("sandbox_host")

PAUSE_SECONDS: Final = 1.0
"""At least so long between two looks at one plugin."""

MAX_PAUSE_SECONDS: Final = 5.0
"""At most so long, besides what looking at others takes."""

TOGETHER_SECONDS: Final = 0.05
"""Those whose turns come within so long are looked at in a row: waking up costs more than most."""

_PAUSE_FACTOR: Final = 50.0
_JITTER: Final = 1.6
_DOUBTS: Final = 2
"""Looks in a row at which a tree changed; from this one on the plugin is stopped for another."""

_MAX_MOVED: Final = 5
"""Looks in a row at which a tree could not be measured, stopped or not."""


class Measured(Protocol):
    """A plugin, as far as its disk is concerned."""

    @property
    def identity(self) -> str:
        """Its name."""

    @property
    def data_dir(self) -> Path:
        """Its data directory."""

    @property
    def limits(self) -> Limits:
        """Its budgets."""

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used: where that stands, it has written nothing."""

    def unlinked_bytes(self, device: int) -> int:
        """Return what it holds open on a device that has no name any more."""

    def suspend(self) -> None:
        """Let it run no more, for now; harmless when it has ended."""

    def resume(self) -> None:
        """Let it run again."""

    def exceeded(self, excess: Excess) -> None:
        """End it for an excess."""


@dataclass(slots=True)
class _Turn:
    """When to look again.

    Attributes:
        doubts: looks in a row at which a tree changed.
        cpu: what it had used before a look that found all in order; -1 if there was none.
    """

    due: float
    doubts: int = 0
    cpu: float = -1.0


class DiskWatch:
    """One thread for all plugins of a host, started with the first. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: dict[Measured, _Turn] = {}
        self._order: list[tuple[float, int, Measured]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, plugin: Measured) -> None:
        """Look at a plugin from now on."""
        with self._changed:
            self._turns[plugin] = _Turn(time.monotonic())
            self._line_up(plugin)
            if self._thread is None and not self._closed:
                name = "sandbox-host-disk"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()

    def _line_up(self, plugin: Measured) -> None:
        heapq.heappush(self._order, (self._turns[plugin].due, next(self._numbers), plugin))

    def remove(self, plugin: Measured) -> None:
        """Look at it no more; a look that has begun may still end."""
        with self._changed:
            if self._turns.pop(plugin, None) is not None:
                # Now, not when its turn comes: what has ended is not to be kept for that long.
                self._order = [turn for turn in self._order if turn[2] is not plugin]
                heapq.heapify(self._order)

    def close(self) -> None:
        """End the thread; waits for a look that has begun."""
        with self._changed:
            self._closed = True
            self._turns.clear()
            self._order.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while (plugin := self._next()) is not None:
            began = time.monotonic()
            excess = None
            try:
                excess = self._look_if_it_ran(plugin)
            except Exception:  # noqa: BLE001 - whatever it is
                # The fault of one must not leave the others unwatched.
                _log.exception("%s: its data directory could not be measured", plugin.identity)
            took = time.monotonic() - began
            with self._changed:
                turn = self._turns.get(plugin)
                if turn is not None:
                    turn.due = time.monotonic() + _pause(took)
                    self._line_up(plugin)
            if excess is not None:
                self.remove(plugin)
                with contextlib.suppress(Exception):  # told by whoever ends it
                    plugin.exceeded(excess)

    def _next(self) -> Measured | None:
        """Wait for the next plugin to look at; None when there will be none."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                due, _, plugin = self._order[0] if self._order else (None, 0, None)
                if due is not None and due > now:
                    self._changed.wait(max(due - now, TOGETHER_SECONDS))
                elif plugin is None:
                    self._changed.wait()
                else:
                    heapq.heappop(self._order)
                    turn = self._turns.get(plugin)
                    if turn is not None and turn.due == due:  # else it was removed meanwhile
                        return plugin
        return None

    def _look_if_it_ran(self, plugin: Measured) -> Excess | None:
        """Look at a plugin, unless all was in order and it has not run since."""
        cpu = plugin.cpu_seconds()
        with self._changed:
            turn = self._turns.get(plugin)
            if turn is None or turn.cpu == cpu:
                return None
        excess = self._look(plugin)
        with self._changed:
            turn.cpu = cpu if excess is None and not turn.doubts else -1.0
        return excess

    def _look(self, plugin: Measured) -> Excess | None:
        limits = plugin.limits
        try:
            use = _measure(plugin, looks=1)
            if use.complete and judge_disk(limits, use) is None:
                self._doubted(plugin, times=0)
                return None
            doubts = self._doubted(plugin, times=1)
            if doubts < _DOUBTS and judge_disk(limits, use) is None:
                return None
            use = _measure_stopped(plugin)
        except FileNotFoundError:
            return None
        excess = judge_disk(limits, use)
        if use.complete or use.files > limits.data_files:  # then counting ended, and that is told
            self._doubted(plugin, times=0)
            return excess
        if doubts < _MAX_MOVED:
            return None
        return excess or Excess(Step.END, Cause.DISK, "data", limits.data_bytes, use.bytes, "bytes")

    def _doubted(self, plugin: Measured, times: int) -> int:
        with self._changed:
            turn = self._turns.get(plugin)
            if turn is None:
                return 0
            turn.doubts = turn.doubts + times if times else 0
            return turn.doubts


def _pause(took: float) -> float:
    """Return how long to wait after a look, in seconds; never twice the same."""
    base = min(max(PAUSE_SECONDS, took * _PAUSE_FACTOR), MAX_PAUSE_SECONDS / _JITTER)
    return base * random.SystemRandom().uniform(1.0, _JITTER)


def _measure(plugin: Measured, looks: int) -> DiskUse:
    """Return what it holds with a name, and open without one.

    Raises:
        OSError: it cannot be measured.
    """
    use = measure(plugin.data_dir, plugin.limits.data_files, looks)
    unlinked = plugin.unlinked_bytes(os.stat(plugin.data_dir).st_dev)
    return DiskUse(use.bytes + unlinked, use.files, use.complete)


def _measure_stopped(plugin: Measured) -> DiskUse:
    try:
        plugin.suspend()
        time.sleep(SETTLING_SECONDS)  # for the calls that it is in, and for their time stamps
        return _measure(plugin, looks=3)
    finally:
        plugin.resume()

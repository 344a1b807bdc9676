"""Measures the data directories of all plugins in turn, in one thread, and ends who holds too much.

This comes after the fact: what is written between two looks is not held back. Looking takes time
in proportion to the number of files, so the pause before the next look does too: all of it together
stays below a few per cent of one CPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sandbox_host.budget.disk import DiskUse, judge_disk, measure
from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.model import Cause

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.model import Limits

_log = logging.getLogger("sandbox_host")

PAUSE_SECONDS: Final = 1.0
"""At least so long between two looks at one plugin."""

_PAUSE_FACTOR: Final = 50.0
_MAX_MOVED: Final = 5
"""Looks in a row at which a tree was moved about so that it could not be measured."""


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

    def unlinked_bytes(self, device: int) -> int:
        """Return what it holds open on a device that has no name any more."""

    def exceeded(self, excess: Excess) -> None:
        """End it for an excess."""


@dataclass(slots=True)
class _Turn:
    due: float
    moved: int = 0


class DiskWatch:
    """One thread for all plugins of a host, started with the first. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: dict[Measured, _Turn] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, plugin: Measured) -> None:
        """Look at a plugin from now on."""
        with self._changed:
            self._turns[plugin] = _Turn(time.monotonic())
            if self._thread is None and not self._closed:
                name = "sandbox-host-disk"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()

    def remove(self, plugin: Measured) -> None:
        """Look at it no more; a look that has begun may still end."""
        with self._changed:
            self._turns.pop(plugin, None)

    def close(self) -> None:
        """End the thread; waits for a look that has begun."""
        with self._changed:
            self._closed = True
            self._turns.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while (plugin := self._next()) is not None:
            began = time.monotonic()
            excess = None
            try:
                excess = self._look(plugin)
            except Exception:  # noqa: BLE001 - whatever it is
                # The fault of one must not leave the others unwatched.
                _log.exception("%s: its data directory could not be measured", plugin.identity)
            took = time.monotonic() - began
            with self._changed:
                turn = self._turns.get(plugin)
                if turn is not None:
                    turn.due = time.monotonic() + max(PAUSE_SECONDS, took * _PAUSE_FACTOR)
            if excess is not None:
                self.remove(plugin)
                with contextlib.suppress(Exception):  # told by whoever ends it
                    plugin.exceeded(excess)

    def _next(self) -> Measured | None:
        """Wait for the next plugin to look at; None when there will be none."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                plugin = min(self._turns, key=lambda one: self._turns[one].due, default=None)
                if plugin is not None and self._turns[plugin].due <= now:
                    return plugin
                self._changed.wait(None if plugin is None else self._turns[plugin].due - now)
        return None

    def _look(self, plugin: Measured) -> Excess | None:
        limits = plugin.limits
        try:
            use = measure(plugin.data_dir, limits.data_files)
            device = os.stat(plugin.data_dir).st_dev
        except FileNotFoundError:
            return None
        total = DiskUse(use.bytes + plugin.unlinked_bytes(device), use.files, use.complete)
        excess = judge_disk(limits, total)
        if excess is not None or use.complete:
            self._moved(plugin, times=0)
            return excess
        if self._moved(plugin, times=1) < _MAX_MOVED:
            return None
        return Excess(Step.END, Cause.DISK, "data", limits.data_bytes, use.bytes, "bytes")

    def _moved(self, plugin: Measured, times: int) -> int:
        with self._changed:
            turn = self._turns.get(plugin)
            if turn is None:
                return 0
            turn.moved = turn.moved + times if times else 0
            return turn.moved

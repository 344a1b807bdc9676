"""A plugin's place in its host, whichever process stands in it now: what a handle holds on to.

A process ends and another takes its place: after a crash, or when a new version is loaded. Who
holds a handle goes on calling; while the place is empty and somebody is to come, calls wait.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox_host.runtime.process import PluginProcess


class Slot:
    """One plugin's. Methods may be called from any thread.

    Attributes:
        identity: the plugin's.
        process: the one that stands there, or stood there last.
    """

    def __init__(self, process: PluginProcess) -> None:
        self.identity = process.identity
        self.process = process
        self._changed = threading.Condition()
        self._expecting: Callable[[PluginProcess], bool] | None = None
        self._held = False
        self._waiting: list[Callable[[], object]] = []

    def expect(self, expecting: Callable[[PluginProcess], bool] | None) -> None:
        """Have calls wait where this says that another process will take an ended one's place."""
        self._expecting = expecting
        self._tell()

    @property
    def empty(self) -> bool:
        """Nobody takes calls there now, and somebody will: the process has ended, or hands over."""
        expecting, process = self._expecting, self.process
        if self._held:
            return True
        return expecting is not None and process.life.over and expecting(process)

    def take(self, process: PluginProcess) -> None:
        """Put a process there."""
        self.process = process
        self._tell()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have calls wait inside the block, although a process stands there."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._tell()

    def changed(self) -> None:
        """Have those who wait look again: it may be that nobody comes."""
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def wait(self, until: float) -> None:
        """Block until somebody stands there, or nobody will, or this monotonic time has come."""
        with self._changed:
            while self.empty and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def on_change(self, wake: Callable[[], object]) -> None:
        """Call this once, from any thread, when something has changed; at once if it has."""
        with self._changed:
            if self.empty:
                self._waiting.append(wake)
                return
        wake()

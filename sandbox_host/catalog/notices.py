"""The kernel's word that something happened in a plugin directory, by the library watchdog.

It is a hint and nothing more: which names to look at now rather than at the next scan. Only the
plugin directory itself is watched, not what is below it, so that it takes one inotify watch and
three threads however many files its plugins have. Whoever floods it with notices costs a bounded
number of them: then nothing is listened to for a while, and scans alone see what happens.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.catalog.fingerprint import is_tools_own

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

MAX_NOTICES: Final = 500
"""In a second; more are a flood. A copy of a plugin into the directory makes a handful."""

MAX_NAMES: Final = 1_000
"""That are kept for the next look; where there are more, everything is looked at."""

DEAF_SECONDS: Final = 30.0
"""After a flood, and twice as long after the next, up to `MAX_DEAF_SECONDS`."""

MAX_DEAF_SECONDS: Final = 600.0

FLOODED: Final = "so much happens in it at once that the kernel's notices are not listened to"


class Notices:
    """Listens to one plugin directory. To be used by one thread; notices come in another.

    Args:
        directory: the plugin directory.
        wake: called, from another thread, when there is something to take.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        directory: Path,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._real = os.path.realpath(directory)
        self._wake = wake
        self._clock = clock
        self._lock = threading.Lock()
        self._names: set[str] | None = set()
        self._count = 0
        self._window = clock()
        self._flooded = False
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._deaf_until = 0.0
        self._deaf_seconds = DEAF_SECONDS

    @property
    def listening(self) -> bool:
        """Whether notices come."""
        return self._observer is not None

    def tend(self, identity: tuple[int, int]) -> str:
        """Listen, unless it does so already; return why that is not possible, or "".

        Args:
            identity: device and inode of the plugin directory: a watch stays with the directory
                that it was made for, when another one takes its name.
        """
        now = self._clock()
        if self._flooded:
            self.stop()
            self._flooded = False
            self._deaf_until = now + self._deaf_seconds
            self._deaf_seconds = min(self._deaf_seconds * 2, MAX_DEAF_SECONDS)
        if now < self._deaf_until:
            return FLOODED
        if self.listening and identity != self._identity:
            self.stop()
        if not self.listening:
            return self._start(identity)
        return ""

    def _start(self, identity: tuple[int, int]) -> str:
        # Here, because it takes its time, and most commands watch nothing.
        from watchdog import events
        from watchdog.observers import Observer

        # Not those of opening and closing: our own looks would be told to us, and looked at.
        wanted: list[type[FileSystemEvent]] = [
            *(events.FileCreatedEvent, events.FileDeletedEvent, events.FileMovedEvent),
            *(events.DirCreatedEvent, events.DirDeletedEvent, events.DirMovedEvent),
            *(events.FileModifiedEvent, events.FileClosedEvent),
        ]
        handler = events.FileSystemEventHandler()
        handler.dispatch = self._noted  # type: ignore[method-assign]  # all of them, unsorted
        self._window, self._count = self._clock(), 0
        self._real = os.path.realpath(self._directory)
        observer: BaseObserver | None = None
        try:
            observer = Observer()
            observer.schedule(handler, self._real, event_filter=wanted)
            observer.start()
        except (OSError, RuntimeError) as error:  # no watches, descriptors or threads are left
            if observer is not None:
                observer.stop()  # it has a thread before it is started
            return f"the kernel gives no notices of it ({getattr(error, 'strerror', '') or error})"
        self._observer, self._identity = observer, identity
        with self._lock:
            self._names = None  # what happened before the watch was there
        return ""

    def stop(self) -> None:
        """Listen no more; a second time does nothing."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join()

    def take(self) -> set[str] | None:
        """Return the names that something happened to since the last time; None for all of them."""
        with self._lock:
            names, self._names = self._names, set()
        return names

    def _noted(self, event: FileSystemEvent) -> None:
        if self._flooded:
            return
        now = self._clock()
        if now - self._window >= 1:
            self._window, self._count = now, 0
        self._count += 1
        if self._count > MAX_NOTICES:
            self._flooded = True
            self._wake()
            return
        names = {self._name(event.src_path), self._name(event.dest_path)} - {""}
        if names:
            self._keep(names)
            self._wake()

    def _keep(self, names: set[str]) -> None:
        with self._lock:
            if self._names is not None:
                self._names |= names
                if len(self._names) > MAX_NAMES:
                    self._names = None

    def _name(self, path: bytes | str) -> str:
        """Return the name of a path in the directory that may be a plugin's, or ""."""
        parent, name = os.path.split(os.fsdecode(path))
        return name if parent == self._real and not is_tools_own(name) else ""

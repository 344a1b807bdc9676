"""The plugins' data directories, for their operator: listed, measured, removed.

What a plugin left there is nowhere followed or opened, except for directories. A directory is
removed in two steps: it gets a name that no plugin can have, at once and as a whole, and is then
emptied, which may take long. What an interrupted removal left has that name, and is swept when a
host starts or somebody looks after the directories.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import secrets
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.disk import DiskUse, measure
from sandbox_host.errors import (
    ConfigError,
    PluginNotFoundError,
    SandboxHostError,
    UsageError,
)
from sandbox_host.model import identity_of
from sandbox_host.reading import escaped, quoted
from sandbox_host.runtime.data_locks import LOCKS, DataLocks, Lease
from sandbox_host.runtime.removal import STEP_SECONDS, Left, Removal
from sandbox_host.runtime.store import remove_store
from sandbox_host.runtime.workspace import check_private, private_directory
from sandbox_host.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

_log = logging.getLogger("sandbox_host")

MAX_MEASURED_FILES: Final = 1_000_000
"""Counting ends behind so many names, which takes some seconds."""

REMOVE_SECONDS: Final = 300.0
"""Behind so long the rest of a directory is left, to be swept the next time."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}(@[a-z][a-z0-9_]{0,31})?")
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9_]{0,127}(@[a-z][a-z0-9_]{0,31})?")
"""Twice as long as a name may be: every letter of a name may get an underscore."""

_REMOVED: Final = ".removed-"
_SHOWN: Final = 80
_MAX_FOREIGN: Final = 20


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A plugin's data directory.

    Attributes:
        identity: the plugin's.
        path: where it is.
        bytes: allocated on disk, directories included; a sparse file is as small as it is, and a
            file with several names counts once, as it does for the plugin's budget. Files that
            were removed and are still open are not among them.
        files: names of every kind, directories included.
        complete: False where there are more than `MAX_MEASURED_FILES`, something changed while it
            was counted, or a part could not be read: it may hold more.
        loaded: a host with this state directory, this or another, has the plugin loaded.
        host: process of that host, as that host sees it; None where nobody has.
        limit_bytes: what the plugin may have, by its last load; None where that is not known.
        limit_files: likewise.
        last_used: when the plugin was last loaded or ended; None where that is not known.
        fault: why it cannot be measured, such as that a link stands there; "" where it can.
    """

    identity: str
    path: Path
    bytes: int
    files: int
    complete: bool
    loaded: bool
    host: int | None
    limit_bytes: int | None
    limit_files: int | None
    last_used: datetime | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class RemovedData:
    """What became of a data directory.

    Attributes:
        identity: the plugin's; the name is free, whatever is left.
        removed: files and directories that are gone.
        left: what could not be removed, and why; it is tried again at the next sweep.
    """

    identity: str
    removed: int
    left: tuple[Left, ...]


class DataDirectories:
    """The data directories below one state directory. Thread-safe.

    Args:
        state_dir: the host's; nothing is made there before something is to be removed.
        locks: those of a host; without one, locks of one's own.
        tell: takes event, identity and detail for the journal.
    """

    def __init__(
        self,
        state_dir: Path,
        locks: DataLocks | None = None,
        tell: Callable[[str, str, str], object] = lambda *_: None,
    ) -> None:
        self._locks_dir = state_dir / LOCKS
        self._data = state_dir / "data"
        self._locks = locks or DataLocks(self._locks_dir)
        self._tell = tell
        self._stop = threading.Event()
        self._sweeper: threading.Thread | None = None

    # -- looking ----------------------------------------------------------------------------

    def measure(self) -> tuple[DataDirectory, ...]:
        """Return all of them, by identity; takes a second for some 100,000 files.

        Raises:
            ConfigError: the state directory cannot be used.
        """
        return tuple(self._measure(name) for name in self._names() if _IDENTITY.fullmatch(name))

    def measure_one(self, name: str) -> DataDirectory:
        """Return that of one plugin, in whichever spelling of its name.

        Raises:
            UsageError: no plugin can have that name.
            PluginNotFoundError: it has none.
            ConfigError: the state directory cannot be used.
        """
        return self._measure(self._find(name))

    def foreign(self) -> tuple[str, ...]:
        """Return names in there that are no plugin's, escaped; at most 20.

        Raises:
            ConfigError: the state directory cannot be used.
        """
        odd = (n for n in self._names() if not (_IDENTITY.fullmatch(n) or n.startswith(_REMOVED)))
        return tuple(escaped(name, _SHOWN) for name in itertools.islice(odd, _MAX_FOREIGN))

    def _names(self) -> list[str]:
        try:
            for path in (self._data.parent, self._data):
                check_private(path)
            return sorted(os.listdir(self._data))
        except FileNotFoundError:
            return []  # no host has been here yet
        except OSError as error:
            text = f"The state directory {self._data.parent} cannot be used: {_why(error)}."
            raise ConfigError(text, remedy="Name the host's own, and be its user.") from error

    def _find(self, name: str) -> str:
        """Return the identity of a plugin that has a data directory."""
        if not _NAME.fullmatch(name):
            text = f"{quoted(name)} is no plugin's name, and no data directory is called so."
            remedy = 'A name has ASCII letters, digits and "_", and begins with a letter.'
            raise UsageError(text, remedy=remedy)
        identity = identity_of(name)
        if identity not in self._names():
            text = f"There is no data directory of {identity} in {self._data}."
            remedy = "`sandbox-host data list` shows those that there are."
            raise PluginNotFoundError(text, plugin=identity, remedy=remedy)
        return identity

    def _measure(self, identity: str) -> DataDirectory:
        path = self._data / identity
        use, lease, fault = DiskUse(0, 0, complete=False), Lease(), ""
        try:
            lease = self._locks.look(identity)
            _check_directory(path)
            use = measure(path, MAX_MEASURED_FILES)
        except OSError as error:
            fault = _why(error)
        return DataDirectory(
            identity=identity,
            path=path,
            bytes=use.bytes,
            files=use.files,
            complete=use.complete,
            loaded=lease.held,
            host=lease.pid if lease.held else None,
            limit_bytes=lease.data_bytes,
            limit_files=lease.data_files,
            last_used=lease.changed,
            fault=fault,
        )

    # -- removing ---------------------------------------------------------------------------

    def remove(self, name: str) -> RemovedData:
        """Remove a plugin's data directory, whatever it holds, in at most `REMOVE_SECONDS`.

        Its store is removed with it.

        Raises:
            UsageError: no plugin can have that name.
            PluginNotFoundError: it has no data directory.
            DataInUseError: a host has the plugin loaded; nothing was removed.
            ConfigError: what stands there is no directory, or cannot get another name; nothing was
                removed.
            JournalError: it cannot be written down; nothing was removed.
        """
        identity = self._find(name)
        path = self._data / identity
        with contextlib.ExitStack() as held:
            try:
                private_directory(self._locks_dir)
                data = _open(held, self._data)
                with self._locks.holding(identity):
                    doomed = self._rename(held, data, identity)
                removal = held.enter_context(Removal(doomed, dir_fd=data))
            except OSError as error:
                text = f"The data directory {path} cannot be removed: {_why(error)}."
                remedy = "Look at what stands there, and remove it by hand."
                raise ConfigError(text, remedy=remedy) from error
            removal.run(REMOVE_SECONDS)
            return RemovedData(identity, removal.removed, _below(doomed, removal.left))

    def _rename(self, held: contextlib.ExitStack, data: int, identity: str) -> str:
        """Take the name from a directory that nobody uses; return the new one."""
        _check_directory(self._data / identity)
        top = _open(held, identity, data)
        with contextlib.suppress(OSError):
            # Tells a sweep that somebody is at it already, and no more than that.
            fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = f"{_REMOVED}{secrets.token_hex(8)}"
        self._tell("data_removal", identity, doomed)
        remove_store(self._data.parent, identity)
        os.rename(identity, doomed, src_dir_fd=data, dst_dir_fd=data)
        return doomed

    def sweep(self) -> tuple[Left, ...]:
        """Remove what removals left that were interrupted, or could not remove something.

        Returns:
            What cannot be removed now either, with its path below the data directories.

        Raises:
            ConfigError: the state directory cannot be used.
        """
        left: list[Left] = []
        for name in self._names():
            if name.startswith(_REMOVED) and not self._stop.is_set():
                try:
                    left += self._sweep(name)
                except FileNotFoundError:
                    continue  # somebody else was faster
                except OSError as error:
                    left.append(Left(escaped(name, _SHOWN), _why(error)))
        return tuple(left)

    def _sweep(self, name: str) -> tuple[Left, ...]:
        with contextlib.ExitStack() as held:
            data = _open(held, self._data)
            top = _open(held, name, data)
            try:
                fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return ()  # somebody is at it
            removal = held.enter_context(Removal(name, dir_fd=data))
            while not (self._stop.is_set() or removal.step(STEP_SECONDS)):
                pass
            return _below(name, removal.left)

    def start_sweeping(self) -> None:
        """Sweep in a thread of its own, if there is something to sweep."""
        if any(name.startswith(_REMOVED) for name in self._names()):
            name = "sandbox-host-sweeper"
            thread = threading.Thread(target=self._sweep_and_tell, name=name, daemon=True)
            thread.start()
            self._sweeper = thread

    def _sweep_and_tell(self) -> None:
        try:
            for left in self.sweep():
                _log.warning("%s/%s could not be removed: %s", self._data, left.path, left.reason)
        except SandboxHostError as error:
            _log.warning("%s", error)

    def close(self) -> None:
        """End a sweep after its next step, and wait for that; the rest is swept the next time."""
        self._stop.set()
        if self._sweeper is not None:
            self._sweeper.join()


def _open(held: contextlib.ExitStack, path: Path | str, dir_fd: int | None = None) -> int:
    descriptor = open_directory(path, dir_fd=dir_fd, unlock=dir_fd is not None)
    held.callback(os.close, descriptor)
    return descriptor


def _check_directory(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        text = "a link stands there, which is not followed"
        raise OSError(text)
    if not stat.S_ISDIR(mode):
        text = "what stands there is no directory"
        raise OSError(text)


def _below(name: str, left: list[Left]) -> tuple[Left, ...]:
    top = escaped(name, _SHOWN)
    return tuple(Left(f"{top}/{one.path}" if one.path else top, one.reason) for one in left)


def _why(error: OSError) -> str:
    return error.strerror or str(error)

"""Who uses a data directory now: one plugin process at a time, whichever host it belongs to.

The lock is a file beside the data directories, ``<state_dir>/locks/<identity>``, and no plugin can
open it: a lock of the directory itself could be taken by the plugin whose it is, for as long as it
likes. The kernel gives it back when the host ends, however that happens (flock(2)). It is neither
inherited by a process that the host starts nor kept by a forked copy of the host.

The file says who has, or had, the lock, and stays: to remove it would let two hold locks of one
name. When it was changed is when the directory was last taken or given back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import ConfigError, DataInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox_host.model import Limits

LOCKS: Final = "locks"
"""The directory's name."""

PATIENCE_SECONDS: Final = 2.0
"""So long is waited for a lock: whoever looks whether it is held takes it for a moment, and a
plugin that is gone may not have given it back yet."""

_PAUSE_SECONDS: Final = 0.01
_MAX_RECORD_BYTES: Final = 512
_OPEN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Lease:
    """What a lock's file says.

    Attributes:
        held: somebody has it now.
        pid: of the host that has it, or had it last; None where the file does not say.
        data_bytes: the limit of the plugin that has it, or had it last; None likewise.
        data_files: likewise.
        changed: when it was last taken or given back; None where it never was.
    """

    held: bool = False
    pid: int | None = None
    data_bytes: int | None = None
    data_files: int | None = None
    changed: datetime | None = None


class DataLocks:
    """The locks that one host holds. Thread-safe.

    Args:
        directory: where they are; nobody but the host's user may pass it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changing = threading.Lock()  # of what follows: one version may end as another begins
        self._held: dict[str, int] = {}
        self._shares: Counter[str] = Counter()

    def take(self, identity: str, limits: Limits | None = None) -> None:
        """Take the lock of a plugin's data directory, waiting at most `PATIENCE_SECONDS` for it.

        Args:
            identity: the plugin.
            limits: its budgets, for whoever lists data directories.

        Raises:
            DataInUseError: another host has it, or this one.
            ConfigError: there can be no lock.
        """
        path = self._directory / identity
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o600)
            try:
                self._wait(identity, descriptor)
                _write(descriptor, limits)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            text = f"The lock {path} cannot be taken: {error.strerror or error}."
            remedy = "Remove what stands there; the state directory must be on a local disk."
            raise ConfigError(text, remedy=remedy) from error
        with self._changing:
            self._held[identity] = descriptor

    def _wait(self, identity: str, descriptor: int) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not _flock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= until:
                raise _in_use(identity, _read(descriptor).pid)
            time.sleep(_PAUSE_SECONDS)

    def share(self, identity: str) -> None:
        """Hold a lock once more, for a new version of the plugin beside the one that has it.

        It is given back when both have.

        Raises:
            DataInUseError: this host does not hold it any more: the one before has ended.
        """
        with self._changing:
            if identity in self._held:
                self._shares[identity] += 1
                return
        text = f"{identity} ended before its new version was started beside it."
        remedy = "Load it; with a restart policy it comes back by itself, as it was."
        raise DataInUseError(text, plugin=identity, remedy=remedy)

    def give_back(self, identity: str) -> None:
        """Give a lock back; nothing where it is not held."""
        with self._changing:
            if self._shares[identity] > 0:
                self._shares[identity] -= 1
                return
            del self._shares[identity]
            descriptor = self._held.pop(identity, -1)
        if descriptor < 0:
            return
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        with contextlib.suppress(OSError):
            # Not only closed: a process that is just being started may have a copy until it execs.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):
            os.close(descriptor)

    @contextlib.contextmanager
    def holding(self, identity: str) -> Iterator[None]:
        """Hold the lock inside the block.

        Raises:
            DataInUseError: as `take`.
            ConfigError: as `take`.
        """
        self.take(identity)
        try:
            yield
        finally:
            self.give_back(identity)

    def forget(self) -> None:
        """Belong to a forked copy of the host: the locks are the original's, and stay held."""
        held, self._held = self._held, {}
        for descriptor in held.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def look(self, identity: str) -> Lease:
        """Return what is known of a lock, without waiting.

        Raises:
            OSError: it cannot be read.
        """
        try:
            descriptor = os.open(self._directory / identity, os.O_RDONLY | _OPEN)
        except FileNotFoundError:
            return Lease()
        try:
            lease = _read(descriptor)
            # Shared, and for a moment: whoever wants it meanwhile has the patience.
            held = not _flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)
        return Lease(held, lease.pid, lease.data_bytes, lease.data_files, lease.changed)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, limits: Limits | None) -> None:
    record: dict[str, int] = {"pid": os.getpid()}
    if limits is not None:
        record |= {"data_bytes": limits.data_bytes, "data_files": limits.data_files}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(record).encode(), 0)


def _read(descriptor: int) -> Lease:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        text = "it is no regular file"
        raise OSError(text)
    try:
        record = json.loads(os.pread(descriptor, _MAX_RECORD_BYTES, 0))
    except (ValueError, RecursionError):
        record = None  # it was never written, or is being written
    told = record if isinstance(record, dict) else {}

    def number(key: str) -> int | None:
        value = told.get(key)
        return value if type(value) is int and value >= 0 else None

    changed = datetime.fromtimestamp(status.st_mtime, UTC)
    return Lease(False, number("pid"), number("data_bytes"), number("data_files"), changed)


def _in_use(identity: str, pid: int | None) -> DataInUseError:
    who = "another host" if pid is None else f"the host in process {pid}"
    text = f"The data directory of {identity} is in use: {who} has that plugin loaded"
    if pid == os.getpid():
        text = f"The data directory of {identity} is in use: this process has that plugin loaded"
    remedy = (
        "It belongs to one plugin process at a time: unload the plugin there, or give each host a "
        "state_dir of its own."
    )
    return DataInUseError(f"{text}.", plugin=identity, remedy=remedy)

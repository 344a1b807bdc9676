"""Directories and files of a control group hierarchy: small bounded reads and writes, and names.

A host keeps its groups below one directory of its own in each hierarchy, whose name says whose it
is: ``sandbox-host-<pid>-<start time>``. A host that was killed leaves it behind, and the next host
sweeps it away. Links are never followed; a group that has a process in it is never touched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux import cgroup_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_host.backends.linux.cgroup_text import Mount

_OWN: Final = re.compile(r"sandbox-host-([1-9][0-9]{0,9})-([0-9]{1,20})(?:-[0-9]{1,2})?")
_MAX_HOSTS_OF_A_PROCESS: Final = 64
_MAX_READ_BYTES: Final = 64 * 1024
_MAX_ENTRIES: Final = 4_096
_MAX_SWEPT: Final = 64
_FIRST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.02
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnusableError(Exception):
    """A hierarchy cannot be used, for a reason that is no failed call.

    Attributes:
        remedy: what the operator can do; "" where the usual advice holds.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Place:
    """A control group below which the host may make its own.

    Attributes:
        mount: the hierarchy.
        prefix: of its line in ``/proc/<pid>/cgroup``, such as ``4:memory``.
        directory: the group.
    """

    mount: Mount
    prefix: str
    directory: Path

    def path(self, directory: Path) -> str:
        """Return a group of the hierarchy as ``/proc/<pid>/cgroup`` names it."""
        return cgroup_text.path_of(self.mount, directory)

    def line(self, directory: Path) -> str:
        """Return the line of ``/proc/<pid>/cgroup`` for a process in a group of the hierarchy."""
        return f"{self.prefix}:{self.path(directory)}"


def read(path: Path, limit: int = _MAX_READ_BYTES) -> str:
    """Return the text of a small file of the kernel's; names in it are as `os.fsdecode` has them.

    Raises:
        OSError: it cannot be read, or is longer than ``limit`` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            data = b""
            while len(data) <= limit and (part := os.read(descriptor, limit + 1 - len(data))):
                data += part
        finally:
            os.close(descriptor)
    except OSError as error:
        raise told(error, path, "while it was read") from error
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", str(path))
    return os.fsdecode(data)


def write(path: Path, value: str) -> None:
    """Write a value to a file of the kernel's, in one call, as these files demand.

    Raises:
        OSError: it cannot be written, or the kernel refuses the value.
    """
    data = value.encode("ascii")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise told(error, path, f"while {value!r} was written") from error
    if written != len(data):
        raise OSError(errno.EIO, f"{written} bytes of {value!r} were written", str(path))


def told(error: OSError, path: Path, when: str) -> OSError:
    """Return an error of the same class that says where and when; the kernel's says neither."""
    number = error.errno or errno.EIO
    return OSError(number, f"{os.strerror(number)} {when}", str(path))


def remove(directory: Path, timeout: float) -> bool:
    """Remove a group; False where it is still in use after ``timeout`` seconds.

    The kernel takes a moment after the last process has ended, in which the group is busy.
    """
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE_SECONDS
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            left = deadline - time.monotonic()
            if error.errno != errno.EBUSY or left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        else:
            return True


class OwnDirectory:
    """The directory below which one host keeps its groups in one hierarchy.

    Attributes:
        path: its path.
    """

    def __init__(self, base: Path) -> None:
        """Make it below ``base``, after sweeping away what killed hosts left there.

        Raises:
            OSError: it cannot be made.
        """
        sweep(base)
        self.path = _make_own(base)
        self._lock: int | None = None
        # A host in another pid namespace cannot see that this one lives, but it sees the lock.
        with suppress(OSError):
            self._lock = os.open(self.path, _DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> bool:
        """Remove it and the empty groups in it; False where something is left. Never raises."""
        _remove_children(self.path)
        gone = remove(self.path, 0.0)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return gone


def _make_own(base: Path) -> Path:
    pid = os.getpid()
    start = cgroup_text.parse_start_time(read(Path(f"/proc/{pid}/stat")))
    for number in range(_MAX_HOSTS_OF_A_PROCESS):
        path = base / f"sandbox-host-{pid}-{start}{f'-{number}' if number else ''}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    text = f"this process has {_MAX_HOSTS_OF_A_PROCESS} hosts already"
    raise OSError(errno.EMFILE, text, str(base))


def sweep(base: Path) -> int:
    """Remove the directories that killed hosts left below ``base``, and return how many.

    A directory is abandoned if no process with its pid and start time lives and nobody holds its
    lock. Groups in it that still have processes stay, and so does it. Never raises.
    """
    swept = 0
    for name in _directories(base):
        match = _OWN.fullmatch(name)
        if match and not _lives(int(match[1]), int(match[2])):
            swept += _sweep_one(base / name)
        if swept >= _MAX_SWEPT:
            break
    return swept


def _sweep_one(path: Path) -> bool:
    try:
        descriptor = os.open(path, _DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_children(path)
        return remove(path, 0.0)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _remove_children(path: Path) -> None:
    for name in _directories(path):
        remove(path / name, 0.0)


def _directories(path: Path) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            names = [
                e.name for e in islice(entries, _MAX_ENTRIES) if e.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return iter(())
    return iter(names)


def _lives(pid: int, start: int) -> bool:
    try:
        return cgroup_text.parse_start_time(read(Path(f"/proc/{pid}/stat"))) == start
    except FileNotFoundError:
        return False
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        # Not to be told, so it may live.
        return True

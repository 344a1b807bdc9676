"""Walks a directory tree that somebody hostile made, and may be changing meanwhile.

No link is followed and nothing is opened but directories. A tree of any depth takes two
descriptors: the way back up is ``..``, and it is believed only if it leads to the directory that
it came from. The number of entries looked at has a bound, which is a bound on memory too.

Somebody who moves a tree into a directory that was listed already hides it from the walk. Three
things stand against that: directories are gone into in no order that can be foreseen, reading them
leaves no access time that would tell how far the walk has come, and where it is asked for, the walk
looks at the end whether a directory that it listed was changed since.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

Visit = Callable[[int, str, os.stat_result], None]
"""Is given a descriptor of the directory, the name in it, and what stood there (no link followed).

The descriptor is the walk's own: it is closed when the walk goes on.
"""

_DIRECTORY: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_WANT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_COARSE: Final = 5  # CLOCK_REALTIME_COARSE in linux/time.h: what time stamps are taken from
_SECOND: Final = 1_000_000_000

SETTLING_SECONDS: Final = 2 * time.clock_getres(_COARSE)
"""A directory that was not changed for so long is seen to change: its time stamp will differ."""


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk came.

    Attributes:
        entries: looked at; the top is none.
        unread: directories and entries that could not be looked at.
        complete: False where it ended at its bound, or a directory was moved away under it; where
            that was to be verified, also if one was changed since it was listed.
    """

    entries: int
    unread: int
    complete: bool


def open_directory(path: Path | str, *, dir_fd: int | None = None, unlock: bool = False) -> int:
    """Return a descriptor of a directory; a link is none.

    Args:
        path: the directory; only its last component may be of somebody else's making.
        dir_fd: what a relative path starts from.
        unlock: give its owner all rights in it, where it is ours and its mode does not.

    Raises:
        OSError: there is none, or it may not be opened.
    """
    try:
        opened = _open(path, dir_fd)
    except PermissionError:
        if not unlock:
            raise
        _unlock(path, dir_fd)
        opened = _open(path, dir_fd)
    if unlock:
        mode = stat.S_IMODE(os.fstat(opened).st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(OSError):  # what cannot be read then is counted as such
                os.fchmod(opened, mode | stat.S_IRWXU)
    return opened


def _open(path: Path | str, dir_fd: int | None) -> int:
    """Open without a trace, which is for the owner and for who has CAP_FOWNER (open(2))."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOATIME | _DIRECTORY, dir_fd=dir_fd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(path, os.O_RDONLY | _DIRECTORY, dir_fd=dir_fd)


def _unlock(path: Path | str, dir_fd: int | None) -> None:
    """Change the mode of what cannot be opened; by its name alone, that would follow a link."""
    named = os.open(path, os.O_PATH | _DIRECTORY, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{named}", stat.S_IRWXU)
    finally:
        os.close(named)


def walk(
    top: int, visit: Visit, max_entries: int, *, unlock: bool = False, verify: bool = False
) -> Walked:
    """Visit every entry of a tree, each directory's own before what is in it.

    Directories that were read are not read again, so that what is moved about in the meantime is
    missed or met twice, and nothing else. With ``verify`` that is found out: every directory is
    opened a second time at the end, and its time of change compared with that before it was listed
    (nobody can set that time). If all are as they were, the names that were met are those that
    stood there, all together, at the moment between. A directory that was changed in the tick of
    the clock in which it was listed counts as changed, for another change would not show.

    Args:
        top: descriptor of the directory; it stays open.
        visit: called for each entry; what it raises ends the walk.
        max_entries: at most so many are visited.
        unlock: as for `open_directory`, for the directories below ``top``.
        verify: be `Walked.complete` only if no directory was changed. Takes as long again as
            opening the directories did; not for a ``visit`` that changes them itself.

    Raises:
        OSError: ``top`` cannot be read, or this process or the machine has no descriptors or
            memory left.
    """
    return _Walk(visit, max_entries, unlock, verify).run(top)


class _Walk:
    def __init__(self, visit: Visit, max_entries: int, unlock: bool, verify: bool) -> None:
        self._visit = visit
        self._max_entries = max_entries
        self._unlock = unlock
        self._verify = verify
        self._listed: dict[tuple[int, int], tuple[int, tuple[str, ...]]] = {}
        self._entries = 0
        self._unread = 0
        self._over = False
        self._changed = False

    def run(self, top: int) -> Walked:
        complete = self._traverse(top, self._list) and not self._changed
        if complete and self._verify:
            complete = self._traverse(top, self._compare) and not self._changed
        return Walked(self._entries, self._unread, complete)

    def _traverse(self, top: int, enter: Callable[[int], list[str]]) -> bool:
        """Enter all directories; ``enter`` tells which are below. False if it did not get round."""
        # Not a duplicate: that would share its place in the listing with the caller's.
        here = _open(".", top)
        try:
            above: list[tuple[tuple[int, int], list[str]]] = []
            waiting = enter(here)
            while not self._over:
                if waiting:
                    below = self._descend(here, waiting.pop())
                    if below is not None:
                        above.append((_identity(here), waiting))
                        here = _replace(here, below)
                        waiting = enter(here)
                elif above:
                    identity, waiting = above.pop()
                    parent = _parent(here, identity)
                    if parent is None:
                        return False
                    here = _replace(here, parent)
                else:
                    return True
        finally:
            os.close(here)
        return False

    def _compare(self, here: int) -> list[str]:
        """Return what was below a directory when it was listed; end where it was changed since."""
        status = os.fstat(here)
        changed, folders = self._listed.get((status.st_dev, status.st_ino), (None, ()))
        if status.st_ctime_ns != changed:
            self._changed = self._over = True
        return list(folders)

    def _begin(self, here: int) -> int:
        """Return a directory's time of change, before it is listed."""
        now = time.clock_gettime_ns(_COARSE)
        changed = os.fstat(here).st_ctime_ns
        # A stamp far ahead is one from before the clock was set back: the next will differ.
        if now <= changed < now + _SECOND:
            self._changed = self._verify
        return changed

    def _list(self, here: int) -> list[str]:
        """Visit the entries of an open directory; return the names of the directories."""
        folders: list[str] = []
        changed = self._begin(here)
        with os.scandir(here) as entries:
            for entry in entries:
                if self._entries >= self._max_entries:
                    self._over = True
                    break
                self._entries += 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    self._miss(error)
                    continue
                self._visit(here, entry.name, status)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.name)
        random.shuffle(folders)  # nobody can tell which is listed next, and hide things behind it
        if self._verify:
            self._listed[_identity(here)] = (changed, tuple(folders))
        return folders

    def _miss(self, error: OSError) -> None:
        """Count what could not be looked at, unless that is this process's own fault."""
        if error.errno in _OWN_WANT:
            raise error
        self._unread += 1

    def _descend(self, here: int, name: str) -> int | None:
        try:
            below = open_directory(name, dir_fd=here, unlock=self._unlock)
        except (FileNotFoundError, NotADirectoryError):
            self._changed = True  # removed or moved, with all that was in it
            return None
        except OSError as error:
            self._miss(error)
            return None
        try:
            os.stat("..", dir_fd=below)
        except OSError as error:  # it may be read and not passed: there would be no way back
            os.close(below)
            self._miss(error)
            return None
        return below


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _parent(here: int, identity: tuple[int, int]) -> int | None:
    """Return a descriptor of what is above, or None if that is not what it was on the way down."""
    try:
        parent = _open("..", here)
    except OSError as error:
        if error.errno in _OWN_WANT:
            raise
        return None  # its mode was changed, or it is gone
    if _identity(parent) == identity:
        return parent
    os.close(parent)
    return None


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino

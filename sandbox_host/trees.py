"""Walks a directory tree that somebody hostile made, and may be changing meanwhile.

No link is followed and nothing is opened but directories. A tree of any depth takes two
descriptors: the way back up is ``..``, and it is believed only if it leads to the directory that
it came from. The number of entries looked at has a bound, which is a bound on memory too.
"""

from __future__ import annotations

import contextlib
import os
import stat
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


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk came.

    Attributes:
        entries: looked at; the top is none.
        unread: directories and entries that could not be looked at.
        complete: False where it ended at its bound, or a directory was moved away under it.
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
        opened = os.open(path, os.O_RDONLY | _DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        if not unlock:
            raise
        _unlock(path, dir_fd)
        opened = os.open(path, os.O_RDONLY | _DIRECTORY, dir_fd=dir_fd)
    if unlock:
        mode = stat.S_IMODE(os.fstat(opened).st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(OSError):  # what cannot be read then is counted as such
                os.fchmod(opened, mode | stat.S_IRWXU)
    return opened


def _unlock(path: Path | str, dir_fd: int | None) -> None:
    """Change the mode of what cannot be opened; by its name alone, that would follow a link."""
    named = os.open(path, os.O_PATH | _DIRECTORY, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{named}", stat.S_IRWXU)
    finally:
        os.close(named)


def walk(top: int, visit: Visit, max_entries: int, *, unlock: bool = False) -> Walked:
    """Visit every entry of a tree, each directory's own before what is in it.

    Directories that were read are not read again, so that what is moved about in the meantime is
    missed or met twice, and nothing else.

    Args:
        top: descriptor of the directory; it stays open.
        visit: called for each entry; what it raises ends the walk.
        max_entries: at most so many are visited.
        unlock: as for `open_directory`, for the directories below ``top``.

    Raises:
        OSError: ``top`` cannot be read.
    """
    return _Walk(visit, max_entries, unlock).run(top)


class _Walk:
    def __init__(self, visit: Visit, max_entries: int, unlock: bool) -> None:
        self._visit = visit
        self._max_entries = max_entries
        self._unlock = unlock
        self._entries = 0
        self._unread = 0
        self._full = False

    def run(self, top: int) -> Walked:
        # Not a duplicate: that would share its place in the listing with the caller's.
        here = os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=top)
        try:
            above: list[tuple[tuple[int, int], list[str]]] = []
            waiting = self._list(here)
            while not self._full:
                if waiting:
                    below = self._descend(here, waiting.pop())
                    if below is not None:
                        above.append((_identity(here), waiting))
                        here = _replace(here, below)
                        waiting = self._list(here)
                elif above:
                    identity, waiting = above.pop()
                    parent = _parent(here, identity)
                    if parent is None:
                        break
                    here = _replace(here, parent)
                else:
                    return self._walked(complete=True)
        finally:
            os.close(here)
        return self._walked(complete=False)

    def _walked(self, *, complete: bool) -> Walked:
        return Walked(self._entries, self._unread, complete)

    def _list(self, here: int) -> list[str]:
        """Visit the entries of an open directory; return the names of the directories."""
        folders: list[str] = []
        with os.scandir(here) as entries:
            for entry in entries:
                if self._entries >= self._max_entries:
                    self._full = True
                    break
                self._entries += 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError:
                    self._unread += 1
                    continue
                self._visit(here, entry.name, status)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.name)
        return folders

    def _descend(self, here: int, name: str) -> int | None:
        try:
            below = open_directory(name, dir_fd=here, unlock=self._unlock)
        except (FileNotFoundError, NotADirectoryError):
            return None  # removed, or no directory any more
        except OSError:
            self._unread += 1
            return None
        try:
            os.stat("..", dir_fd=below)
        except OSError:  # it may be read and not passed: there would be no way back
            self._unread += 1
            os.close(below)
            return None
        return below


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _parent(here: int, identity: tuple[int, int]) -> int | None:
    """Return a descriptor of what is above, or None if that is not what it was on the way down."""
    try:
        parent = os.open("..", os.O_RDONLY | _DIRECTORY, dir_fd=here)
    except OSError:
        return None  # its mode was changed, or it is gone
    if _identity(parent) == identity:
        return parent
    os.close(parent)
    return None


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino

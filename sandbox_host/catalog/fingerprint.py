"""Marks of what lies in a plugin directory: equal as long as nobody touched it.

A mark is a digest over names, kinds, sizes, times and inode numbers, never over contents, so that
it costs a system call or two for each file. The change time is among them: it is the kernel's, and
no tool sets it back as it does the modification time. Every open is relative to a descriptor and
follows no link; names come from strangers, and there are limits to all of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from sandbox_host.bundle.archive_format import SUFFIX
from sandbox_host.bundle.contents import ENVELOPE_NAME, MANIFEST_NAME, ReadLimits

if TYPE_CHECKING:
    from hashlib import blake2b

Mark = bytes
"""Equal to another of the same name as long as nothing was written, renamed or removed there."""

_LIMITS: Final = ReadLimits()
MAX_LOOKED: Final = _LIMITS.files + _LIMITS.directories + 1
"""Names of one plugin that are looked at: the reader refuses a plugin with more than these."""

_BYTES: Final = 16
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_tools_own(name: str) -> bool:
    """Tell whether a name is hidden or a cache of Python's, and so never a plugin's."""
    return name.startswith((".", "__"))


def mark_of(directory_fd: int, name: str) -> tuple[Mark | None, int]:
    """Return the mark of one name in a directory, and how many names were looked at for it.

    The mark is None where the name is no plugin: it is not there, has neither plugin.json nor
    plugin.dsse.json, or is a file that is not called ``*.plugin``. What lies behind the first
    `MAX_LOOKED` names, or deeper than a plugin may be, is not looked at.

    Args:
        directory_fd: descriptor of the plugin directory.
        name: in it.
    """
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except OSError:
        return None, 1
    if stat.S_ISDIR(status.st_mode):
        return _of_directory(directory_fd, name)
    if stat.S_ISLNK(status.st_mode) or name.endswith(SUFFIX):
        digest = hashlib.blake2b(digest_size=_BYTES)
        _add(digest, name, status)
        return digest.digest(), 1
    return None, 1


def _of_directory(directory_fd: int, name: str) -> tuple[Mark | None, int]:
    walk = _Walk()
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory_fd)
    except FileNotFoundError:
        return None, 1
    except OSError as error:
        # Closed to us: whoever reads it says so, once, until that changes.
        return f"closed {error.errno}".encode(), 1
    try:
        if not _holds_plugin(descriptor):
            return None, 2
        walk.add(descriptor, 1)
    finally:
        os.close(descriptor)
    return walk.digest.digest(), walk.looked


def _holds_plugin(descriptor: int) -> bool:
    for name in (MANIFEST_NAME, ENVELOPE_NAME):
        try:
            os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError:
            return True  # it may be one: whoever reads it says what is wrong
        return True
    return False


class _Walk:
    """One walk over one plugin's names, against its limits."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=_BYTES)
        self.looked = 1

    def add(self, descriptor: int, depth: int) -> None:
        """Add an open directory and what is below it."""
        _add(self.digest, "", os.fstat(descriptor))
        try:
            for name in self._names(descriptor):
                self._add_entry(descriptor, name, depth)
        except OSError as error:
            # Removed or closed meanwhile: another mark than before, and than after it.
            self.digest.update(f"error {error.errno}".encode())
        self.digest.update(b"end")  # so that a/b, c is not a, b/c

    def _names(self, descriptor: int) -> list[str]:
        names: list[str] = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if self.looked >= MAX_LOOKED:
                    break
                self.looked += 1
                names.append(entry.name)
        return sorted(names)

    def _add_entry(self, parent: int, name: str, depth: int) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        _add(self.digest, name, status)
        if stat.S_ISDIR(status.st_mode) and depth < _LIMITS.depth:
            below = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                self.add(below, depth + 1)
            finally:
                os.close(below)


def _add(digest: blake2b, name: str, status: os.stat_result) -> None:
    values = (
        *(status.st_mode, status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
    digest.update(f"{name!a} {values}".encode())

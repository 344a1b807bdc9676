"""Read a plugin's directory once, by descriptor, trusting nothing about it.

The root is opened once and everything below it is reached from its descriptor, with links never
followed, so a directory that is exchanged while we walk cannot lead elsewhere. All names and sizes
are looked at before the first file is opened, so that a refusal costs little. Each file is read
once, and those bytes are what is hashed, verified, staged and run: an open descriptor would not
be enough, because writes in place change the same inode.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents, ReadLimits
from sandbox_host.bundle.names import check_component, check_length, check_set, shown
from sandbox_host.errors import BundleError
from sandbox_host.reading import shown_bytes

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO put in place of a file between stat and open must not hold us up.
_OPEN_FILE: Final = _OPEN | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_DIRECTORY: Final = _OPEN | os.O_DIRECTORY
_UNREADABLE: Final = "Check its permissions, and that nothing changes it meanwhile."

_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link", "Replace it by a copy of what it points to."),
    (stat.S_ISFIFO, "a FIFO", "Remove it."),
    (stat.S_ISSOCK, "a socket", "Remove it."),
    (stat.S_ISBLK, "a block device", "Remove it."),
    (stat.S_ISCHR, "a character device", "Remove it."),
)


def read_directory(path: Path, limits: ReadLimits | None = None) -> Contents:
    """Read every file of the directory `path`.

    Args:
        path: the plugin's directory; its last component must not be a symbolic link.
        limits: caps on counts, depth and sizes, checked before memory is taken.

    Returns:
        The bytes, and the envelope apart from them if there is one.

    Raises:
        BundleError: the directory holds anything but regular files and directories, a name that
            is refused, more than the limits allow, or something that changed while it was read.
    """
    walk = _Walk(limits or ReadLimits(), str(path))
    try:
        root = os.open(path, _OPEN_DIRECTORY)
    except OSError as error:
        _refuse_root(path, error)
    try:
        found = walk.look(root, "", 1)
        check_set(_files_of(found))
        walk.read(root, found)
    except OSError as error:
        raise BundleError(
            f"{shown(str(path))} cannot be read: {error.strerror or error}.", remedy=_UNREADABLE
        ) from error
    finally:
        os.close(root)
    files = {name: walk.files[name] for name in sorted(walk.files)}
    return Contents(MappingProxyType(files), walk.envelope, str(path))


def _files_of(found: list[_Entry]) -> Iterator[str]:
    for entry in found:
        if entry.below is None:
            yield entry.path
        else:
            yield from _files_of(entry.below)


def _refuse_root(path: Path, error: OSError) -> NoReturn:
    where = shown(str(path))
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = 0
    if stat.S_ISLNK(mode):
        raise BundleError(
            f"{where} is a symbolic link; a plugin's directory is never followed through one.",
            remedy="Name the directory that it points to.",
        ) from error
    if mode and not stat.S_ISDIR(mode):
        raise BundleError(
            f"{where} is not a directory.", remedy="A plugin is a directory; name that."
        ) from error
    raise BundleError(
        f"the plugin's directory {where} cannot be opened: {error.strerror or error}.",
        remedy="Check the path and its permissions.",
    ) from error


@dataclass(slots=True)
class _Entry:
    """One name of the tree as it was found, before anything of it was read.

    Attributes:
        raw: the name as the file system has it.
        path: relative to the root, for messages and as the key in `Contents`.
        status: what `lstat` said of it.
        below: what a directory holds, sorted by name; None for a file.
    """

    raw: bytes
    path: str
    status: os.stat_result
    below: list[_Entry] | None = None


class _Walk:
    """One walk over one tree, against its limits: all of it is looked at before any is read.

    Whatever is refused for its names, kinds, counts or sizes costs no more memory than its names
    do; a bundle one byte over the total is not read to the last file first.
    """

    def __init__(self, limits: ReadLimits, origin: str) -> None:
        self.files: dict[str, bytes] = {}
        self.envelope: bytes | None = None
        self._limits = limits
        self._origin = origin
        self._files = 0
        self._directories = 0
        self._total_bytes = 0

    # -- looking ------------------------------------------------------------------------------

    def look(self, descriptor: int, prefix: str, depth: int) -> list[_Entry]:
        """Return what is in the directory behind `descriptor` and below it.

        Args:
            descriptor: the directory.
            prefix: its path, "" or "a/b/".
            depth: of what it holds; 1 at the root.
        """
        names = self._list(descriptor, prefix)
        if not names and prefix:
            self._refuse(
                prefix[:-1],
                "is an empty directory, which the signature could not cover",
                "Remove it, or put a file in it.",
            )
        found = []
        for raw in names:
            name = self._decode(raw, prefix)
            path = prefix + name
            check_component(name, path)
            if depth > self._limits.depth:
                self._refuse(path, f"lies deeper than {self._limits.depth} levels")
            check_length(path)
            with self._readable(path):
                found.append(self._look_at(raw, descriptor, path, depth))
        return found

    def _list(self, descriptor: int, prefix: str) -> list[bytes]:
        """Return the names in a directory, sorted, refusing a listing of unreasonable length."""
        most = self._limits.files + self._limits.directories + 1
        names: list[bytes] = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                names.append(os.fsencode(entry.name))
                if len(names) > most:
                    self._refuse(prefix.rstrip("/") or ".", f"has more than {most} entries")
        return sorted(names)

    def _decode(self, raw: bytes, prefix: str) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            path = prefix + raw.decode("utf-8", "backslashreplace")
            self._refuse(path, "has a name that is not valid UTF-8", "Rename it.")

    def _look_at(self, raw: bytes, parent: int, path: str, depth: int) -> _Entry:
        # Look before opening: opening a device can already act on it.
        status = os.stat(raw, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            self._require_regular(status, path)
            self._count_file(status.st_size, path)
            return _Entry(raw, path, status)
        self._count_directory(path)
        descriptor = os.open(raw, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            status = os.fstat(descriptor)
            return _Entry(raw, path, status, self.look(descriptor, path + "/", depth + 1))
        finally:
            os.close(descriptor)

    def _count_directory(self, path: str) -> None:
        self._directories += 1
        if self._directories > self._limits.directories:
            self._refuse(path, f"is one directory more than {self._limits.directories}")
        if path == ENVELOPE_NAME:
            self._refuse(path, "is a directory with the name of the envelope", "Rename it.")

    def _count_file(self, size: int, path: str) -> None:
        limits = self._limits
        most = limits.envelope_bytes if path == ENVELOPE_NAME else limits.file_bytes
        if size > most:
            self._refuse(
                path, f"has {shown_bytes(size)}, more than the {shown_bytes(most)} allowed"
            )
        if path == ENVELOPE_NAME:
            return
        self._files += 1
        self._total_bytes += size
        if self._files > limits.files:
            self._refuse(path, f"is one file more than the {limits.files} allowed")
        if self._total_bytes > limits.total_bytes:
            self._refuse(
                path, f"takes the bundle over the {shown_bytes(limits.total_bytes)} allowed"
            )

    def _require_regular(self, status: os.stat_result, path: str) -> None:
        for test, what, remedy in _KINDS:
            if test(status.st_mode):
                self._refuse(path, f"is {what}; a bundle holds regular files only", remedy)
        if not stat.S_ISREG(status.st_mode):
            self._refuse(path, "is not a regular file", "Remove it.")
        # What runs are the bytes that we keep, so a second name cannot change them. But a link
        # planted by somebody else would let whoever signs, perhaps with more rights than its
        # author, copy a file into a bundle that the author could not read.
        if status.st_nlink > 1:
            self._refuse(
                path,
                "has more than one hard link; it may be somebody else's file",
                "Replace it by a copy (`cp FILE COPY && mv COPY FILE`).",
            )

    # -- reading ------------------------------------------------------------------------------

    def read(self, parent: int, found: list[_Entry]) -> None:
        """Read every file that was found in the directory behind `parent` and below it."""
        for entry in found:
            with self._readable(entry.path):
                if entry.below is None:
                    self._read_file(parent, entry)
                else:
                    self._read_directory(parent, entry, entry.below)

    def _read_directory(self, parent: int, entry: _Entry, below: list[_Entry]) -> None:
        # Opened again: two thousand descriptors at once are more than a process may have.
        descriptor = os.open(entry.raw, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            if not os.path.samestat(os.fstat(descriptor), entry.status):
                self._refuse_change(entry.path)
            self.read(descriptor, below)
        finally:
            os.close(descriptor)

    def _read_file(self, parent: int, entry: _Entry) -> None:
        descriptor = os.open(entry.raw, _OPEN_FILE, dir_fd=parent)
        try:
            before = os.fstat(descriptor)
            self._require_regular(before, entry.path)
            # The size was counted when it was looked at; any other must not be read.
            if stamp(before) != stamp(entry.status):
                self._refuse_change(entry.path)
            data = _read_exactly(descriptor, before.st_size)
            if data is None or stamp(os.fstat(descriptor)) != stamp(before):
                self._refuse_change(entry.path)
        finally:
            os.close(descriptor)
        if entry.path == ENVELOPE_NAME:
            self.envelope = data
        else:
            self.files[entry.path] = data

    # -- refusing -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _readable(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._refuse(path, f"cannot be read: {error.strerror or error}", _UNREADABLE)

    def _refuse_change(self, path: str) -> NoReturn:
        self._refuse(
            path, "changed while it was read", "Try again when nothing writes to it any more."
        )

    def _refuse(self, path: str, reason: str, remedy: str = "") -> NoReturn:
        raise BundleError(
            f"{shown(path)} in {shown(self._origin)} {reason}.",
            remedy=remedy or "Make the plugin smaller, and sign it again.",
        )


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    """Return `size` bytes, or None where the file holds fewer or more of them."""
    # In one piece where the kernel gives it so: joining needs the memory twice.
    data = os.read(descriptor, size)
    while len(data) < size:
        part = os.read(descriptor, size - len(data))
        if not part:
            return None
        data += part
    return None if os.read(descriptor, 1) else data


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """Return what is another when a file was exchanged or written to."""
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )

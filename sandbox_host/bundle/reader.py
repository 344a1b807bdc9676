"""Read a plugin's directory once, by descriptor, trusting nothing about it.

The root is opened once and everything below it is reached from its descriptor, with links never
followed, so a directory that is exchanged while we walk cannot lead elsewhere. Each file is read
once, and those bytes are what is hashed, verified, staged and run: an open descriptor would not
be enough, because writes in place change the same inode.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents, ReadLimits
from sandbox_host.bundle.names import check_component, check_set, shown
from sandbox_host.errors import BundleError
from sandbox_host.reading import shown_bytes

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO put in place of a file between stat and open must not hold us up.
_OPEN_FILE: Final = _OPEN | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_DIRECTORY: Final = _OPEN | os.O_DIRECTORY
_CHUNK_BYTES: Final = 1 << 20

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
        walk.directory(root, "", 1)
    except OSError as error:
        raise BundleError(
            f"{shown(str(path))} cannot be read: {error.strerror or error}.",
            remedy="Check its permissions, and that nothing changes it meanwhile.",
        ) from error
    finally:
        os.close(root)
    check_set(walk.files)
    files = {name: walk.files[name] for name in sorted(walk.files)}
    return Contents(MappingProxyType(files), walk.envelope, str(path))


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


class _Walk:
    """One walk over one tree: what it has read so far, against its limits."""

    def __init__(self, limits: ReadLimits, origin: str) -> None:
        self.files: dict[str, bytes] = {}
        self.envelope: bytes | None = None
        self._limits = limits
        self._origin = origin
        self._directories = 0
        self._total_bytes = 0

    def directory(self, descriptor: int, prefix: str, depth: int) -> None:
        """Read the directory behind `descriptor`, whose path is `prefix` ("" or "a/b/")."""
        names = self._list(descriptor, prefix)
        if not names and prefix:
            self._refuse(
                prefix[:-1],
                "is an empty directory, which the signature could not cover",
                "Remove it, or put a file in it.",
            )
        for raw in names:
            name = self._decode(raw, prefix)
            path = prefix + name
            check_component(name, path)
            if depth > self._limits.depth:
                self._refuse(path, f"lies deeper than {self._limits.depth} levels")
            try:
                self._entry(raw, descriptor, path, depth)
            except OSError as error:
                self._refuse(
                    path,
                    f"cannot be read: {error.strerror or error}",
                    "Check its permissions, and that nothing changes it meanwhile.",
                )

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

    def _entry(self, raw: bytes, parent: int, path: str, depth: int) -> None:
        # Look before opening: opening a device can already act on it.
        kind = os.stat(raw, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(kind.st_mode):
            self._count_directory(path)
            descriptor = os.open(raw, _OPEN_DIRECTORY, dir_fd=parent)
            try:
                self.directory(descriptor, path + "/", depth + 1)
            finally:
                os.close(descriptor)
            return
        self._require_regular(kind, path)
        descriptor = os.open(raw, _OPEN_FILE, dir_fd=parent)
        try:
            self._file(descriptor, path)
        finally:
            os.close(descriptor)

    def _count_directory(self, path: str) -> None:
        self._directories += 1
        if self._directories > self._limits.directories:
            self._refuse(path, f"is one directory more than {self._limits.directories}")
        if path == ENVELOPE_NAME:
            self._refuse(path, "is a directory with the name of the envelope", "Rename it.")

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

    def _file(self, descriptor: int, path: str) -> None:
        before = os.fstat(descriptor)
        self._require_regular(before, path)
        is_envelope = path == ENVELOPE_NAME
        self._check_size(before.st_size, path, is_envelope=is_envelope)
        data = _read_exactly(descriptor, before.st_size)
        after = os.fstat(descriptor)
        if data is None or _stamp(before) != _stamp(after):
            self._refuse(
                path, "changed while it was read", "Try again when nothing writes to it any more."
            )
        if is_envelope:
            self.envelope = data
            return
        self._total_bytes += len(data)
        self.files[path] = data

    def _check_size(self, size: int, path: str, *, is_envelope: bool) -> None:
        limits = self._limits
        most = limits.envelope_bytes if is_envelope else limits.file_bytes
        if size > most:
            self._refuse(
                path, f"has {shown_bytes(size)}, more than the {shown_bytes(most)} allowed"
            )
        if is_envelope:
            return
        if len(self.files) >= limits.files:
            self._refuse(path, f"is one file more than the {limits.files} allowed")
        if self._total_bytes + size > limits.total_bytes:
            self._refuse(
                path, f"takes the bundle over the {shown_bytes(limits.total_bytes)} allowed"
            )

    def _refuse(self, path: str, reason: str, remedy: str = "") -> NoReturn:
        raise BundleError(
            f"{shown(path)} in {shown(self._origin)} {reason}.",
            remedy=remedy or "Make the plugin smaller, and sign it again.",
        )


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    """Return `size` bytes, or None where the file holds fewer or more of them."""
    parts: list[bytes] = []
    left = size
    while left:
        part = os.read(descriptor, min(left, _CHUNK_BYTES))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    if os.read(descriptor, 1):
        return None
    return b"".join(parts)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns

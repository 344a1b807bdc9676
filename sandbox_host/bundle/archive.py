"""Read a ``.plugin`` archive strictly: one reading, or none.

A zip archive says everything twice, and readers differ in which of it they believe: that is how
one archive shows a reviewer one file and a machine another (CVE-2013-4787, "master key"). Nothing
of what differs is taken here. The end record is the last 22 bytes; the central directory ends
where it begins; the files fill everything before without a gap or an overlap; and each local
header says what the central one does. Comments, extra fields, zip64, data descriptors,
encryption, several disks, directories, links and unusual modes are refused by name.

Nothing is read of a file before all headers are, and all sizes count before anything is inflated.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from sandbox_host.bundle.archive_format import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END_SIGNATURE,
    LOCAL,
    LOCAL_SIGNATURE,
    STORED,
    UTF8_NAME,
    ZIP64_LONG,
    ZIP64_SHORT,
    Header,
    Tail,
)
from sandbox_host.bundle.archive_rules import (
    MS_DOS,
    Claims,
    Member,
    header_fault,
    size_fault,
    tail_fault,
)
from sandbox_host.bundle.contents import ENVELOPE_NAME, MANIFEST_NAME, Contents, ReadLimits
from sandbox_host.bundle.names import MAX_PATH_BYTES, check_path, check_set, shown
from sandbox_host.bundle.reader import stamp
from sandbox_host.errors import BundleError
from sandbox_host.reading import shown_bytes

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK_BYTES: Final = 64 * 1024
_RAW: Final = -15
_ENTRY_BYTES: Final = LOCAL.size + CENTRAL.size + 2 * MAX_PATH_BYTES
_SMALLEST_ENTRY_BYTES: Final = CENTRAL.size + 1


def read_archive(path: Path, limits: ReadLimits | None = None) -> Contents:
    """Read every file of the archive `path`.

    Args:
        path: the archive; not through a symbolic link.
        limits: caps on counts, depth and sizes, checked before memory is taken.

    Returns:
        What `reader.read_directory` returns for a directory with the same files.

    Raises:
        BundleError: it is no archive of the form at the top of this file; a file in it has a name
            that is refused, or does not have the size or checksum that it claims; it holds more
            than the limits allow, or changed while it was read.
    """
    limits = limits or ReadLimits()
    origin = str(path)
    descriptor = _opened(path)
    try:
        archive = _Archive(descriptor, limits, origin)
        found = {member.path: archive.content(member) for member in archive.members()}
        archive.check_unchanged()
    except OSError as error:
        raise BundleError(
            f"{shown(origin)} cannot be read: {error.strerror or error}.",
            remedy="Check its permissions, and the disk that it is on.",
        ) from error
    finally:
        os.close(descriptor)
    envelope = found.pop(ENVELOPE_NAME, None)
    files = {name: found[name] for name in sorted(found)}
    return Contents(MappingProxyType(files), envelope, origin)


def read_manifest(descriptor: int, origin: str, most: int) -> bytes | None:
    """Return plugin.json of an archive, and read no other file of it.

    Args:
        descriptor: of the archive; it stays open.
        origin: its name, for messages.
        most: bytes that plugin.json may have.

    Returns:
        None where there is none.

    Raises:
        BundleError: it is no archive of ours, or its plugin.json is larger.
        OSError: it cannot be read.
    """
    archive = _Archive(descriptor, ReadLimits(), origin)
    for member in archive.members():
        if member.path == MANIFEST_NAME:
            if member.header.size > most:
                archive.refuse(member.path, f"has more than {shown_bytes(most)}")
            return archive.content(member)
    return None


def _opened(path: Path) -> int:
    where = shown(str(path))
    try:
        # Look before opening: opening a device can already act on it.
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            return os.open(path, _OPEN)
    except OSError as error:
        raise BundleError(
            f"the plugin's archive {where} cannot be opened: {error.strerror or error}.",
            remedy="Check the path and its permissions.",
        ) from error
    if stat.S_ISLNK(mode):
        raise BundleError(
            f"{where} is a symbolic link; a plugin's archive is never read through one.",
            remedy="Name the file that it points to.",
        )
    raise BundleError(
        f"{where} is neither a directory nor a regular file.",
        remedy="Name a plugin's directory, or an archive made with `sandbox-host pack`.",
    )


class _Archive:
    """One open archive, against its limits."""

    def __init__(self, descriptor: int, limits: ReadLimits, origin: str) -> None:
        self._descriptor = descriptor
        self._limits = limits
        self._origin = origin
        self._status = os.fstat(descriptor)
        if not stat.S_ISREG(self._status.st_mode):
            self.refuse("", "is not a regular file")

    # -- headers ------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Return what is in the archive, once every header of it was checked."""
        entries, central, central_offset = self._end()
        members = list(self._central(entries, central))
        self._check_claims(members)
        offset = 0
        for member in members:
            self._check_local(member, offset)
            offset = member.data_offset + member.header.packed
            if offset > central_offset:
                self.refuse(member.path, "reaches into the central directory")
        if offset != central_offset:
            self.refuse("", "has bytes between its last file and its central directory")
        return members

    def _end(self) -> tuple[int, bytes, int]:
        """Return the number of entries, the central directory, and where that begins."""
        limits, size = self._limits, self._status.st_size
        most = limits.total_bytes + limits.envelope_bytes + (limits.files + 1) * _ENTRY_BYTES
        if size < END.size:
            self._refuse_kind()
        if size > most:
            self.refuse("", f"has {shown_bytes(size)}, more than the {shown_bytes(most)} allowed")
        signature, disk, central_disk, here, entries, length, offset, comment = END.unpack(
            self._take(size - END.size, END.size)
        )
        if signature != END_SIGNATURE or comment:
            self._refuse_kind()
        if ZIP64_SHORT in (disk, central_disk, here, entries) or ZIP64_LONG in (length, offset):
            self.refuse("", "uses zip64, which no archive of this size needs")
        if disk or central_disk or here != entries:
            self.refuse("", "is one of several disks")
        if entries > limits.files + 1:
            self.refuse("", f"claims {entries} files, more than the {limits.files} allowed")
        if offset + length != size - END.size:
            self.refuse("", "has bytes before its first file, or around its central directory")
        if not entries * _SMALLEST_ENTRY_BYTES <= length <= entries * _ENTRY_BYTES:
            self.refuse("", f"has a central directory that cannot hold {entries} files")
        return entries, self._take(offset, length), offset

    def _central(self, entries: int, central: bytes) -> Iterator[Member]:
        at = 0
        for number in range(1, entries + 1):
            if at + CENTRAL.size > len(central):
                self.refuse("", f"claims {entries} files, and its central directory has fewer")
            signature, made, *rest = CENTRAL.unpack_from(central, at)
            header, tail = Header(*rest[: len(Header._fields)]), Tail(*rest[-len(Tail._fields) :])
            if signature != CENTRAL_SIGNATURE:
                self.refuse("", f"has no central header where that of file {number} should be")
            at += CENTRAL.size
            name = central[at : at + header.name_length]
            at += header.name_length
            path = self._path(name, header, made >> 8)
            fault = header_fault(header) or tail_fault(tail, made >> 8)
            if fault:
                self.refuse(path, fault)
            yield Member(path, header, tail.offset)
        if at != len(central):
            self.refuse("", f"claims {entries} files, and its central directory has more")

    def _path(self, name: bytes, header: Header, made_by: int) -> str:
        try:
            path = name.decode()
        except UnicodeDecodeError:
            path = name.decode("utf-8", "backslashreplace")
            self.refuse(path, "has a name that is not valid UTF-8", "Rename it.")
        if len(name) != header.name_length:
            self.refuse(path, "has a name that ends behind the central directory")
        if not path.isascii() and not header.flags & UTF8_NAME:
            self.refuse(path, "has a name that is not marked as UTF-8")
        if not path.isascii() and made_by == MS_DOS:
            # Info-ZIP's unzip takes it for code page 850 in spite of the mark, and two for one.
            self.refuse(path, "has a name in UTF-8, and was packed as on MS-DOS")
        if path.endswith("/"):
            self.refuse(path, "is a directory, which the signature could not cover")
        return path

    def _check_claims(self, members: list[Member]) -> None:
        claims = Claims(self._limits)
        for member in members:
            check_path(member.path)
            fault = size_fault(member, self._limits) or claims.add(member)
            if fault:
                self.refuse(member.path, fault)
        check_set(member.path for member in members)

    def _check_local(self, member: Member, expected_offset: int) -> None:
        path = member.path
        if member.offset != expected_offset:
            what = "overlaps" if member.offset < expected_offset else "leaves a gap behind"
            self.refuse(path, f"{what} the file before it, or is out of order")
        data = self._take(member.offset, LOCAL.size + member.header.name_length)
        signature, *fields = LOCAL.unpack_from(data)
        if signature != LOCAL_SIGNATURE:
            self.refuse(path, "has no local header where the central directory says")
        for name, here, there in zip(Header._fields, fields, member.header, strict=True):
            if here != there:
                self.refuse(
                    path,
                    f"has one {name} in its local header and another ({there}) in the "
                    f"central directory",
                )
        if data[LOCAL.size :] != path.encode():
            self.refuse(path, "has another name in its local header")

    # -- contents -----------------------------------------------------------------------------

    def content(self, member: Member) -> bytes:
        """Return a file's content, which has the size and the checksum that its headers claim."""
        header = member.header
        if header.method == STORED:
            data = self._take(member.data_offset, header.size)
        else:
            data = self._inflated(member)
        if zlib.crc32(data) != header.crc:
            self.refuse(member.path, "does not have the checksum that its header claims")
        return data

    def _inflated(self, member: Member) -> bytes:
        path, size = member.path, member.header.size
        inflater = zlib.decompressobj(_RAW)
        parts: list[bytes] = []
        room, packed, left = size, b"", self._chunks(member)
        while not inflater.eof:
            packed = packed or next(left, b"")
            ended = not packed
            try:
                # One byte more than it may have is enough to know; 0 would mean "no limit".
                part = inflater.decompress(packed, min(room, _CHUNK_BYTES) + 1)
            except zlib.error:
                self.refuse(path, "is compressed in a way that cannot be read")
            packed = inflater.unconsumed_tail
            room -= len(part)
            if room < 0:
                self.refuse(path, f"inflates to more than the {size} bytes that it claims")
            parts.append(part)
            if ended and not part:
                break
        if room or not inflater.eof:
            self.refuse(path, f"inflates to fewer than the {size} bytes that it claims")
        if inflater.unused_data or next(left, b""):
            self.refuse(path, "has data behind the end of its compressed stream")
        return b"".join(parts)

    def _chunks(self, member: Member) -> Iterator[bytes]:
        at, end = member.data_offset, member.data_offset + member.header.packed
        for start in range(at, end, _CHUNK_BYTES):
            yield self._take(start, min(end - start, _CHUNK_BYTES))

    def check_unchanged(self) -> None:
        """Refuse an archive that somebody wrote to meanwhile."""
        if stamp(os.fstat(self._descriptor)) != stamp(self._status):
            self._refuse_change()

    def _take(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part = os.pread(self._descriptor, length, offset)
            if not part:
                self._refuse_change()
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- refusing -----------------------------------------------------------------------------

    def _refuse_change(self) -> NoReturn:
        self.refuse("", "ends early, or changed while it was read", "Get it again.")

    def _refuse_kind(self) -> NoReturn:
        self.refuse(
            "",
            "is not a plugin's archive: a zip's end record is not what it ends with",
            "Name a plugin's directory, or an archive made with `sandbox-host pack`.",
        )

    def refuse(self, path: str, reason: str, remedy: str = "") -> NoReturn:
        """Refuse the file `path` in the archive, or with "" the archive as a whole."""
        where = f"{shown(path)} in {shown(self._origin)}" if path else shown(self._origin)
        raise BundleError(
            f"{where} {reason}.",
            remedy=remedy
            or "Have the archive made from the signed directory with `sandbox-host pack`.",
        )

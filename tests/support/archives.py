"""Archives for tests: well-formed ones, and ones whose bytes say what no packer would."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_host.bundle.archive_format import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    DEFLATED,
    END,
    END_SIGNATURE,
    FILE_MODE,
    FIRST_DAY,
    LOCAL,
    LOCAL_SIGNATURE,
    MADE_BY_UNIX,
    VERSION,
    Header,
    Tail,
)
from sandbox_host.bundle.archive_write import archive_parts
from sandbox_host.bundle.contents import Contents


def packed(files: Mapping[str, bytes], envelope: bytes | None = None, **options: Any) -> bytes:
    """Return the archive that `pack` would write."""
    return b"".join(archive_parts(Contents(files, envelope, "memory"), **options))


@dataclass
class Entry:
    """One file as an attacker writes it: every field of either header may be set apart.

    Attributes:
        name: as encoded.
        content: what inflating the data would give, if `data` is not set.
        deflate: compress it.
        data: what stands behind the local header, instead.
        both: fields of `Header` to set in both headers.
        local: fields of `Header` to set in the local one only.
        tail: fields of `Tail`; an `offset` is added to the true one.
        at: the offset that the central header names, instead of the true one.
        local_name: the local header's name, instead.
        made_by: the central header's first field.
        extra: extra fields, in both places.
        comment: the file's comment.
        behind: bytes between the data and the next file.
    """

    name: bytes
    content: bytes = b""
    deflate: bool = False
    data: bytes | None = None
    both: dict[str, int] = field(default_factory=dict)
    local: dict[str, int] = field(default_factory=dict)
    tail: dict[str, int] = field(default_factory=dict)
    at: int | None = None
    local_name: bytes | None = None
    made_by: int = MADE_BY_UNIX
    extra: bytes = b""
    comment: bytes = b""
    behind: bytes = b""

    def stored(self) -> bytes:
        """Return what stands in the archive."""
        if self.data is not None:
            return self.data
        if not self.deflate:
            return self.content
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.content) + packer.flush()

    def header(self) -> Header:
        """Return what both headers say."""
        plain = Header(
            needed=VERSION,
            flags=0 if self.name.isascii() else 0x800,
            method=DEFLATED if self.deflate else 0,
            time=0,
            date=FIRST_DAY,
            crc=zlib.crc32(self.content),
            packed=len(self.stored()),
            size=len(self.content),
            name_length=len(self.name),
            extra_length=len(self.extra),
        )
        return plain._replace(**self.both)


def crafted(
    *entries: Entry,
    before: bytes = b"",
    between: bytes = b"",
    behind_central: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    central_order: tuple[int, ...] | None = None,
    **end: int,
) -> bytes:
    """Return an archive of these entries, with bytes where none belong.

    Args:
        entries: in the order of their local headers.
        before: in front of the first file.
        between: the last file and the central directory.
        behind_central: the central directory and the end record.
        after: the end record.
        comment: of the archive.
        central_order: indices of `entries` in the central directory, instead of the true order.
        end: fields of the end record, which are disk, central_disk, here, entries, length, offset
            and comment_length.
    """
    body = before
    central = []
    for entry in entries:
        header = entry.header()
        tail = Tail(len(entry.comment), 0, 0, FILE_MODE, 0)._replace(**entry.tail)
        tail = tail._replace(offset=tail.offset + len(body) if entry.at is None else entry.at)
        central.append(
            CENTRAL.pack(CENTRAL_SIGNATURE, entry.made_by, *header, *tail)
            + entry.name
            + entry.extra
            + entry.comment
        )
        name = entry.name if entry.local_name is None else entry.local_name
        body += LOCAL.pack(LOCAL_SIGNATURE, *header._replace(**entry.local)) + name + entry.extra
        body += entry.stored() + entry.behind
    order = range(len(entries)) if central_order is None else central_order
    directory = b"".join(central[index] for index in order)
    fields = {
        "disk": 0,
        "central_disk": 0,
        "here": len(central),
        "entries": len(central),
        "length": len(directory),
        "offset": len(body + between),
        "comment_length": len(comment),
        **end,
    }
    record = END.pack(END_SIGNATURE, *fields.values())
    return body + between + directory + behind_central + record + comment + after


def bomb(name: bytes = b"data.bin", claimed: int | None = None, size: int = 1 << 30) -> bytes:
    """Return an archive with a file that inflates to `size` bytes and claims `claimed`.

    Args:
        name: the file's.
        claimed: None for the truth.
        size: a multiple of 1 MiB.
    """
    said = size if claimed is None else claimed
    return crafted(Entry(name, deflate=True, data=zeros(size), both={"size": said}))


def zeros(size: int) -> bytes:
    """Return a deflate stream of so many zeros, a multiple of 1 MiB, at no cost."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # After a full flush nothing refers to what was before, so the same block fits again.
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + b"\x03\x00"


def zip64(files: int) -> bytes:
    """Return an archive with nothing but a zip64 end record that claims so many files."""
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, files, files, 0, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 1)
    end = END.pack(END_SIGNATURE, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return record + locator + end


def many(files: int) -> bytes:
    """Return an archive with so many empty files, and an end record that holds their number."""
    one = Entry(b"", b"")
    header = one.header()._replace(name_length=7)
    body, central = bytearray(), bytearray()
    for number in range(files):
        name = b"%07d" % number
        central += CENTRAL.pack(
            CENTRAL_SIGNATURE, MADE_BY_UNIX, *header, 0, 0, 0, FILE_MODE, len(body)
        )
        central += name
        body += LOCAL.pack(LOCAL_SIGNATURE, *header) + name
    shown = files & 0xFFFF
    end = END.pack(END_SIGNATURE, 0, 0, shown, shown, len(central), len(body), 0)
    return bytes(body + central + end)


def write(directory: Path, data: bytes, name: str = "sample.plugin") -> Path:
    """Write an archive and return its path."""
    path = directory / name
    path.write_bytes(data)
    return path

"""The part of the zip format that a ``.plugin`` archive uses, byte for byte.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central header) and
4.3.16 (end record). One archive is: for each file its local header, its name and its data; then
for each its central header and its name, in the same order; then the end record. Nothing else,
nothing between and nothing after it: what two readers could take for two archives is none.
"""

from __future__ import annotations

import stat
import struct
from typing import Final, NamedTuple

SUFFIX: Final = ".plugin"
"""How an archive's name ends."""

LOCAL_SIGNATURE: Final = b"PK\x03\x04"
CENTRAL_SIGNATURE: Final = b"PK\x01\x02"
END_SIGNATURE: Final = b"PK\x05\x06"

LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
END: Final = struct.Struct("<4sHHHHIIH")

STORED: Final = 0
DEFLATED: Final = 8

UTF8_NAME: Final = 0x0800
"""The one flag that is taken: without it a reader may take the name for code page 437."""

VERSION: Final = 20
"""Needed to extract: 2.0, the lowest that knows deflate; higher ones ask for more than we take."""

MADE_BY_UNIX: Final = (3 << 8) | VERSION
MIDNIGHT: Final = 0
FIRST_DAY: Final = (1 << 5) | 1
"""1980-01-01, the format's zero: a time would make two archives of one plugin."""

FILE_MODE: Final = (stat.S_IFREG | 0o644) << 16
"""External attributes as Unix writes them: the mode in the upper half."""

ZIP64_SHORT: Final = 0xFFFF
ZIP64_LONG: Final = 0xFFFFFFFF
"""Stand where the true value is in a record of zip64's."""

MAX_RATIO: Final = 100
"""How many times its packed size a file may have: source code reaches 20, deflate at most 1,032."""

RATIO_FREE_BYTES: Final = 64 * 1024
"""Files up to this size may have any ratio: a short one that says one thing is no bomb."""


class Header(NamedTuple):
    """What a local and a central header both say of a file, in the order that they say it.

    Attributes:
        needed: version needed to extract.
        flags: general purpose bits.
        method: of compression.
        time, date: of modification, as MS-DOS has them; nobody reads them.
        crc: CRC-32 of the content.
        packed: bytes of the data in the archive.
        size: bytes of the content.
        name_length: bytes of the name.
        extra_length: bytes of extra fields.
    """

    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int


class Tail(NamedTuple):
    """What only a central header says.

    Attributes:
        comment_length: bytes of the file's comment.
        disk: on which it begins.
        internal: attributes; whether it is text, which nobody reads.
        external: attributes of the file system that it was on.
        offset: of its local header.
    """

    comment_length: int
    disk: int
    internal: int
    external: int
    offset: int


def local_header(header: Header) -> bytes:
    """Return a local header, without the name behind it."""
    return LOCAL.pack(LOCAL_SIGNATURE, *header)


def central_header(header: Header, tail: Tail) -> bytes:
    """Return a central header, without the name behind it."""
    return CENTRAL.pack(CENTRAL_SIGNATURE, MADE_BY_UNIX, *header, *tail)


def end_record(entries: int, central_bytes: int, central_offset: int) -> bytes:
    """Return the end record of an archive on one disk, without a comment."""
    return END.pack(END_SIGNATURE, 0, 0, entries, entries, central_bytes, central_offset, 0)

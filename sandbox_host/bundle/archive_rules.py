"""What an archive's headers may say: pure decisions, each a reason to refuse or "".

Every reason continues a sentence that begins with the file's name.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Final

from sandbox_host.bundle.archive_format import (
    DEFLATED,
    LOCAL,
    MAX_RATIO,
    RATIO_FREE_BYTES,
    STORED,
    UTF8_NAME,
    VERSION,
    ZIP64_LONG,
    ZIP64_SHORT,
    Header,
    Tail,
)
from sandbox_host.bundle.contents import ENVELOPE_NAME, ReadLimits
from sandbox_host.reading import shown_bytes

_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
_DATA_DESCRIPTOR: Final = 0x0008
MS_DOS: Final = 0
"""The system that a header names which was made there, or by a library that names none."""

_MADE_BY: Final = (MS_DOS, 3)
"""Systems that archives are taken from: MS-DOS, as many libraries claim, and Unix."""
_ORDINARY_ATTRIBUTES: Final = 0x21
"""MS-DOS's "read-only" and "archive"; the others are directories, labels, devices and links."""
_FOREIGN_RIGHTS: Final = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive, as its central header has it.

    Attributes:
        path: its name.
        header: what both of its headers must say.
        offset: of its local header.
    """

    path: str
    header: Header
    offset: int

    @property
    def data_offset(self) -> int:
        """Where its data begins: behind a local header that has the same name."""
        return self.offset + LOCAL.size + self.header.name_length


def header_fault(header: Header) -> str:
    """Return why a file with this header is refused, or ""."""
    if header.flags & _ENCRYPTED:
        return "is encrypted"
    if header.flags & _DATA_DESCRIPTOR:
        return "has its sizes behind its data (a data descriptor)"
    if header.flags & ~UTF8_NAME:
        return f"has flags that are not taken ({header.flags:#06x})"
    if ZIP64_LONG in (header.packed, header.size):
        return "uses zip64, which no file of a plugin needs"
    if header.extra_length:
        return "has extra fields"
    if header.method not in (STORED, DEFLATED):
        return f"is compressed by method {header.method}; only deflate (8) is taken"
    if header.needed > VERSION:
        return "needs a later version of the format"
    return ""


def tail_fault(tail: Tail, made_by: int) -> str:
    """Return why a file with this end of its central header is refused, or "".

    Args:
        tail: what only the central header says.
        made_by: the system whose attributes it has.
    """
    if tail.offset == ZIP64_LONG or tail.disk == ZIP64_SHORT:
        return "uses zip64, which no file of a plugin needs"
    if tail.disk:
        return "begins on another disk"
    if tail.comment_length:
        return "has a comment"
    if made_by not in _MADE_BY:
        return f"was packed on a system of kind {made_by}, whose attributes are not known"
    return _attributes_fault(tail.external >> 16, tail.external & 0xFFFF)


def _attributes_fault(mode: int, attributes: int) -> str:
    if stat.S_ISLNK(mode):
        return "is a symbolic link; a bundle holds regular files only"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is not a regular file"
    if mode & _FOREIGN_RIGHTS:
        return "would have somebody else's rights (setuid, setgid or sticky)"
    if attributes & ~_ORDINARY_ATTRIBUTES:
        return f"is not an ordinary file by its attributes ({attributes:#06x})"
    return ""


def size_fault(member: Member, limits: ReadLimits) -> str:
    """Return why a file that claims these sizes is refused, or ""."""
    header = member.header
    most = limits.envelope_bytes if member.path == ENVELOPE_NAME else limits.file_bytes
    if header.size > most:
        return f"has {shown_bytes(header.size)}, more than the {shown_bytes(most)} allowed"
    if header.method == STORED and header.packed != header.size:
        return "is stored, and has two different sizes"
    if header.size > max(RATIO_FREE_BYTES, MAX_RATIO * header.packed):
        packed, size = shown_bytes(header.packed), shown_bytes(header.size)
        return f"claims to inflate {packed} to {size}: that is a bomb"
    return ""


class Claims:
    """What the files of one archive claim together, against the limits."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._paths: set[str] = set()
        self._directories: set[str] = set()
        self._files = 0
        self._bytes = 0

    def add(self, member: Member) -> str:
        """Count a file; return why it is one too many, or ""."""
        path, limits = member.path, self._limits
        if path in self._paths:
            return "is there twice"
        self._paths.add(path)
        if path.count("/") >= limits.depth:
            return f"lies deeper than {limits.depth} levels"
        if path != ENVELOPE_NAME:
            self._files += 1
            self._bytes += member.header.size
        if self._files > limits.files:
            return f"is one file more than the {limits.files} allowed"
        if self._bytes > limits.total_bytes:
            return f"takes the bundle over the {shown_bytes(limits.total_bytes)} allowed"
        parent = path.rpartition("/")[0]
        while parent and parent not in self._directories:
            self._directories.add(parent)
            parent = parent.rpartition("/")[0]
        if len(self._directories) > limits.directories:
            return f"needs one directory more than {limits.directories}"
        return ""

"""Make a ``.plugin`` archive: the same bytes for the same files, whoever packs them and when.

Files are stored as they are, because what deflate makes of them depends on whose zlib it is, and
an archive whose digest was published must come out again on another machine. Compressed on
request, it is the same wherever zlib is.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_host.bundle.archive_format import (
    DEFLATED,
    FILE_MODE,
    FIRST_DAY,
    MAX_RATIO,
    MIDNIGHT,
    RATIO_FREE_BYTES,
    STORED,
    UTF8_NAME,
    VERSION,
    Header,
    Tail,
    central_header,
    end_record,
    local_header,
)
from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents
from sandbox_host.bundle.names import check_path, check_set, shown
from sandbox_host.errors import ConfigError
from sandbox_host.replacing import replacing

_LEVEL: Final = 9
_RAW: Final = -15
"""zlib's name for deflate without a header of zlib's own, with the largest window."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def archive_parts(contents: Contents, *, compress: bool = False) -> Iterator[bytes]:
    """Return the archive of a bundle and its envelope, in pieces to be written one by one.

    Args:
        contents: the files; sorted by path, whatever their order is here.
        compress: deflate those that become smaller by it.

    Raises:
        BundleError: a name is refused, or two of them are twins.
    """
    files = dict(contents.files)
    for path in files:
        check_path(path)
    check_set(files)
    if contents.envelope is not None:
        files[ENVELOPE_NAME] = contents.envelope
    central = []
    offset = 0
    for path in sorted(files):
        header, data = _entry(path, files[path], compress=compress)
        name = path.encode()
        tail = Tail(0, 0, 0, FILE_MODE, offset)
        central.append(central_header(header, tail) + name)
        start = local_header(header) + name
        yield start
        yield data
        offset += len(start) + len(data)
    directory = b"".join(central)
    yield directory
    yield end_record(len(central), len(directory), offset)


def _entry(path: str, content: bytes, *, compress: bool) -> tuple[Header, bytes]:
    method, data = STORED, content
    if compress:
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
        packed = packer.compress(content) + packer.flush()
        # What every reader would take for a bomb is stored.
        plausible = len(content) <= max(RATIO_FREE_BYTES, MAX_RATIO * len(packed))
        if len(packed) < len(content) and plausible:
            method, data = DEFLATED, packed
    header = Header(
        needed=VERSION,
        flags=0 if path.isascii() else UTF8_NAME,
        method=method,
        time=MIDNIGHT,
        date=FIRST_DAY,
        crc=zlib.crc32(content),
        packed=len(data),
        size=len(content),
        name_length=len(path.encode()),
        extra_length=0,
    )
    return header, data


@dataclass(frozen=True, slots=True)
class Packed:
    """What was written: its size in bytes, and its SHA-256 in hexadecimal, to be published."""

    size: int
    sha256: str


def write_archive(
    contents: Contents, destination: Path, *, compress: bool = False, mode: int = 0o644
) -> Packed:
    """Write the archive of a bundle and its envelope, in one step; an older file is replaced.

    Args:
        contents: what is packed.
        destination: the archive; no directory.
        compress: as for `archive_parts`.
        mode: of a new file, before the umask.

    Raises:
        BundleError: a name is refused, or two of them are twins.
        ConfigError: it cannot be written.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        parent = os.open(destination.parent, _DIRECTORY)
        try:
            with replacing(parent, destination.name, mode) as file:
                for part in archive_parts(contents, compress=compress):
                    digest.update(part)
                    size += file.write(part)
        finally:
            os.close(parent)
    except OSError as error:
        raise ConfigError(
            f"The archive {shown(str(destination))} cannot be written: {error.strerror or error}.",
            remedy="Name a file in a directory that exists, on a disk with room, with --out.",
        ) from error
    return Packed(size, digest.hexdigest())

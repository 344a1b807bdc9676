"""What was read of a bundle, and how much of it may be read: plain values, no file system."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sandbox_host.model import MIB

ENVELOPE_NAME: Final = "plugin.dsse.json"
"""The signed envelope, one file at the bundle's root; the only file that it does not cover."""

MANIFEST_NAME: Final = "plugin.json"
PACKAGE_FILE: Final = "__init__.py"


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much of a directory is read before it is refused; checked before memory is taken.

    The defaults hold the largest plugins that we know of several times over, and keep the worst
    case of one hostile directory near 64 MiB of memory and a tenth of a second.

    Attributes:
        files: regular files in the whole tree, without the envelope.
        directories: subdirectories in the whole tree.
        depth: components of a path, the file's own name included.
        file_bytes: size of one file.
        total_bytes: size of all files together.
        envelope_bytes: size of the envelope; it lists a path and a digest for each file.
    """

    files: int = 2_000
    directories: int = 2_000
    depth: int = 16
    file_bytes: int = 16 * MIB
    total_bytes: int = 64 * MIB
    envelope_bytes: int = 4 * MIB


@dataclass(frozen=True, slots=True)
class Contents:
    """The bytes of a directory, each file read once; nobody has vouched for them yet.

    Attributes:
        files: content by POSIX path relative to the root, sorted by path, without the envelope.
        envelope: the signed envelope's bytes; None where there is none.
        origin: where the bytes came from, for messages only.
    """

    files: Mapping[str, bytes]
    envelope: bytes | None
    origin: str


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()

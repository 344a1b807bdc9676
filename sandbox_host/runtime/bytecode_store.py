"""Where byte code is kept between runs: one file for each bundle and interpreter.

The host never looks into byte code: loading it is running it, nearly, and so it is for the
plugin's own process alone. Here it is bytes with the SHA-256 of the source that it was made from.
A file is found by the bundle's digest: what is in it reaches that bundle and no other, however it
came to be there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sandbox_host.bundle.archive import read_archive
from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.contents import Contents, ReadLimits
from sandbox_host.errors import BundleError, ConfigError
from sandbox_host.model import MIB
from sandbox_host.runtime.workspace import private_directory

MAX_ENTRY_BYTES: Final = 64 * MIB
"""Byte code of one bundle; sources of 20 MB make about that."""

MAX_STORE_BYTES: Final = 512 * MIB
MAX_ENTRIES: Final = 256

_SUFFIX: Final = ".bytecode"
_NAME: Final = re.compile(r"[0-9a-f]{64}\.[a-z][a-z0-9.-]{0,40}[a-z0-9]")
_LIMITS: Final = ReadLimits(depth=1, file_bytes=16 * MIB, total_bytes=MAX_ENTRY_BYTES)


class BytecodeStore:
    """The byte code of one state directory; several hosts may use it at once.

    Args:
        directory: made, with mode 0700, when the first entry is put.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, root_digest: str, interpreter: str) -> Mapping[str, bytes] | None:
        """Return what was put for a bundle and an interpreter, or None.

        An entry that is damaged is none, and removed.

        Raises:
            OSError: the directory is not ours alone, or cannot be read.
        """
        path = self._path(root_digest, interpreter)
        if not os.path.lexists(path):
            return None
        private_directory(self._directory)
        try:
            found = read_archive(path, _LIMITS).files
        except BundleError:
            path.unlink(missing_ok=True)
            return None
        os.utime(path, follow_symlinks=False)  # the least recently used is removed first
        return found

    def put(self, root_digest: str, interpreter: str, files: Mapping[str, bytes]) -> None:
        """Keep what was compiled of a bundle, and remove what was not used for longest.

        Args:
            root_digest: the bundle's, in hexadecimal.
            interpreter: names what it was compiled by and for.
            files: byte code by ``<SHA-256 of the source>.<tag>``; what is called otherwise, or is
                too much, is left out.

        Raises:
            OSError: the directory is not ours alone, or cannot be written.
        """
        private_directory(self._directory)
        path = self._path(root_digest, interpreter)
        contents = Contents(MappingProxyType(_fitting(files)), None, str(path))
        try:
            write_archive(contents, path, mode=0o600)
        except ConfigError as error:
            raise OSError(error.message) from error
        self._shrink(path.name)

    def _path(self, root_digest: str, interpreter: str) -> Path:
        return self._directory / f"{root_digest}-{interpreter}{_SUFFIX}"

    def _shrink(self, newest: str) -> None:
        """Remove the least recently used entries, what an ended host left half written included."""
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.name == newest, status.st_mtime_ns, entry.name, status))
        room, places = MAX_STORE_BYTES, MAX_ENTRIES
        for _, _, name, status in sorted(found, key=lambda one: one[:3], reverse=True):
            room, places = room - status.st_size, places - 1
            if room < 0 or places < 0:
                (self._directory / name).unlink(missing_ok=True)


def _fitting(files: Mapping[str, bytes]) -> dict[str, bytes]:
    room = MAX_ENTRY_BYTES
    kept: dict[str, bytes] = {}
    for name, data in sorted(files.items()):
        fits = len(data) <= min(room, _LIMITS.file_bytes) and len(kept) < _LIMITS.files
        if fits and _NAME.fullmatch(name):
            kept[name] = data
            room -= len(data)
    return kept

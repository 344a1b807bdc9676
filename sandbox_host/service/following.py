"""Reads the end of a plugin's log file, and what is appended, through its rotation."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 64 * 1024
"""Of one look; a line that is longer is told in pieces."""

MAX_LINES: Final = 1_000

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LogTail:
    """Follows one log file.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._part = b""

    def last(self, lines: int) -> list[str]:
        """Return the last lines that are there, and go on behind them."""
        self._open()
        if self._file is None:
            return []
        size = os.fstat(self._file.fileno()).st_size
        start = max(0, size - MAX_BYTES)
        self._file.seek(start)
        found, self._part = _split(self._file.read(MAX_BYTES))
        if start and found:
            found = found[1:]  # it began before
        return found[-lines:] if lines else []

    def new(self) -> list[str]:
        """Return the lines that came since, as many as one look gives; waits for nothing."""
        if self._file is None:
            self._open()
        if self._file is None:
            return []
        # Asked first: what was rotated is appended to no more.
        rotated = self._is_rotated(self._file)
        data = self._file.read(MAX_BYTES)
        found, self._part = _split(self._part + data)
        if len(self._part) > MAX_BYTES:
            found, self._part = [*found, _text(self._part)], b""
        if rotated and not data:
            if self._part:
                found, self._part = [*found, _text(self._part)], b""
            self.close()
        return found

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            self._file = open(os.open(self._path, _OPEN), "rb")  # noqa: SIM115 - closed by `close`

    def _is_rotated(self, file: BinaryIO) -> bool:
        try:
            now, here = os.lstat(self._path), os.fstat(file.fileno())
        except OSError:
            return True
        if os.path.samestat(now, here) and here.st_size < file.tell():
            file.seek(0)  # cut, and written anew
        return not os.path.samestat(now, here)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file is not None:
            self._file.close()
        self._file = None


def _split(data: bytes) -> tuple[list[str], bytes]:
    *whole, part = data.split(b"\n")
    return [_text(line) for line in whole], part


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")

"""Follows a journal: gives what was appended since it was last asked, through every new file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

from sandbox_host.errors import JournalError
from sandbox_host.observe.journal_files import old_files, open_to_read
from sandbox_host.observe.journal_lines import MAX_LINE_BYTES, JournalEntry, parse_line

_MAX_ENTRIES: Final = 1_000


class JournalTail:
    """Reads a journal on from where it ends now.

    Args:
        path: the journal; it need not be there yet.

    Attributes:
        unreadable: lines that were not as the host writes them, and were left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unreadable = 0
        self._file = self._opened(path)
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def new(self) -> list[JournalEntry]:
        """Return what was appended since, the oldest first, at most some 1,000; waits for nothing.

        Raises:
            JournalError: a file cannot be read.
        """
        found: list[JournalEntry] = []
        try:
            if self._file is None:
                self._file = self._opened(self._path)
            # As many files as there may be, and one more for what was appended last.
            while self._file is not None and len(found) < _MAX_ENTRIES:
                after = self._next_file(self._file)
                self._read(self._file, found)
                if after is None:
                    break
                if len(found) < _MAX_ENTRIES:
                    self.close()
                    self._file = self._opened(after)
        except OSError as error:
            text = f"The journal {self._path} cannot be read: {error.strerror or error}."
            raise JournalError(text) from None
        return found

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _opened(self, path: Path) -> BinaryIO | None:
        try:
            return open_to_read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            text = f"The journal {self._path} cannot be read: {error.strerror or error}."
            raise JournalError(text) from None

    def _next_file(self, file: BinaryIO) -> Path | None:
        """Return the file after the one that is open; None where that is the newest.

        Asked before the rest of it is read: what was put away is appended to no more.
        """
        status = os.fstat(file.fileno())
        files = [*old_files(self._path), self._path]
        for number, one in enumerate(files):
            if os.path.lexists(one) and os.path.samestat(status, os.lstat(one)):
                return files[number + 1] if number + 1 < len(files) else None
        return files[0]  # it was removed, or put aside: what there is now is another journal

    def _read(self, file: BinaryIO, found: list[JournalEntry]) -> None:
        while len(found) < _MAX_ENTRIES:
            here = file.tell()
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
                file.seek(here)  # it is being written
                return
            entry = parse_line(line)
            if isinstance(entry, JournalEntry):
                found.append(entry)
            else:
                self.unreadable += 1

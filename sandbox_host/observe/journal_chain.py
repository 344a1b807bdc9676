"""The newest file of a journal as far as it was read: where its chain stands, and what breaks it.

It is read on from where it stands, never again from the beginning: a line that was good once is
looked at again by the next who opens the journal.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from sandbox_host.observe.journal_files import JournalFault
from sandbox_host.observe.journal_head import Head, Mark
from sandbox_host.observe.journal_lines import (
    GENESIS,
    MAX_LINE_BYTES,
    ROTATED,
    JournalEntry,
    parse_line,
    successor_fault,
)


class BrokenChainError(Exception):
    """The journal is not as the host wrote it.

    Attributes:
        fault: the line and why.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.fault = JournalFault(line, reason)


class Chain:
    """What was read of the newest file.

    Args:
        synced: a line that is on the disk, if it is in this file.

    Attributes:
        first: the first line of the file, or None.
        last: the last one.
        end: where the next one begins, in bytes.
        lines: how many there are.
    """

    def __init__(self, synced: Mark) -> None:
        self._synced = synced
        self.first: JournalEntry | None = None
        self.last: JournalEntry | None = None
        self.end = 0
        self.lines = 0

    @property
    def mark(self) -> Mark:
        """The last line."""
        return Mark.of(self.last)

    def read_on(self, fd: int) -> bytes:
        """Read from where we are to the end of the file; return what is no whole line yet.

        Raises:
            BrokenChainError: a line is not the host's, or does not follow the one before it.
            OSError: it cannot be read.
        """
        with reading_again(fd) as file:
            file.seek(self.end)
            while line := file.readline(MAX_LINE_BYTES + 1):
                if not line.endswith(b"\n"):
                    if len(line) > MAX_LINE_BYTES:
                        raise self._broken("it is longer than the host writes")
                    return line
                self._read(line)
        return b""

    def catch_up(self, fd: int) -> None:
        """Read what another process has appended; the file is locked.

        Raises:
            BrokenChainError: as `read_on`, and where the file was cut or ends with half a line.
            OSError: it cannot be read.
        """
        size = os.fstat(fd).st_size
        if size < self.end:
            raise BrokenChainError(self.lines, "it, or a part of it, was cut off")
        if size > self.end and self.read_on(fd):
            raise self._broken("it is unfinished")

    def _read(self, line: bytes) -> None:
        entry = parse_line(line)
        if isinstance(entry, str):
            raise self._broken(entry)
        # What the first line of a later file goes on from, `old_files_fault` checks.
        later = self.first is None and entry.event == ROTATED and entry.prev != GENESIS
        if not later and (reason := successor_fault(entry, self.last)):
            raise self._broken(reason)
        if entry.seq == self._synced.seq and entry.hash != self._synced.hash:
            raise self._broken("it is another than the one that was written")
        self.add(entry)

    def add(self, entry: JournalEntry) -> None:
        """Stand behind `entry`, which is in the file now."""
        self.first = self.first or entry
        self.last = entry
        self.end += len(entry.line())
        self.lines += 1

    def lost(self, head: Head | None, boot: str, *, unfinished: bool) -> int:
        """Compare the end with the head; return how many lines were lost when the machine stopped.

        Args:
            head: what it says, or None where there is none.
            boot: the id of the machine's start now.
            unfinished: whether half a line follows.

        Raises:
            BrokenChainError: the journal does not end as its head says.
        """
        if head is None:
            if self.last is not None:
                raise BrokenChainError(
                    self.lines, "the head, which says that it is the last, is gone"
                )
            return 0
        seq, written = self.mark.seq, head.written
        if head.boot != boot and written.seq:
            if seq < head.synced.seq:
                raise self._broken("it is missing, and it was on the disk")
            if seq == written.seq:
                self._check_known(written, self.mark)
            return max(0, written.seq - seq)
        if seq < written.seq:
            raise self._broken(f"{'a part of it' if unfinished else 'it'} was cut off")
        # One more than the head knows: the host was killed between the two.
        before = Mark(seq - 1, self.last.prev) if self.last else Mark()
        self._check_known(written, self.mark, before)
        return 0

    def _check_known(self, written: Mark, *ends: Mark) -> None:
        if written not in ends:
            raise BrokenChainError(self.lines, "it is another than the one that was written")

    def _broken(self, reason: str) -> BrokenChainError:
        return BrokenChainError(self.lines + 1, reason)


def reading_again(fd: int) -> BinaryIO:
    """Return a file to read what is open as `fd`, which stays open and locked."""
    return os.fdopen(os.dup(fd), "rb")

"""The files of one journal, and the walk over all of them that finds what the host did not write.

``journal.jsonl`` is appended to. At `MAX_FILE_BYTES` it becomes ``journal.000000000001.jsonl``,
after the number of its first line, and the next one begins with a line that names it, with its
SHA-256. The chain goes on: ``prev`` of that line is the hash of the last one before. `KEPT_FILES`
of the old ones stay.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sandbox_host.errors import JournalError
from sandbox_host.observe.journal_head import Mark, boot_id, head_path, read_head
from sandbox_host.observe.journal_lines import (
    GENESIS,
    MAX_LINE_BYTES,
    ROTATED,
    JournalEntry,
    parse_line,
    successor_fault,
)

MAX_FILE_BYTES: Final = 512 * 1024
"""Some 1,500 lines. A host reads its newest file line by line before it starts, and compares the
digests of the others: with all there can be some 0.1 s."""

KEPT_FILES: Final = 31
"""Old files; with the newest, some 16 MiB in all."""

UNFINISHED: Final = "unfinished, or longer than the host writes"

_CHUNK: Final = 1 << 18
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class JournalFault:
    """The first line of a journal that is not as the host wrote it.

    Attributes:
        line: its number, from 1, in its file.
        reason: what is wrong with it.
        file: the name of the file; "" where it is the newest.
    """

    line: int
    reason: str
    file: str = ""

    def __str__(self) -> str:
        return f"line {self.line}{f' of {self.file}' if self.file else ''}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk over a journal found.

    Attributes:
        fault: the first line that is not as the host wrote it, or None.
        lines: how many lines are good.
        files: how many files there are.
        last: the last good line.
        has_head: whether there is a head, without which nothing tells of lines cut off the end.
    """

    fault: JournalFault | None
    lines: int
    files: int
    last: JournalEntry | None
    has_head: bool


def old_file(journal: Path, first: int) -> Path:
    """Return the name of the old file whose first line is number `first`."""
    return journal.with_suffix(f".{first:012d}{journal.suffix}")


def old_files(journal: Path) -> list[Path]:
    """Return the old files of a journal, the oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    form = re.compile(rf"{re.escape(journal.stem)}\.\d{{12}}{re.escape(journal.suffix)}")
    try:
        newest = os.lstat(journal).st_ino
    except FileNotFoundError:
        newest = -1
    with suppress(FileNotFoundError), os.scandir(journal.parent) as entries:
        # One that is also the newest was about to be put away when the host was killed.
        found = [e.name for e in entries if form.fullmatch(e.name) and e.inode() != newest]
        return [journal.with_name(name) for name in sorted(found)]
    return []


def open_to_read(path: Path) -> BinaryIO:
    """Open a file of the journal.

    Raises:
        OSError: it cannot be opened, is a link, or is no regular file.
    """
    # A FIFO in its place must not hold up a host that starts, nor whoever looks what is wrong.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(None, f"{path.name} is no regular file")
    return os.fdopen(fd, "rb")


def digest(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file from its beginning, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    file.seek(0)
    found = hashlib.sha256()
    while data := file.read(_CHUNK):
        found.update(data)
    return found.hexdigest()


def rotation_detail(old: Path, sha256: str) -> str:
    """Return what the first line of a file says of the one before it."""
    return f"goes on from {old.name}, SHA-256 {sha256}"


class _Walker:
    """Goes from line to line; holds the end of the chain so far."""

    def __init__(self, mark: Mark) -> None:
        self.last: JournalEntry | None = None
        self.lines = 0
        self._mark = mark
        self.met = mark.seq == 0  # the mark's line was there

    def walk(self, file: BinaryIO, before: str, cut: bool) -> JournalFault | None:
        """Read one file.

        Args:
            file: at its beginning.
            before: what its first line must say; "" for the first line of a journal.
            cut: whether this is the oldest file there is, of a journal that had older ones.
        """
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if not line.endswith(b"\n"):
                return JournalFault(number, UNFINISHED)
            entry = parse_line(line)
            if isinstance(entry, str):
                return JournalFault(number, entry)
            if number == 1 and (reason := self._first_fault(entry, before, cut)):
                return JournalFault(number, reason)
            if not (number == 1 and cut) and (reason := successor_fault(entry, self.last)):
                return JournalFault(number, reason)
            if reason := self._mark_fault(entry):
                return JournalFault(number, reason)
            self.last = entry
            self.lines += 1
        return None

    def _first_fault(self, entry: JournalEntry, before: str, cut: bool) -> str:
        if cut:
            return "" if entry.event == ROTATED else "the lines before it were removed"
        if before and (entry.event != ROTATED or entry.detail != before):
            return "it does not go on from the file before it, as that file is now"
        return ""

    def _mark_fault(self, entry: JournalEntry) -> str:
        if entry.seq == self._mark.seq:
            self.met = entry.hash == self._mark.hash
            return "" if self.met else "it is another than the one that the journal's head knows"
        return ""


def walk_journal(path: Path) -> Walk:
    """Read a whole journal, line by line in bounded memory; nothing is changed.

    A host may write to it meanwhile.

    Raises:
        JournalError: a file cannot be read, or the head is not as the host writes it.
    """
    walk = Walk(None, 0, 0, None, False)
    for _ in range(_ATTEMPTS):
        try:
            files = [*old_files(path), path]
            walk = _walk(path, files)
            unchanged = files == [*old_files(path), path]
        except FileNotFoundError as error:
            if not os.path.lexists(path):
                raise _unreadable(path, error) from None
            continue  # put away meanwhile
        except OSError as error:
            raise _unreadable(path, error) from None
        if unchanged and (walk.fault is None or walk.fault.reason != UNFINISHED):
            break
    return walk


def _walk(path: Path, files: list[Path]) -> Walk:
    head = read_head(path)  # first: what is written later is no fault
    walker = _Walker(head.written if head else Mark())
    before = ""
    # A journal that lost old files has as many left as are kept.
    cut = len(files) > KEPT_FILES and not _begins(files[0])
    for count, one in enumerate(files, 1):
        with open_to_read(one) as file:
            fault = walker.walk(file, before, cut and count == 1)
            if fault:
                name = one.name if one != path else ""
                fault = JournalFault(fault.line, fault.reason, name)
                return Walk(fault, walker.lines, len(files), walker.last, head is not None)
            before = rotation_detail(one, digest(file)) if one != path else ""
    fault = None
    if not walker.met and head and not _lost_with_machine(head.boot, head.synced, walker.last):
        fault = _end_fault(path, walker.last, head.written)
    return Walk(fault, walker.lines, len(files), walker.last, head is not None)


def _begins(path: Path) -> bool:
    with open_to_read(path) as file:
        entry = parse_line(file.readline(MAX_LINE_BYTES + 1))
    return isinstance(entry, JournalEntry) and entry.prev == GENESIS


def _lost_with_machine(boot: str, synced: Mark, last: JournalEntry | None) -> bool:
    """Tell whether the kernel may have lost the lines after `last`, having had them only itself."""
    return boot != boot_id() and synced.seq <= (last.seq if last else 0)


def _end_fault(path: Path, last: JournalEntry | None, written: Mark) -> JournalFault:
    return JournalFault(
        lines_in(path) + 1,
        f"it is missing: {head_path(path).name} says that the journal went on to the line with "
        f"seq {written.seq}, and it ends with {last.seq if last else 0}",
    )


def lines_in(path: Path) -> int:
    """Return how many lines a file has.

    Raises:
        OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        return sum(data.count(b"\n") for data in iter(lambda: file.read(_CHUNK), b""))


def old_files_fault(path: Path, first: JournalEntry | None) -> JournalFault | None:
    """Compare the digests of all old files with what the file after each says of it.

    Much faster than reading their lines, and as sure: what the chain of files is hung on, the
    caller has read line by line.

    Args:
        path: the journal.
        first: the first line of the newest file.

    Raises:
        OSError: a file cannot be read.
    """
    files = old_files(path)
    name, said = "", first
    while said is not None and said.event == ROTATED and said.prev != GENESIS:
        if not files:
            count = len(old_files(path))
            missing = JournalFault(1, "the file before it is missing", name)
            return missing if count < KEPT_FILES else None
        one = files.pop()
        with open_to_read(one) as file:
            if said.detail != rotation_detail(one, digest(file)):
                differs = JournalFault(1, f"{one.name} is not as this line says", name)
                return walk_journal(path).fault or differs
            file.seek(0)
            entry = parse_line(file.readline(MAX_LINE_BYTES + 1))
        name, said = one.name, entry if isinstance(entry, JournalEntry) else None
    if files:
        return JournalFault(1, f"it does not go on from {files[-1].name}, which is there", name)
    return None


def entries(path: Path) -> Iterator[JournalEntry]:
    """Give the entries of one file; lines that are not as the host writes them are left out.

    Raises:
        OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            entry = parse_line(line)
            if isinstance(entry, JournalEntry):
                yield entry


def last_entries(
    path: str | os.PathLike[str], event: str = "", most: int = 50, *, plugin: str = ""
) -> list[JournalEntry]:
    """Return the last entries of a journal, the oldest first; none where there is no journal.

    Reads line by line in bounded memory, old files as far as they are needed. A line that is not
    as the host writes it is left out: `verify_journal` tells of those.

    Args:
        path: the journal.
        event: which ones; "" for all.
        most: how many at most.
        plugin: an identity; "" for all.

    Raises:
        JournalError: a file cannot be read.
    """
    journal = Path(path)
    found: list[JournalEntry] = []
    try:
        for one in (journal, *reversed(old_files(journal))):
            with suppress(FileNotFoundError):
                part = deque(
                    (
                        e
                        for e in entries(one)
                        if event in {"", e.event} and plugin in {"", e.plugin}
                    ),
                    maxlen=most,
                )
                found = [*part, *found]
            if len(found) >= most:
                break
    except OSError as error:
        raise _unreadable(journal, error) from None
    return found[-most:]


def verify_journal(path: str | os.PathLike[str]) -> JournalFault | None:
    """Return the first line that is not as the host wrote it, or None where all are.

    Reads all files of the journal line by line in bounded memory; never changes them. Where its
    head is missing, as beside a copy, lines cut off the end do not show.

    Raises:
        JournalError: a file cannot be read.
    """
    return walk_journal(Path(path)).fault


def _unreadable(path: Path, error: OSError) -> JournalError:
    return JournalError(f"The journal {path} cannot be read: {error.strerror or error}.")

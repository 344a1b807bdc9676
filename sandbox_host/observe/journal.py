"""The journal: append-only JSON lines, each holding the hash of the one before it.

A line that was changed, removed, inserted or moved breaks the chain, and `verify_journal` names
it. What a chain alone cannot show is that lines were cut off the *end*: an operator who needs
that keeps `Journal.head` elsewhere, such as in a remote log.

Several processes may share one file: each append holds a lock on it and continues from its end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from sandbox_host.errors import JournalError
from sandbox_host.reading import escaped

MAX_NAME_LENGTH: Final = 64
MAX_DETAIL_LENGTH: Final = 2_000
MAX_LINE_BYTES: Final = 32 * 1024
"""A line is shorter whatever its texts: a character takes at most 12 bytes as a JSON escape."""

GENESIS: Final = "0" * 64
REPAIRED: Final = "journal-repaired"

_FIELDS: Final = ("seq", "time", "event", "plugin", "detail", "prev", "hash")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line.

    Attributes:
        seq: 1 for the first line of a file, increasing by one.
        time: when it was written, ISO 8601 in UTC.
        event: what happened, such as "admitted" or "killed".
        plugin: identity of the plugin it happened to; "" for the host.
        detail: the rest, for people.
        prev: hash of the line before; 64 zeros in the first.
        hash: SHA-256 of this line without its hash, in hex.
    """

    seq: int
    time: str
    event: str
    plugin: str
    detail: str
    prev: str
    hash: str

    def line(self) -> bytes:
        """Return the entry as its file holds it, with the line's end."""
        return _encode(asdict(self)) + b"\n"


@dataclass(frozen=True, slots=True)
class JournalFault:
    """The first line of a journal that is not as the host wrote it.

    Attributes:
        line: its number, from 1.
        reason: what is wrong with it.
    """

    line: int
    reason: str


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode()


def _sealed(seq: int, time: str, event: str, plugin: str, detail: str, prev: str) -> JournalEntry:
    fields = dict(zip(_FIELDS, (seq, time, event, plugin, detail, prev), strict=False))
    return JournalEntry(
        seq, time, event, plugin, detail, prev, hashlib.sha256(_encode(fields)).hexdigest()
    )


def _parse(line: bytes) -> JournalEntry | str:
    """Return the entry of a whole line, or why it is none. The line must be canonical."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(fields, dict) or tuple(fields) != _FIELDS:
        return f"expected the keys {', '.join(_FIELDS)}"
    seq, texts = fields["seq"], [fields[name] for name in _FIELDS[1:-1]]
    if type(seq) is not int or not all(isinstance(text, str) for text in texts):
        return "a value has another type than the host writes"
    entry = _sealed(seq, *texts)
    if entry.hash != fields["hash"]:
        return "its hash does not match its contents"
    if entry.line() != line:
        return "written in another way than the host writes"
    return entry


def _successor_fault(entry: JournalEntry, before: JournalEntry | None) -> str:
    """Return why `entry` cannot follow `before`, or ""."""
    if entry.seq != (before.seq + 1 if before else 1):
        return f"its seq is {entry.seq}, so that lines before it were removed, added or moved"
    if entry.prev != (before.hash if before else GENESIS):
        return "it continues another line than the one before it"
    return ""


def _first_fault(file: BinaryIO) -> JournalFault | None:
    before: JournalEntry | None = None
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if not line.endswith(b"\n"):
            return JournalFault(number, "unfinished, or longer than the host writes")
        entry = _parse(line)
        if isinstance(entry, str):
            return JournalFault(number, entry)
        if fault := _successor_fault(entry, before):
            return JournalFault(number, fault)
        before = entry
    return None


def verify_journal(path: str | os.PathLike[str]) -> JournalFault | None:
    """Return the first line that is not as the host wrote it, or None where all are.

    Reads line by line in bounded memory; never changes the file.

    Raises:
        JournalError: the file cannot be read.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return _first_fault(file)
    except OSError as error:
        raise JournalError(f"The journal {path} cannot be read: {error.strerror}.") from None


def last_entries(
    path: str | os.PathLike[str], event: str, most: int, *, plugin: str = ""
) -> list[JournalEntry]:
    """Return the last entries of an event, the oldest first; nothing where there is no journal.

    Reads line by line in bounded memory. A line that is not as the host writes it is left out:
    `verify_journal` tells of those.

    Args:
        path: the journal.
        event: which ones.
        most: how many at most.
        plugin: an identity; "" for all.

    Raises:
        JournalError: the file cannot be read.
    """
    found: deque[JournalEntry] = deque(maxlen=most)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                entry = _parse(line)
                if not isinstance(entry, JournalEntry) or entry.event != event:
                    continue
                if plugin in {"", entry.plugin}:
                    found.append(entry)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(f"The journal {path} cannot be read: {error.strerror}.") from None
    return list(found)


def utc_now() -> datetime:
    """Return the wall clock's time in UTC."""
    return datetime.now(UTC)


class Journal:
    """A journal open for appending; safe to use from several threads.

    Args:
        path: the file; made with mode 0600 if it is not there, its directory with 0700.
        clock: returns the time of a line, with its zone.

    Attributes:
        repaired: what was cut off because the last line was unfinished (the machine stopped while
            it was written), as the line that tells it says; "" where nothing was.

    Raises:
        JournalError: the file cannot be opened, is a link or no regular file, belongs to somebody
            else, or its last line is not one that the host wrote.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self.repaired = ""
        self._clock = clock
        self._lock = threading.Lock()
        self._last: JournalEntry | None = None
        self._end = 0
        self._fd = self._open()
        try:
            with self._lock, self._locked():
                self._catch_up()
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise JournalError(
                f"The journal {self.path} cannot be opened: {error.strerror}.",
                remedy="Make its directory writable for the host, and let no link stand there.",
            ) from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(fd)
            raise JournalError(
                f"The journal {self.path} is no regular file of the host's own user.",
                remedy="Move it aside; the host makes a new one.",
            )
        os.fchmod(fd, 0o600)
        return fd

    def _locked(self) -> _FileLock:
        return _FileLock(self._fd)

    @property
    def head(self) -> tuple[int, str]:
        """Sequence number and hash of the last line; (0, 64 zeros) in an empty journal."""
        return (self._last.seq, self._last.hash) if self._last else (0, GENESIS)

    def append(self, event: str, plugin: str = "", detail: str = "") -> JournalEntry:
        """Write one line and return it.

        Args:
            event: at most 64 characters.
            plugin: identity, at most 64 characters; "" for the host.
            detail: at most 2,000 characters.

        Longer texts are cut, control characters written as escapes: no text can forge a line. The
        line is in the kernel's hands when this returns; it is not forced to the disk.

        Raises:
            JournalError: it cannot be written, or the file was changed by something else.
        """
        with self._lock, self._locked():
            self._catch_up()
            return self._write(event, plugin, detail)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, event: str, plugin: str, detail: str) -> JournalEntry:
        seq, prev = self.head
        entry = _sealed(
            seq + 1,
            self._clock().astimezone(UTC).isoformat(timespec="microseconds"),
            escaped(event, MAX_NAME_LENGTH),
            escaped(plugin, MAX_NAME_LENGTH),
            escaped(detail, MAX_DETAIL_LENGTH),
            prev,
        )
        line = entry.line()
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(None, "only a part of the line could be written")
        except OSError as error:
            # A part of a line would be repaired at the next start; do it now if the disk allows.
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise JournalError(
                f"The journal {self.path} cannot be written: {error.strerror}.",
                remedy="Make room on its disk; nothing is admitted without a journal.",
            ) from None
        self._last = entry
        self._end += len(line)
        return entry

    def _catch_up(self) -> None:
        """Continue from what the file ends with now; another process may have appended."""
        size = os.fstat(self._fd).st_size
        if size == self._end:
            return
        tail = os.pread(self._fd, min(size, 2 * MAX_LINE_BYTES), max(0, size - 2 * MAX_LINE_BYTES))
        whole, newline, partial = tail.rpartition(b"\n")
        if size < self._end or len(partial) > MAX_LINE_BYTES or (not newline and size > len(tail)):
            raise self._damaged("it was cut, or ends with a line longer than the host writes")
        self._last = self._entry_of(whole.rpartition(b"\n")[2] + newline) if newline else None
        self._end = size - len(partial)
        if partial:
            os.ftruncate(self._fd, self._end)
            self.repaired = f"cut off an unfinished last line of {len(partial)} bytes: " + escaped(
                partial[:200].decode("ascii", "backslashreplace"), 400
            )
            self._write(REPAIRED, "", self.repaired)

    def _entry_of(self, line: bytes) -> JournalEntry:
        entry = _parse(line)
        if isinstance(entry, str):
            raise self._damaged(f"its last line is not one of the host's: {entry}")
        return entry

    def _damaged(self, reason: str) -> JournalError:
        return JournalError(
            f"The journal {self.path} was changed by something else than the host: {reason}.",
            remedy="Keep it as evidence and move it aside; the host makes a new one.",
        )


class _FileLock:
    """Holds an exclusive lock on an open file while its block runs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        if self._fd < 0:
            raise JournalError("The journal is closed.", remedy="Append before the host closes.")
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

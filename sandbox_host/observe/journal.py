"""The journal: append-only JSON lines, each holding the hash of the one before it.

A line that was changed, removed, inserted or moved breaks the chain; lines cut off the end show
beside the head (`journal_head`). Whoever opens the journal reads its newest file line by line and
compares the digests of the older ones, which is bounded by their sizes, and refuses to append to
what the host did not write: `journal_new` puts it aside.

Several processes may share one journal: each append holds a lock on its file and continues from
its end, in the file that is the newest by then.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from sandbox_host.errors import JournalError
from sandbox_host.observe import journal_files
from sandbox_host.observe.journal_chain import BrokenChainError, Chain
from sandbox_host.observe.journal_files import (
    JournalFault,
    last_entries,
    old_files,
    old_files_fault,
    verify_journal,
)
from sandbox_host.observe.journal_head import HeadFile, Mark, boot_id, head_path
from sandbox_host.observe.journal_lines import (
    GENESIS,
    MAX_DETAIL_LENGTH,
    MAX_LINE_BYTES,
    MAX_NAME_LENGTH,
    REPAIRED,
    ROTATED,
    JournalEntry,
    seal,
)
from sandbox_host.observe.journal_rotation import put_away
from sandbox_host.reading import escaped

__all__ = [
    "GENESIS",
    "MAX_LINE_BYTES",
    "Journal",
    "JournalEntry",
    "JournalFault",
    "last_entries",
    "utc_now",
    "verify_journal",
]

LOCK_SECONDS: Final = 5.0
"""So long is waited for another process that has the journal; it has it for milliseconds."""

_OPEN: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PAUSE_SECONDS: Final = 0.001
_MANY_LINES: Final = 64
"""So many may be with the kernel alone when a journal is opened: to force them takes its time."""

_NEXT_STEP: Final = (
    "See `sandbox-host journal verify`; `sandbox-host journal new --reason TEXT` keeps it aside as "
    "evidence and begins another."
)


def utc_now() -> datetime:
    """Return the wall clock's time in UTC."""
    return datetime.now(UTC)


class Journal:
    """A journal open for appending; safe to use from several threads.

    Args:
        path: the newest file; made with mode 0600 if it is not there, its directory with 0700.
        clock: returns the time of a line, with its zone.
        forward: is given every entry that was written, to send it elsewhere; must not wait.

    Attributes:
        repaired: what was lost when the machine stopped, an unfinished last line perhaps, as the
            line that tells it says; "" where nothing was.

    Raises:
        JournalError: the file cannot be opened, is a link or no regular file, belongs to somebody
            else, or holds what the host did not write; the message names the line.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = utc_now,
        *,
        forward: Callable[[JournalEntry], None] | None = None,
    ) -> None:
        self.path = path
        self.repaired = ""
        self._clock = clock
        self._forward = forward
        self._lock = threading.Lock()
        self._fd = -1
        self._head: HeadFile | None = None
        self._chain = Chain(Mark())
        self._closed = False
        with self._lock, _Held(self):
            pass

    @property
    def head(self) -> tuple[int, str]:
        """Sequence number and hash of the last line; (0, 64 zeros) in an empty journal."""
        return self._chain.mark.seq, self._chain.mark.hash

    def append(self, event: str, plugin: str = "", detail: str = "") -> JournalEntry:
        """Write one line and return it.

        Args:
            event: at most 64 characters.
            plugin: identity, at most 64 characters; "" for the host.
            detail: at most 2,000 characters.

        Longer texts are cut, control characters written as escapes: no text can forge a line. The
        line is in the kernel's hands when this returns; `sync` forces it to the disk.

        Raises:
            JournalError: it cannot be written, or the file was changed by something else.
        """
        with self._lock, _Held(self):
            entry = self._write(event, plugin, detail)
        if self._forward is not None:
            self._forward(entry)
        return entry

    def sync(self) -> None:
        """Force what was written to the disk; takes some milliseconds.

        Raises:
            JournalError: the disk does not take it.
        """
        with self._lock, _Held(self) as head:
            head.sync(self._fd)

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        with self._lock:
            self._closed = True
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- opening, and holding the lock --------------------------------------------------------

    def _hold(self) -> HeadFile:
        """Lock the newest file, whichever it is by then, and read it to its end."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            if self._closed:
                raise JournalError(
                    "The journal is closed.", remedy="Append before the host closes."
                )
            fresh = self._head is None
            head = self._head or self._begin()
            if self._try_lock(self._fd) and self._is_newest():
                if fresh:
                    self._finish_opening(head)
                else:
                    self._chain.catch_up(self._fd)
                return head
            if time.monotonic() > until:
                text = f"The journal {self.path} is locked by another process, which keeps it."
                raise JournalError(text, remedy="Find out what that process waits for.")
            if not self._is_newest():
                self._drop()  # another host, or an operator, has put it away
            time.sleep(_PAUSE_SECONDS)

    @staticmethod
    def _try_lock(fd: int) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _is_newest(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _release(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _begin(self) -> HeadFile:
        """Open the newest file, and read it without its lock: others go on appending meanwhile."""
        self._fd = self._open()
        self._head = head = HeadFile(self.path)
        said = head.read()
        self._chain = Chain(said.synced if said else Mark())
        self._chain.read_on(self._fd)
        return head

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Where there is something beside it, it was removed: that is told, not made good.
            known = os.path.lexists(head_path(self.path)) or bool(old_files(self.path))
            fd = os.open(self.path, _OPEN if known else _OPEN | os.O_CREAT, 0o600)
        except FileNotFoundError:
            raise BrokenChainError(
                1, "the file was removed; what is kept beside it was not"
            ) from None
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
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            os.close(fd)
            raise JournalError(
                f"The journal {self.path} can be written by its group or by others, so that "
                "nothing in it proves anything.",
                remedy="Find out who did that; then begin another: `sandbox-host journal new`.",
            )
        os.fchmod(fd, 0o600)
        return fd

    def _finish_opening(self, head: HeadFile) -> None:
        """Check the rest, and the end, now that nobody appends."""
        chain = self._chain
        left = chain.read_on(self._fd)
        if fault := old_files_fault(self.path, chain.first):
            raise self._damaged(fault)
        said = head.read()
        lost = chain.lost(said, boot_id(), unfinished=bool(left))
        if said is None:
            head.write(None)
        self._repair(left, lost)
        head.sync(self._fd, _MANY_LINES)

    def _repair(self, left: bytes, lost: int) -> None:
        """Cut off what the machine's stop left unfinished, and say so."""
        told = []
        if lost:
            told.append(f"after line {self._chain.lines}, {lost} were lost with the machine's stop")
        if left:
            os.ftruncate(self._fd, self._chain.end)
            shown = escaped(left[:200].decode("ascii", "backslashreplace"), 400)
            told.append(f"cut off an unfinished last line of {len(left)} bytes: {shown}")
        if told:
            self.repaired = "; ".join(told)
            self._write(REPAIRED, "", self.repaired)

    # -- writing ------------------------------------------------------------------------------

    def _write(self, event: str, plugin: str, detail: str) -> JournalEntry:
        assert self._head is not None  # noqa: S101 - it is held
        if self._chain.end >= journal_files.MAX_FILE_BYTES:
            self._rotate()
        entry = self._sealed(event, plugin, detail)
        line = entry.line()
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(None, "only a part of the line could be written")
            self._head.write(entry)
        except OSError:
            # A part of a line would be repaired at the next start; do it now if the disk allows.
            with suppress(OSError):
                os.ftruncate(self._fd, self._chain.end)
            raise
        self._chain.add(entry)
        return entry

    def _sealed(self, event: str, plugin: str, detail: str) -> JournalEntry:
        seq, prev = self.head
        return seal(
            seq + 1,
            self._clock().astimezone(UTC).isoformat(timespec="microseconds"),
            escaped(event, MAX_NAME_LENGTH),
            escaped(plugin, MAX_NAME_LENGTH),
            escaped(detail, MAX_DETAIL_LENGTH),
            prev,
        )

    def _rotate(self) -> None:
        """Go on in a new file, whose lock is held as the old one's was."""
        first = self._chain.first
        if first is None or self._head is None:
            return
        fresh = put_away(
            self.path, self._fd, first, lambda detail: self._sealed(ROTATED, "", detail)
        )
        # The rest is nobody's business but ours: it was locked before it had its name.
        os.close(self._fd)
        self._fd = fresh
        self._chain = Chain(Mark())
        self._chain.read_on(self._fd)
        self._head.write(self._chain.last)
        self._head.sync(self._fd)

    # -- small change -------------------------------------------------------------------------

    def _drop(self) -> None:
        if self._head is not None:
            self._head.close()
        self._head = None
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _damaged(self, fault: JournalFault) -> JournalError:
        return JournalError(
            f"The journal {self.path} was changed by something else than the host: {fault}.",
            remedy=_NEXT_STEP,
        )


class _Held:
    """Holds a journal's lock while its block runs, and says what went wrong in the user's words."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> HeadFile:
        try:
            return self._journal._hold()  # noqa: SLF001 - its other half
        except BaseException as error:
            self._journal._drop()  # noqa: SLF001
            self._tell(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with suppress(OSError):
            self._journal._release()  # noqa: SLF001
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        if isinstance(error, BrokenChainError):
            raise self._journal._damaged(error.fault) from None  # noqa: SLF001
        if isinstance(error, OSError):
            raise JournalError(
                f"The journal {self._journal.path} cannot be written: {error.strerror or error}.",
                remedy="Make room on its disk; nothing is admitted without a journal.",
            ) from None

"""The journal's head: where the journal ended, kept in a small file beside it.

A chain of hashes shows every change but one: lines cut off its end. The head shows that too. It
has two marks. ``written`` moves with every line; ``synced`` only when the lines before it were
forced to the disk. After a kill of the host the kernel still has what was written, so that the
journal must end where ``written`` says, or one line later. After a stop of the whole machine lines
may be missing that the kernel had not put on the disk, but none before ``synced``; the boot id
tells the two apart (random(4), "/proc interfaces").

Whoever may write to the state directory can forge both files: they tell of accidents and of edits
by hand. Against such an attacker, forward the journal to another machine.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sandbox_host.errors import JournalError
from sandbox_host.observe.journal_lines import GENESIS, JournalEntry

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_FORM: Final = re.compile(
    rb"sandbox-host journal head 1\n"
    rb"synced (\d{20}) ([0-9a-f]{64})\nwritten (\d{20}) ([0-9a-f]{64})\nboot ([0-9a-f-]{36})\n"
)
_MAX_BYTES: Final = 512
_NO_BOOT: Final = "0" * 36


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the journal, by its number and hash."""

    seq: int = 0
    hash: str = GENESIS

    @classmethod
    def of(cls, entry: JournalEntry | None) -> Mark:
        """Return the mark of an entry; of the beginning, where there is none."""
        return cls(entry.seq, entry.hash) if entry else cls()


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a journal's end.

    Attributes:
        synced: the last line that is known to be on the disk.
        written: the last line that was written.
        boot: id of the machine's start in which that was.
    """

    synced: Mark = Mark()
    written: Mark = Mark()
    boot: str = _NO_BOOT


def boot_id() -> str:
    """Return the id of the machine's start; zeros where the system has none."""
    try:
        text = _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return _NO_BOOT
    return text if re.fullmatch("[0-9a-f-]{36}", text) else _NO_BOOT


def head_path(journal: Path) -> Path:
    """Return where the head of the journal at `journal` is."""
    return journal.with_suffix(".head")


def read_head(journal: Path) -> Head | None:
    """Return the head of the journal at `journal`; None where there is no such file.

    Raises:
        JournalError: it is not as the host writes it, or cannot be read.
    """
    path = head_path(journal)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.pread(fd, _MAX_BYTES, 0)
            return _parsed(data, path) if data else None  # it was just made
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"The journal's head {path} cannot be read: {error.strerror}.") from None


def _parsed(data: bytes, path: Path) -> Head:
    match = _FORM.fullmatch(data)
    if match is None:
        raise JournalError(
            f"The journal's head {path} is not as the host writes it, so that nothing tells "
            "whether lines were cut off the journal's end.",
            remedy="See `sandbox-host journal verify`; `sandbox-host journal new --reason TEXT` "
            "keeps the old journal aside and begins another.",
        )
    synced, synced_hash, written, written_hash, boot = (part.decode() for part in match.groups())
    return Head(Mark(int(synced), synced_hash), Mark(int(written), written_hash), boot)


class HeadFile:
    """The head, open for writing; callers hold the journal's lock.

    Args:
        journal: the journal's path.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, journal: Path) -> None:
        self._path = head_path(journal)
        self._boot = boot_id()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            self.close()
            raise OSError(None, "its head is no regular file of the host's own user")
        os.fchmod(self._fd, 0o600)

    def read(self) -> Head | None:
        """Return what it says now; None in a new file.

        Raises:
            JournalError: it is not as the host writes it.
            OSError: it cannot be read.
        """
        # Another host may have written to it since.
        data = os.pread(self._fd, _MAX_BYTES, 0)
        return _parsed(data, self._path) if data else None

    def write(self, entry: JournalEntry | None) -> None:
        """Say that the journal ends with `entry`.

        Raises:
            JournalError: what was there is not as the host writes it.
            OSError: it cannot be written.
        """
        before = self.read() or Head()
        self._put(replace(before, written=Mark.of(entry), boot=self._boot))

    def sync(self, journal: int, least: int = 1) -> None:
        """Force the journal's open file to the disk, then the head that says so.

        Args:
            journal: the file's descriptor.
            least: where fewer lines than this were written since, do nothing.

        Raises:
            JournalError: what was there is not as the host writes it.
            OSError: the disk does not take it.
        """
        before = self.read() or Head()
        if before.written.seq - before.synced.seq < least:
            return
        os.fdatasync(journal)
        self._put(replace(before, synced=before.written))
        os.fdatasync(self._fd)

    def _put(self, head: Head) -> None:
        # Always as long, in one place and one write: a reader sees the old head or the new.
        data = (
            "sandbox-host journal head 1\n"
            f"synced {head.synced.seq:020d} {head.synced.hash}\n"
            f"written {head.written.seq:020d} {head.written.hash}\n"
            f"boot {head.boot}\n"
        ).encode()
        if os.pwrite(self._fd, data, 0) != len(data):
            raise OSError(None, "only a part of its head could be written")

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

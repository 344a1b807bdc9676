"""Puts the newest file of a journal away, and a whole journal aside.

A host that is killed on the way leaves the journal's path with a file that leads on: the old one,
under two names perhaps, or the new one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sandbox_host.errors import JournalError
from sandbox_host.observe import journal_files
from sandbox_host.observe.journal_chain import reading_again
from sandbox_host.observe.journal_files import digest, old_file, old_files, rotation_detail
from sandbox_host.observe.journal_head import HeadFile, head_path
from sandbox_host.observe.journal_lines import (
    GENESIS,
    MAX_DETAIL_LENGTH,
    NEW,
    JournalEntry,
    seal,
)
from sandbox_host.reading import escaped

ASIDE: Final = "journal-aside"
"""Directories of journals that an operator has replaced begin with this."""

_CREATE: Final = (
    os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
)


def put_away(
    path: Path, fd: int, first: JournalEntry, sealed: Callable[[str], JournalEntry]
) -> int:
    """Give the newest file its old name, and put one in its place that goes on from it.

    Args:
        path: the journal.
        fd: its newest file, open and locked.
        first: that file's first line.
        sealed: makes the first line of the next file, of its detail.

    Returns:
        The new file, open and locked.

    Raises:
        OSError: it cannot be done; the newest file is still the newest.
    """
    os.fdatasync(fd)
    old = old_file(path, first.seq)
    with reading_again(fd) as file:
        sha256 = digest(file)
    fresh, name = _fresh(path, sealed(rotation_detail(old, sha256)))
    try:
        _link(path, old)
        os.rename(name, path)
    except BaseException:
        os.close(fresh)
        with suppress(OSError):
            name.unlink()
        raise
    for gone in old_files(path)[: -journal_files.KEPT_FILES]:
        gone.unlink()
    return fresh


def _link(path: Path, old: Path) -> None:
    try:
        os.link(path, old)
    except FileExistsError:
        # Of a host that was killed before it could put the new file in its place.
        if not os.path.samefile(path, old):
            raise


def _fresh(path: Path, entry: JournalEntry) -> tuple[int, Path]:
    """Return a new file with one line, locked and on the disk, and its passing name."""
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(name, _CREATE, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        line = entry.line()
        if os.write(fd, line) != len(line):
            raise OSError(None, "only a part of the line could be written")
        os.fdatasync(fd)
    except BaseException:
        os.close(fd)
        name.unlink()
        raise
    return fd, name


def start_new(path: Path, reason: str, now: datetime) -> Path | None:
    """Put a journal aside, whatever is wrong with it, and begin another that names it.

    Hosts that have it open go on in the new one.

    Args:
        path: the journal.
        reason: the operator's, for whoever reads the new one.
        now: the time, with its zone.

    Returns:
        The directory with what there was; None where there was nothing.

    Raises:
        JournalError: it cannot be done.
    """
    there = [one for one in (*_old(path), head_path(path), path) if os.path.lexists(one)]
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{ASIDE}-{stamp}-{secrets.token_hex(2)}")
    said = f"what was there before is in {aside.name}" if there else "there was none before"
    detail = f"{said}; the reason: {escaped(reason, MAX_DETAIL_LENGTH // 2)}"
    time = now.astimezone(UTC).isoformat(timespec="microseconds")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = seal(1, time, NEW, "", detail, GENESIS)
        fd, name = _fresh(path, entry)
        try:
            if there:
                _move(there, aside)
            os.rename(name, path)
            head = HeadFile(path)
            try:
                head.write(entry)
                head.sync(fd)
            finally:
                head.close()
        finally:
            os.close(fd)
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be put aside: {error.strerror or error}.",
            remedy="Make room on its disk, and its directory writable for the host.",
        ) from None
    return aside if there else None


def _old(path: Path) -> list[Path]:
    try:
        return old_files(path)
    except OSError:
        return []


def _move(there: list[Path], aside: Path) -> None:
    """Move what there is into `aside`; the newest, which is the last, stays under its name too."""
    aside.mkdir(mode=0o700)
    *others, newest = there
    for one in others:
        os.rename(one, aside / one.name)
    try:
        # So that there is no moment without it, in which a host would make one.
        os.link(newest, aside / newest.name, follow_symlinks=False)
    except OSError:
        os.rename(newest, aside / newest.name)

"""Keeps a host's history between its runs: one small file in the state directory.

A change of it is made under a lock, and replaces the file in one step, so that whoever reads it
sees the old one or the new. One that cannot be read refuses everything: nothing is ever begun
afresh because of it but by an operator's act.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sandbox_host.admission.history import History
from sandbox_host.errors import HistoryError
from sandbox_host.reading import BadValueError
from sandbox_host.runtime import history_file

HISTORY_NAME: Final = "history.jsonl"
LOCK_NAME: Final = "history.lock"
LOCK_SECONDS: Final = 10.0

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PAUSE_SECONDS: Final = 0.005
_NEXT_STEP: Final = (
    "Put back the one of your last backup; or begin another with `sandbox-host history new "
    "--reason TEXT`, which keeps what there is aside: then nothing tells older versions from newer."
)


class Draft:
    """A history while it is changed.

    Attributes:
        before: as it was read; None where there is none.
        history: what it is to be.
    """

    def __init__(self, before: History | None) -> None:
        self.before = before
        self.history = before or History()


class HistoryStore:
    """The history of the hosts with one state directory.

    Args:
        state_dir: it is there already when something is written.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / HISTORY_NAME
        self._lock_path = state_dir / LOCK_NAME

    def read(self) -> History | None:
        """Return what is remembered; None where there is no such file.

        Raises:
            HistoryError: it cannot be read, or is not as the host wrote it.
        """
        try:
            fd = os.open(self.path, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(f"cannot be opened: {error.strerror}") from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), 0}:
                raise self._unusable("is no regular file of the host's own user")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise self._unusable("can be written by its group or by others")
            with os.fdopen(fd, "rb", closefd=False) as file:
                return history_file.parse(file.read(history_file.MAX_FILE_BYTES + 1))
        except BadValueError as error:
            raise self._unusable(f"is not as the host wrote it: {error}") from None
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        finally:
            os.close(fd)

    @contextmanager
    def change(self) -> Iterator[Draft]:
        """Give what is remembered, and keep what it was made into when the block ends well.

        Nothing is written where nothing was changed.

        Raises:
            HistoryError: it cannot be read or written, or another process keeps it locked.
        """
        with self._locked():
            draft = Draft(self.read())
            yield draft
            if draft.history != draft.before:
                self._write(draft)

    def put_aside(self, now: datetime) -> Path | None:
        """Move the file away, whatever it holds, and write an empty one; return where it is now.

        Args:
            now: the time, with its zone.

        Raises:
            HistoryError: it cannot be done.
        """
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{HISTORY_NAME}.aside-{stamp}-{secrets.token_hex(2)}")
        with self._locked():
            there = os.path.lexists(self.path)
            try:
                if there:
                    os.rename(self.path, aside)
            except OSError as error:
                raise self._unusable(f"cannot be put aside: {error.strerror}") from None
            self._write(Draft(None))
        return aside if there else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self._lock_path, flags, 0o600)
        except OSError as error:
            raise self._unusable(f"cannot be locked: {error.strerror}") from None
        try:
            self._wait(fd)
            yield
        finally:
            os.close(fd)

    def _wait(self, fd: int) -> None:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > until:
                raise self._unusable("is locked by another process, which keeps it")
            time.sleep(_PAUSE_SECONDS)

    def _write(self, draft: Draft) -> None:
        temporary = self.path.with_name(f".{HISTORY_NAME}.{secrets.token_hex(8)}")
        try:
            data = history_file.render(draft.history)
            # What nobody could read again would refuse every plugin until an operator's act.
            history_file.parse(data)
            fd = os.open(temporary, _CREATE, 0o600)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fdatasync(fd)
                os.rename(temporary, self.path)
            except BaseException:
                temporary.unlink()
                raise
            if draft.before is None or draft.history.plugins != draft.before.plugins:
                self._sync_name()
        except BadValueError as error:
            text = f"The history {self.path} cannot take more: {error}."
            remedy = (
                "`sandbox-host history forget NAME --reason TEXT` for plugins that are gone; or "
            )
            remedy += "begin another with `sandbox-host history new --reason TEXT`."
            raise HistoryError(text, remedy=remedy) from None
        except OSError as error:
            text = f"The history {self.path} cannot be written: {error.strerror or error}."
            remedy = "Make room on its disk; nothing is admitted that cannot be remembered."
            raise HistoryError(text, remedy=remedy) from None

    def _sync_name(self) -> None:
        """Have the new file be the file after a stop of the machine too."""
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _unusable(self, why: str) -> HistoryError:
        return HistoryError(f"The history {self.path} {why}.", remedy=_NEXT_STEP)

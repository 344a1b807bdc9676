"""The file of durable events: an SQLite database that one host uses at a time.

It is made complete under another name, so that what stands under its own name is whole: anything
else there is refused, and never replaced. SQLite's write-ahead log with ``synchronous=FULL`` has
each commit on the disk when it returns (sqlite.org/pragma.html#pragma_synchronous).

The lock is a file beside it, which the kernel gives back when the host ends, however that happens
(flock(2)). It is neither inherited by a process that the host starts nor kept by a forked copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import time
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import EventStoreError, EventStoreInUseError

if TYPE_CHECKING:
    from pathlib import Path

STORE_NAME: Final = "events.sqlite3"
LOCK_NAME: Final = "events.lock"

_APPLICATION_ID: Final = 0x53484556
_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE counter (last_id INTEGER NOT NULL)",
    """CREATE TABLE event (id INTEGER PRIMARY KEY, type TEXT NOT NULL, data BLOB NOT NULL,
        timestamp REAL NOT NULL, source TEXT NOT NULL)""",
    """CREATE TABLE subscription (number INTEGER PRIMARY KEY, name TEXT NOT NULL,
        patterns TEXT NOT NULL)""",
    """CREATE TABLE waiting (subscription INTEGER NOT NULL, event INTEGER NOT NULL,
        PRIMARY KEY (subscription, event)) WITHOUT ROWID""",
    "CREATE INDEX waiting_event ON waiting (event)",
)
_MAX_VALUE_BYTES: Final = 1024 * 1024
_BUSY_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.01
_MAX_RECORD_BYTES: Final = 32


class StoreLock:
    """Says that this host has the store.

    Args:
        state_dir: where the store is.
        patience: seconds to wait for another host to let go.

    Raises:
        EventStoreInUseError: another host has it, or another of this process.
        EventStoreError: there can be no lock.
    """

    def __init__(self, state_dir: Path, patience: float = 0.0) -> None:
        path = state_dir / LOCK_NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, 0o600)
            try:
                self._wait(state_dir, time.monotonic() + patience)
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            text = f"The lock {path} cannot be taken: {error.strerror or error}."
            remedy = "Remove what stands there; the state directory must be on a local disk."
            raise EventStoreError(text, remedy=remedy) from error

    def _wait(self, state_dir: Path, until: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    break
                time.sleep(_PAUSE_SECONDS)
            else:
                return
        pid = os.pread(self._descriptor, _MAX_RECORD_BYTES, 0).decode("ascii", "replace")
        who = f"the host in process {pid}" if pid.isdecimal() else "another host"
        text = f"The durable events in {state_dir} are in use: {who} has them."
        remedy = "They belong to one host at a time; give each host a state_dir of its own."
        raise EventStoreInUseError(text, remedy=remedy)

    def give_back(self) -> None:
        """Let another host have the store."""
        with contextlib.suppress(OSError):
            # Not only closed: a process that is just being started may have a copy until it execs.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Belong to a forked copy of the host: the lock is the original's, and stays held."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the store; it is made if nothing stands there. With the lock held.

    Raises:
        EventStoreError: it cannot be made or used, is another program's, or is damaged.
    """
    try:
        if not os.path.lexists(path):
            _make(path)
        _check_file(path)
        connection = _open(path)
        try:
            _check_database(connection)
            if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                raise _UnusableError("its file system has no shared memory for SQLite's log")
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error, _UnusableError) as error:
        raise unusable(path, error) from error
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """Return another connection to the store that is open already, which cannot change it.

    Raises:
        EventStoreError: there can be none.
    """
    try:
        connection = _open(path)
        connection.execute("PRAGMA query_only=ON")
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from error
    return connection


def unusable(path: Path, error: BaseException | str) -> EventStoreError:
    """Return the error for a store that cannot be used."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = f"The store of durable events {path} cannot be used: {why}."
    remedy = (
        "Make room on its disk, or put back a backup. Moving it away, together with "
        f"{path.name}-wal, gives up every durable subscription and all that waits for them."
    )
    return EventStoreError(text, remedy=remedy)


class _UnusableError(Exception):
    """What stands there is no store that this host may use."""


def _make(path: Path) -> None:
    """Write an empty store under another name, and give it its own in one step."""
    log = path.with_name(f"{path.name}-wal")
    if os.path.lexists(log):
        # SQLite would play it into the new file: the store was there, and was taken away.
        raise _UnusableError(f"it is missing, and {log.name} is there")
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # of a host that was killed here
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(draft, flags, 0o600))
    connection = _open(draft)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO counter VALUES (0)")
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    os.rename(draft, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=32,
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_file(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
        raise _UnusableError("it is no regular file of the host's own user")
    if status.st_mode & 0o077:
        raise _UnusableError(f"others may read or write it; run: chmod 600 {path}")


def _check_database(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
        raise _UnusableError("it is no store of this program's")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        raise _UnusableError(f"its format is {version}, and this version reads {_VERSION}")
    found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL").fetchall()
    if sorted(found) != sorted((statement,) for statement in _SCHEMA):
        raise _UnusableError("its tables are not as this program makes them")
    (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if told != "ok":
        raise _UnusableError(f"it is damaged: {' '.join(told.split())}")

"""One plugin's key-value store: an SQLite database of the host's, which no plugin can open.

It lies beside the data directories, at ``<state_dir>/stores/<identity>``, and is opened when the
plugin first asks for it. Whoever holds the plugin's data lock may use it (`data_locks`); should two
meet all the same, SQLite's own locks keep the file whole. Values are opaque here: the plugin packed
them, and it alone unpacks them.

In WAL mode with ``synchronous=NORMAL`` a write costs no fsync: what was written survives the end of
the plugin and of the host, however that comes. A machine that fails may lose the last moments and
never damages the file, see https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.services import MAX_KEYS
from sandbox_host.model import MIB
from sandbox_host.reading import shown_bytes
from sandbox_host.runtime.workspace import private_directory

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

STORES: Final = "stores"
"""The directory of all of them, in the state directory."""

_FILE: Final = "store.sqlite3"
_FILES: Final = (f"{_FILE}-wal", f"{_FILE}-shm", f"{_FILE}-journal", _FILE)
_BUSY_SECONDS: Final = 2.0
_PAGE_BYTES: Final = 4_096
_SPARE_BYTES: Final = 32 * MIB
"""The file may be so much larger than twice the quota: pages that are partly used, and the index of
`MAX_KEYS` keys. SQLite itself refuses to let it grow further."""
_WAL_BYTES: Final = 4 * MIB
_VERSION: Final = 1


class StoreFaultError(Exception):
    """It cannot be read or written; the text says why, in the system's words."""


class StoreQuotaError(Exception):
    """It would hold more than it may; the text says how much that is."""


class PluginStore:
    """The entries of one plugin. Thread-safe; one thing is done at a time.

    Args:
        directory: where it is; nothing is made there before it is needed.
        limit_bytes: what keys and values may have together.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._closed = False
        self._database: sqlite3.Connection | None = None
        self._bytes = 0
        self._keys = 0

    def get(self, key: str) -> bytes | None:
        """Return the value of a key, or None.

        Raises:
            StoreFaultError: as its text says.
        """
        with self._use() as database:
            row = database.execute("SELECT value FROM entries WHERE key = ?", _of(key)).fetchone()
            return None if row is None else row[0]

    def put(self, key: str, value: bytes) -> None:
        """Keep a value under a key, in place of the one that was there.

        Raises:
            StoreQuotaError: there is no room for it; what was there is there.
            StoreFaultError: as its text says.
        """
        with self._use() as database:
            (name,) = _of(key)
            before = self._size_of(database, name)
            size = len(name) + len(value)
            after = self._bytes - (before or 0) + size
            # What makes it smaller is let in, also where the limit has come down meanwhile.
            if after > max(self._limit_bytes, self._bytes - 1):
                text = (
                    f"the store would hold {after} bytes of {shown_bytes(self._limit_bytes)}; "
                    'delete what is no longer needed, or raise "limits": {"store": …}'
                )
                raise StoreQuotaError(text)
            if before is None and self._keys >= MAX_KEYS:
                text = f"the store would hold more than {MAX_KEYS} keys; delete some first"
                raise StoreQuotaError(text)
            database.execute(
                "INSERT INTO entries (key, value) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (name, value),
            )
            self._bytes, self._keys = after, self._keys + (before is None)

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it was there.

        Raises:
            StoreFaultError: as its text says.
        """
        with self._use() as database:
            (name,) = _of(key)
            before = self._size_of(database, name)
            if before is None:
                return False
            database.execute("DELETE FROM entries WHERE key = ?", (name,))
            self._bytes, self._keys = self._bytes - before, self._keys - 1
            return True

    def keys(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return keys that begin with a prefix and come behind another, in their order.

        Args:
            prefix: "" for all.
            after: "" for the first ones.
            limit: at most so many.

        Raises:
            StoreFaultError: as its text says.
        """
        first, behind = prefix.encode(), after.encode()
        # No byte of UTF-8 is 0xff: this is behind every key that begins so, and before others.
        end = first + b"\xff"
        query = (
            "SELECT key FROM entries WHERE key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?"
        )
        with self._use() as database:
            rows = database.execute(query, (first, behind, end, limit)).fetchall()
        return [row[0].decode() for row in rows]

    def clear(self) -> int:
        """Remove everything; return how many keys there were.

        Raises:
            StoreFaultError: as its text says.
        """
        with self._use() as database:
            removed = database.execute("DELETE FROM entries").rowcount
            self._bytes = self._keys = 0
            return int(removed)

    def usage(self) -> tuple[int, int]:
        """Return how many bytes keys and values have, and how many keys there are.

        Raises:
            StoreFaultError: as its text says.
        """
        with self._use():
            return self._bytes, self._keys

    def close(self) -> None:
        """Use it no more; waits for what is being done, and for the disk."""
        self._closed = True
        with self._lock:
            self._close()

    # -- the database -----------------------------------------------------------------------

    @contextlib.contextmanager
    def _use(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._closed:
                    text = "the plugin has ended"
                    raise StoreFaultError(text)
                if self._database is None:
                    self._database = self._open()
                yield self._database
            except (sqlite3.Error, OSError) as error:
                # What it holds now is looked up again: nobody knows how much was done.
                self._close()
                raise StoreFaultError(_why(error)) from error

    def _open(self) -> sqlite3.Connection:
        private_directory(self._directory.parent)
        private_directory(self._directory)
        path = self._directory / _FILE
        _make(path)
        # By an absolute path, so that no name of it is taken for a URI or for ":memory:".
        database = sqlite3.connect(
            path.absolute(),
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        most = (2 * self._limit_bytes + _SPARE_BYTES) // _PAGE_BYTES
        for pragma in (
            f"page_size = {_PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"journal_size_limit = {_WAL_BYTES}",
            f"max_page_count = {most}",
            "trusted_schema = OFF",
            f"user_version = {_VERSION}",
        ):
            database.execute(f"PRAGMA {pragma}")
        # Keys as bytes: compared as such, whatever is in them.
        database.execute(
            "CREATE TABLE IF NOT EXISTS entries "
            "(key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL)"
        )
        query = "SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM entries"
        self._keys, self._bytes = database.execute(query).fetchone()

    def _size_of(self, database: sqlite3.Connection, name: bytes) -> int | None:
        query = "SELECT length(key) + length(value) FROM entries WHERE key = ?"
        row = database.execute(query, (name,)).fetchone()
        return None if row is None else int(row[0])

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()


def remove_store(state_dir: Path, identity: str) -> None:
    """Remove the store of a plugin that nobody has loaded; nothing where there is none.

    Raises:
        OSError: something of it cannot be removed.
    """
    directory = state_dir / STORES / identity
    # The log of changes first: an old one must never be applied to a new file.
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)


def _make(path: Path) -> None:
    """Make the file with the mode that SQLite gives to those beside it as well (0600)."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            text = "no regular file stands there"
            raise OSError(text)
    finally:
        os.close(descriptor)


def _of(key: str) -> tuple[bytes]:
    return (key.encode(),)


def _why(error: sqlite3.Error | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return "there is no room left on the host's disk"
    return str(error)

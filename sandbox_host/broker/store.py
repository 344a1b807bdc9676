"""Durable events: written down before their publisher hears of it, kept until acknowledged.

One thread writes. What was asked of it while it was at the disk goes into the next commit together,
so that many publishers share the cost of one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire.errors import PayloadError
from sandbox_host.broker import store_file
from sandbox_host.broker.durable import (
    DurableBounds,
    DurableQueue,
    DurableSubscription,
    Entry,
)
from sandbox_host.broker.packed import PackedEvent
from sandbox_host.broker.publication import finish
from sandbox_host.broker.topics import Wanted
from sandbox_host.errors import EventStoreError, SandboxHostError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.broker.policies import SubscriptionInfo

_log = logging.getLogger("sandbox_host")

MAX_DURABLE: Final = 64
"""Durable subscriptions in one store."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_UNWRITTEN_BYTES: Final = 16 * 1024 * 1024
"""Packed data that may wait for the disk: one that does not answer must not fill the memory."""

_BATCH: Final = 1_024
_BATCH_BYTES: Final = 4 * 1024 * 1024
_CLOSING_SECONDS: Final = 30.0
_LEISURE_SECONDS: Final = 0.02
"""Acknowledgements alone wait so long for others: nobody waits for them."""

_ADD: Final = "INSERT INTO event VALUES (?, ?, ?, ?, ?)"
_COUNT: Final = "UPDATE counter SET last_id = ?"
_WAIT: Final = "INSERT INTO waiting VALUES (?, ?)"
_KEEP: Final = "INSERT OR REPLACE INTO subscription VALUES (?, ?, ?)"
_ACKNOWLEDGE: Final = "DELETE FROM waiting WHERE subscription = ? AND event = ?"
_REMOVE: Final = (
    "DELETE FROM event WHERE id = ? AND NOT EXISTS (SELECT 1 FROM waiting WHERE event = ?)"
)
_DROP: Final = "DELETE FROM subscription WHERE number = ?"
_DROP_WAITING: Final = "DELETE FROM waiting WHERE subscription = ?"
_DROP_ORPHANS: Final = (
    "DELETE FROM event WHERE NOT EXISTS (SELECT 1 FROM waiting WHERE waiting.event = event.id)"
)

_forked: Final[list[object]] = []
"""Connections of a forked copy: closed there, SQLite would meddle with the original's files."""


@dataclass(slots=True)
class _Change:
    """Statements of one transaction, and who wants to know what becomes of it."""

    statements: list[tuple[str, Sequence[Any]]]
    size: int = 0
    event: int = 0
    queues: Sequence[DurableQueue] = ()
    done: Future[None] | None = None

    def settle(self, error: Exception | None) -> None:
        """Tell what became of it: first the readers, who may have it now, then the publisher."""
        for queue in self.queues:
            (queue.release if error else queue.committed)(self.event)
        if self.done is not None and error is not None:
            self.done.set_exception(error)
        elif self.done is not None:
            self.done.set_result(None)


class EventStore:
    """The store of one host. Thread-safe.

    Args:
        state_dir: a directory that only the host's user may pass.
        bounds: of each durable subscription.
        patience: seconds to wait for another host to let go.

    Attributes:
        last_id: the highest id that a durable event has had.

    Raises:
        EventStoreInUseError: another host has it.
        EventStoreError: it cannot be made or used, is another program's, or is damaged.
    """

    def __init__(self, state_dir: Path, bounds: DurableBounds, patience: float = 0.0) -> None:
        self._path = state_dir / store_file.STORE_NAME
        self._bounds = bounds
        self._changed = threading.Condition()
        self._changes: deque[_Change] = deque()
        self._again: list[_Change] = []
        self._unwritten_bytes = 0
        self._urgent = 0
        self._stopping = False
        self._failing = False
        self._reading = threading.Lock()
        with contextlib.ExitStack() as made:
            self._file_lock = store_file.StoreLock(state_dir, patience)
            made.callback(self._file_lock.give_back)
            self._connection = store_file.connect(self._path)
            made.callback(self._connection.close)
            self._reader = store_file.reader(self._path)
            made.callback(self._reader.close)
            self._queues = self._load()
            self._thread = threading.Thread(target=self._run, name="sandbox-host-events")
            self._thread.daemon = True  # a commit on a dead disk must not keep the process
            self._thread.start()
            self._closing = made.pop_all()

    def _load(self) -> dict[str, DurableQueue]:
        try:
            (self.last_id,) = self._connection.execute("SELECT last_id FROM counter").fetchone()
            entries: dict[int, dict[int, Entry]] = {}
            rows = self._connection.execute(
                "SELECT waiting.subscription, id, source, length(data), timestamp FROM waiting "
                "JOIN event ON id = event ORDER BY id"
            )
            for number, event, *stamps in rows:
                entries.setdefault(number, {})[event] = Entry(*stamps)
            self.last_id = max(self.last_id, *(max(waiting) for waiting in entries.values()), 0)
            made = self._connection.execute("SELECT number, name, patterns FROM subscription")
            queues = {}
            for number, name, patterns in made.fetchall():
                wanted = Wanted(json.loads(patterns))
                waiting = entries.get(number, {})
                queues[name] = DurableQueue(number, name, wanted, self._bounds, waiting)
        except (sqlite3.Error, TypeError, ValueError, UsageError) as error:
            raise store_file.unusable(self._path, error) from error
        return queues

    # -- publishing -------------------------------------------------------------------------

    def add(self, event: PackedEvent) -> Future[None] | None:
        """Begin to write an event for all durable subscriptions that want it.

        Whoever calls this has a lock, so that events come in the order of their ids.

        Returns:
            What is done when it is committed, or raises why it is not; None if nobody wants it.

        Raises:
            EventStoreFullError: a subscription can take no more; nothing was written.
            EventStoreError: the store is closed, or its disk does not keep up.
        """
        with self._changed:
            queues = [queue for queue in self._queues.values() if event.type in queue.wanted]
            if not queues:
                return None
            if self._unwritten_bytes + len(event.data) > MAX_UNWRITTEN_BYTES:
                text = f"{self._unwritten_bytes} bytes wait for it already"
                raise store_file.unusable(self._path, f"its disk does not keep up, and {text}")
            with contextlib.ExitStack() as undo:
                for queue in queues:
                    queue.reserve(event)
                    undo.callback(queue.release, event.id)
                row = (event.id, event.type, event.data, event.timestamp, event.source)
                change = _Change([(_ADD, row), (_COUNT, (event.id,))], len(event.data))
                change.statements += [(_WAIT, (queue.number, event.id)) for queue in queues]
                change.event, change.queues = event.id, queues
                done = self._ask(change)
                undo.pop_all()
        return done

    def _ask(self, change: _Change) -> Future[None]:
        """Have a change made with the next commit; with the lock held."""
        if self._stopping:
            raise EventStoreError("The store of durable events is closed.")
        change.done = Future()
        change.done.set_running_or_notify_cancel()  # whoever waits for it cannot cancel it
        self._changes.append(change)
        self._unwritten_bytes += change.size
        self._urgent += 1
        self._changed.notify()
        return change.done

    # -- subscriptions ----------------------------------------------------------------------

    def subscribe(
        self, name: str, patterns: Iterable[str], redeliver_after: float
    ) -> DurableSubscription:
        """Read a durable subscription, which is made if there is none of that name.

        Where there is one, it gets these types from now on; what waits for it stays.

        Raises:
            UsageError: a name, a type or a time is malformed, it is being read, or there are too
                many.
            EventStoreError: it cannot be written down.
        """
        wanted = Wanted(patterns)
        if not _NAME.fullmatch(name):
            text = f"{name!r:.100} is no name of a durable subscription."
            raise UsageError(text, remedy='Use up to 64 letters, digits, "_", "." and "-".')
        with self._changed:
            queue = self._queues.get(name) or self._new(name, wanted)
            reader = DurableSubscription(queue, self._fetch, self._acknowledge, redeliver_after)
            before = queue.wanted if name in self._queues else None
            if before is not None and before.patterns == wanted.patterns:
                return reader
            row = (queue.number, name, json.dumps(wanted.patterns))
            try:
                done = self._ask(_Change([(_KEEP, row)]))
            except BaseException:
                reader.close()
                raise
            # What is published from now on is written after it.
            queue.wanted = wanted
            self._queues[name] = queue
        try:
            finish(done)
        except BaseException:
            with self._changed:
                if before is None:
                    self._queues.pop(name, None)
                else:
                    queue.wanted = before
            reader.close()
            raise
        return reader

    def _new(self, name: str, wanted: Wanted) -> DurableQueue:
        if len(self._queues) >= MAX_DURABLE:
            text = f"There are {MAX_DURABLE} durable subscriptions, which is the most."
            raise UsageError(text, remedy="Give one up with host.drop_durable().")
        number = max((queue.number for queue in self._queues.values()), default=0) + 1
        return DurableQueue(number, name, wanted, self._bounds, {})

    def drop(self, name: str) -> int:
        """Remove a durable subscription and what waits for it; return how many events that were.

        Raises:
            UsageError: there is none of that name.
            EventStoreError: it cannot be written down.
        """
        with self._changed:
            queue = self._queues.get(name)
            if queue is None:
                known = ", ".join(sorted(self._queues)) or "none"
                text = f"There is no durable subscription named {name!r:.100}; there are: {known}."
                raise UsageError(text)
            key = (queue.number,)
            statements = [(_DROP_WAITING, key), (_DROP_ORPHANS, ()), (_DROP, key)]
            done = self._ask(_Change(list(statements)))
            del self._queues[name]
        finish(done)
        if (reader := queue.reader) is not None:
            reader.close()
        return len(queue.waiting())

    def infos(self) -> list[SubscriptionInfo]:
        """Return the counters of all durable subscriptions, by name."""
        with self._changed:
            queues = sorted(self._queues.items())
        return [queue.info() for _, queue in queues]

    def _fetch(self, number: int) -> PackedEvent | None:
        try:
            with self._reading:
                cursor = self._reader.execute(
                    "SELECT type, data, timestamp, source FROM event WHERE id = ?", (number,)
                )
                row = cursor.fetchone()
            if row is None:
                return None
            event_type, data, timestamp, source = row
            event = PackedEvent(event_type, data, timestamp, source, number)
            event.check()
        except (sqlite3.Error, PayloadError, TypeError) as error:
            raise store_file.unusable(self._path, error) from error
        return event

    def _acknowledge(self, queue: DurableQueue, numbers: Iterable[int]) -> None:
        """Have acknowledgements written with the next commit; nobody waits for that."""
        statements: list[tuple[str, Sequence[Any]]] = []
        for number in numbers:
            statements += [(_ACKNOWLEDGE, (queue.number, number)), (_REMOVE, (number, number))]
        with self._changed:
            if not self._stopping:
                self._changes.append(_Change(statements))
                self._changed.notify()

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._changes or self._stopping)
                self._changed.wait_for(lambda: self._urgent or self._stopping, _LEISURE_SECONDS)
                if not self._changes:
                    return
                batch, self._again = self._again, []
                size = 0
                while self._changes and len(batch) < _BATCH and size < _BATCH_BYTES:
                    change = self._changes.popleft()
                    self._urgent -= change.done is not None
                    batch.append(change)
                    size += change.size
            self._write(batch)
            with self._changed:
                self._unwritten_bytes -= size

    def _write(self, batch: list[_Change]) -> None:
        failed: Exception | None = None
        try:
            self._commit(batch)
        except Exception as error:  # noqa: BLE001 - whatever it was, publishers must hear of it
            failed = store_file.unusable(self._path, error)
            if not self._failing:  # once, and not for each event that comes to a full disk
                _log.error("%s", failed)
        self._failing = failed is not None
        for change in batch:
            if failed is not None and change.done is None:
                self._again.append(change)  # acknowledgements; until then their events come again
                continue
            with contextlib.suppress(SandboxHostError):
                change.settle(failed)

    def _commit(self, batch: list[_Change]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for change in batch:
                for statement, values in change.statements:
                    connection.execute(statement, values)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Write what was asked for, and let another host have the store."""
        with self._changed:
            if self._stopping:
                return
            self._stopping = True
            readers = [queue.reader for queue in self._queues.values()]
            self._changed.notify_all()
        for reader in readers:
            if reader is not None:
                reader.close()
        self._thread.join(_CLOSING_SECONDS)
        if self._thread.is_alive():
            # It is at a disk that does not answer: what it uses cannot be taken from it.
            _log.error("%s", store_file.unusable(self._path, "its disk does not answer"))
            return
        with self._reading:
            self._closing.close()

    def forget(self) -> None:
        """Belong to a forked copy of the host: the files are the original's."""
        self._file_lock.forget()
        self._stopping = True
        _forked.append((self._connection, self._reader, self._closing))

"""Leader and followers: the caller that holds the read lock reads for all who wait.

A thread that always reads would cost every call two wake-ups. Instead, a caller that finds the read
lock free becomes the leader: it polls for up to 50 µs, yielding the CPU in between, and then
blocks; what it reads for others it hands to them. A leader that is done passes the lead on. When
nobody waits in a thread (events, asyncio), ``watch`` asks the keeper to call `pump` as soon as
something arrives.

Writes never block: what the pipe does not take is kept, up to a bound, and flushed when it does.
Two full pipes would deadlock otherwise.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.messages import (
    Failed,
    Failure,
    Handled,
    Message,
    Ready,
    Result,
    Stopped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin_sdk.wire.connection import Connection
    from sandbox_host.ipc.calls import Pending

POLL_SECONDS: Final = 50e-6
"""A wake-up on another CPU costs about 30 µs; polling this long avoids it for quick answers."""

SESSION_ID: Final = 0
"""Number of the pending that stands for loading or stopping, of which there is one at a time."""

_BY_ID: Final = (Result, Failure, Handled)
_ANSWERS: Final = (*_BY_ID, Ready, Failed, Stopped)

_FOLLOW_SECONDS: Final = 1.0
_READS_PER_PUMP: Final = 16
"""So that one plugin that floods cannot keep the keeper to itself: 1 MiB, then the next one."""


class Channel:
    """The host's end of one plugin's pipes. All methods may be called from any thread.

    Args:
        connection: the protocol's state.
        receive_fd: non-blocking read end.
        send_fd: non-blocking write end.
        max_unsent_bytes: how much may wait for a plugin that does not read.
        on_message: takes messages that answer nothing: a publish.
        on_answered: takes each pending that the plugin answered, before its caller gets it.
        on_broken: takes the reason when the stream ended (None) or broke the protocol.
        watch: asks the keeper to `pump` when there is something to read (or room to write).
    """

    def __init__(
        self,
        connection: Connection,
        receive_fd: int,
        send_fd: int,
        *,
        max_unsent_bytes: int,
        on_message: Callable[[Message], None],
        on_answered: Callable[[Pending, Message], None],
        on_broken: Callable[[RemoteProtocolError | None], None],
        watch: Callable[[bool], None],
    ) -> None:
        self._connection = connection
        self._receive_fd = receive_fd
        self._send_fd = send_fd
        self._max_unsent_bytes = max_unsent_bytes
        self._on_message = on_message
        self._on_answered = on_answered
        self._on_broken = on_broken
        self._watch = watch
        self._unsent = bytearray()
        self._pending: dict[int, Pending] = {}
        self._state = threading.Lock()
        self._reading = threading.Lock()
        self._broken = False
        self.bytes_in = 0
        self.bytes_out = 0

    @property
    def broken(self) -> bool:
        """Nothing can be sent or received any more."""
        return self._broken

    def oldest(self) -> Pending | None:
        """Return what the plugin is working on: it answers in order."""
        with self._state:
            return next(iter(self._pending.values()), None)

    def outstanding(self) -> list[Pending]:
        """Return everything unanswered, oldest first."""
        with self._state:
            return list(self._pending.values())

    def has_room(self, size: int) -> bool:
        """Tell whether ``size`` bytes more may be kept for a plugin that does not read."""
        return not self._unsent or len(self._unsent) + size <= self._max_unsent_bytes

    def send(self, message: Message, pending: Pending | None = None) -> bool:
        """Send without blocking; return False if the channel is broken.

        Raises:
            LocalProtocolError: the message is not allowed now, or breaks a limit.
        """
        with self._state:
            if self._broken:
                return False
            self._connection.send(message)
            if pending is not None:
                self._pending[pending.id] = pending
            data = self._connection.data_to_send()
            self.bytes_out += len(data)
            if self._unsent:
                self._unsent += data
            else:
                self._write(data)
            must_flush = bool(self._unsent)
        if must_flush:
            self._watch(True)
        return True

    def _write(self, data: bytes | bytearray) -> int:
        """Write what the pipe takes and keep the rest; return how much it took."""
        try:
            written = os.write(self._send_fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            return len(data)  # the plugin is gone: its end of the stream says so to the reader
        if written < len(data):
            self._unsent += data[written:]
        return written

    def _flush(self) -> bool:
        """Try to write what was kept; return True while something is left."""
        with self._state:
            if self._unsent and not self._broken:
                data, self._unsent = bytes(self._unsent), bytearray()
                self._write(data)
            return bool(self._unsent)

    def wait(self, pending: Pending) -> None:
        """Block until ``pending`` is finished, leading or following.

        The wait ends: whoever enforces deadlines finishes every pending in time.
        """
        waiter: threading.Event | None = None
        while not pending.done():
            if not self._broken and self._reading.acquire(blocking=False):
                try:
                    self._lead(pending)
                finally:
                    self._reading.release()
                    self._pass_on()
            elif waiter is None:
                # Registered before the lock is tried again: a leader that lets go in between
                # sees this waiter when it passes the lead on.
                waiter = pending.register_waiter()
            else:
                waiter.wait(_FOLLOW_SECONDS)
                if not pending.done():
                    waiter.clear()

    def poll_briefly(self, pending: Pending) -> None:
        """Read for up to 50 µs, for a caller that must not block; then have the keeper watch."""
        if not pending.done() and self._reading.acquire(blocking=False):
            try:
                until = time.perf_counter() + POLL_SECONDS
                while not pending.done() and not self._broken:
                    if not self._read_once() and time.perf_counter() > until:
                        break
                    os.sched_yield()
            finally:
                self._reading.release()
                self._pass_on()
        if not pending.done():
            self._watch(bool(self._unsent))

    def pump(self) -> None:
        """Read and write what is possible now, for the keeper; nothing if somebody leads."""
        if self._flush():
            self._watch(True)
        if self._reading.acquire(blocking=False):
            try:
                for _ in range(_READS_PER_PUMP):
                    if self._broken or not self._read_once():
                        break
            finally:
                self._reading.release()
                self._pass_on()

    def drain(self) -> None:
        """Read what the plugin left in the pipe when it ended, after whoever reads now.

        Must come before `close`: an answer that was sent just before the end is an answer. The
        pipe holds less than is read here, and a leader meets the end of the stream at once.
        """
        with self._reading:
            for _ in range(_READS_PER_PUMP):
                if self._broken or not self._read_once():
                    break

    def _lead(self, pending: Pending) -> None:
        poller = select.poll()
        until = time.perf_counter() + POLL_SECONDS
        while not pending.done() and not self._broken:
            if self._read_once():
                continue
            if time.perf_counter() < until:
                os.sched_yield()
                continue
            left = self._flush()
            poller.register(self._receive_fd, select.POLLIN)
            poller.register(self._send_fd, select.POLLOUT if left else 0)
            poller.poll(_FOLLOW_SECONDS * 1000)

    def _read_once(self) -> bool:
        """Read one chunk and hand out what is in it; False if there was nothing to read."""
        try:
            data = os.read(self._receive_fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        answered, others, violation = self._receive(data)
        now = time.monotonic()
        for pending, message in answered:
            self._on_answered(pending, message)
            pending.finish(message, now)
        for message in others:
            self._on_message(message)
        if self._broken:
            self._on_broken(violation)
        return bool(data)

    def _receive(
        self, data: bytes
    ) -> tuple[list[tuple[Pending, Message]], list[Message], RemoteProtocolError | None]:
        """Feed the connection; return answers, other messages, and what broke the protocol."""
        violation: RemoteProtocolError | None = None
        answered: list[tuple[Pending, Message]] = []
        others: list[Message] = []
        with self._state:
            self.bytes_in += len(data)
            try:
                if data:
                    self._connection.receive_data(data)
                else:
                    self._connection.receive_eof()
            except RemoteProtocolError as error:
                violation = error
            for message in self._connection.events_received():
                number = message.id if isinstance(message, _BY_ID) else SESSION_ID
                if isinstance(message, _ANSWERS) and number in self._pending:
                    answered.append((self._pending.pop(number), message))
                else:
                    others.append(message)
            if violation is not None or not data:
                self._broken = True
        return answered, others, violation

    def _pass_on(self) -> None:
        """Give the lead to somebody who waits in a thread, or else to the keeper."""
        with self._state:
            waiting = list(self._pending.values())
        if waiting and not any(pending.nudge() for pending in waiting):
            self._watch(bool(self._unsent))

    def close(self, answer: Callable[[Pending], Exception]) -> None:
        """Finish everything unanswered with an error, for good.

        When it returns, no thread reads or writes the descriptors any more, and none will: they
        may be closed, and their numbers used again.
        """
        with self._state:
            self._broken = True
            pendings, self._pending = list(self._pending.values()), {}
            self._unsent.clear()
        now = time.monotonic()
        for pending in pendings:
            pending.finish(answer(pending), now)
        # A leader sees the end of the stream at once: the process has been reaped. Never released.
        self._reading.acquire()

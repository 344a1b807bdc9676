"""The child's end of the two protocol pipes: one reader at a time, any number of writers.

Most of the time the loop reads. A thread that has asked the host for something reads for itself
and for the loop while that is at work; what is not the thread's is kept.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock, allocate_lock, get_ident
from errno import EPIPE
from time import monotonic_ns

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.message import PLUGIN
from plugin_sdk.wire.messages import Answer, Ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any

    from plugin_sdk.wire.message import Message

# How long to poll before blocking, in nanoseconds. A wake-up on another CPU costs about 30 µs, so
# two processes that block on each other take 80 µs a round trip and 5 µs when the reader polls.
# Yielding between the polls keeps it harmless where CPUs are scarce.
POLL_NS = 50_000

_LEFT = -1

# How often a thread that waits for an answer looks whether anybody still reads.
_TURN_SECONDS = 0.01

_yield_cpu = getattr(os, "sched_yield", lambda: None)


def flush_output() -> None:
    """Bring what the plugin printed to the log before the answer that it led to."""
    _flush(sys.stdout)
    _flush(sys.stderr)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except BaseException:  # noqa: BLE001 - the plugin may have put anything in its place
        return


class ChildChannel:
    """Messages over two descriptors.

    Args:
        in_fd: read end of the pipe from the host. It is made non-blocking, and blocking again for
            the time of a wait; the host's end of the pipe is not affected.
        out_fd: write end of the pipe to the host, blocking.
    """

    def __init__(self, in_fd: int, out_fd: int) -> None:
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._connection = Connection(PLUGIN)
        self._received: list[Message] = []  # the next one last
        self._turn = allocate_lock()  # held by who reads
        self._loop_waits = False
        self._taking: set[int] = set()  # threads that must not be disturbed
        self._asked = 0
        self._asking: dict[int, LockType] = {}
        self._answers: dict[int, Answer] = {}
        # Guards the connection, which threads of the plugin share when they publish. Reentrant:
        # a signal handler or finalizer of the plugin may publish in the middle of a send.
        self._lock = RLock()
        self._writing = False
        self._postponed: tuple[int, Callable[[], None]] | None = None
        os.set_blocking(in_fd, False)

    @property
    def sending(self) -> bool:
        """An exception raised now in the calling thread would cut a frame, or lose one."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - as threading does
        return owned or get_ident() in self._taking

    def postpone(self, function: Callable[[], None]) -> None:
        """Call a function in this thread as soon as it is not `sending` any more."""
        self._postponed = get_ident(), function

    def _catch_up(self) -> None:
        postponed = self._postponed
        if postponed is not None and postponed[0] == get_ident() and not self.sending:
            self._postponed = None
            postponed[1]()

    def leave(self) -> None:
        """In a forked copy of the process: take no part in the original's conversation any more.

        Whatever the copy sends meets a `BrokenPipeError`. The lock may have been held, when it was
        forked, by a thread that the copy does not have.
        """
        self._lock = RLock()
        for descriptor in (self._in_fd, self._out_fd):
            os.close(descriptor)
        self._in_fd = self._out_fd = _LEFT

    def receive(self) -> Message | None:
        """Return the next message, waiting for it; None when the host closed its end.

        Raises:
            RemoteProtocolError: the host broke the protocol.
        """
        self._loop_waits = True
        try:
            while not self._received:
                with self._turn:
                    # Somebody who waited for an answer may have read it meanwhile.
                    if self._received:
                        break
                    data = self._read()
                    if not data:
                        return None
                    self._take(data)
            return self._received.pop()
        finally:
            self._loop_waits = False

    def ask(self, service: str, payload: bytes) -> Answer | None:
        """Ask for a service and wait for the answer, from any thread; None when the host is gone.

        Raises:
            LocalProtocolError: the session does not allow it now, or too much has been asked.
            RemoteProtocolError: the host broke the protocol.
            OSError: the host is gone.
        """
        done = allocate_lock()
        done.acquire()
        with self._lock:
            number = self._asked + 1
            self.send(Ask(number, service, 0, payload=payload))
            self._asked = number
            self._asking[number] = done
        try:
            while number not in self._answers:
                self._catch_up()
                # What there is for the loop comes first: else it might never get its turn.
                for_loop = self._loop_waits and self._received
                if for_loop or not self._take_turn():
                    done.acquire(timeout=_TURN_SECONDS)
                    continue
                try:
                    self._taking.discard(get_ident())
                    if number not in self._answers and not self._take_some():
                        return None
                finally:
                    self._turn.release()
            return self._answers[number]
        finally:
            # Also when the operation's deadline cut this short: what comes later is dropped.
            self._asking.pop(number, None)
            self._answers.pop(number, None)

    def _take_turn(self) -> bool:
        """Tell whether this thread reads now; then nothing disturbs it until `_taking` lets it."""
        # An exception between having the turn and knowing it would keep it from all others.
        self._taking.add(get_ident())
        if self._turn.acquire(blocking=False):
            return True
        self._taking.discard(get_ident())
        return False

    def _take(self, data: bytes) -> None:
        with self._lock:
            try:
                self._connection.receive_data(data)
            except RemoteProtocolError:
                # What came before the fault does not matter: this process is about to end.
                self._received.clear()
                raise
            messages = self._connection.events_received()
            for message in messages:
                if isinstance(message, Answer) and message.id in self._asking:
                    self._answers[message.id] = message
                    self._asking[message.id].release()
            messages.reverse()
            self._received[:0] = [m for m in messages if not isinstance(m, Answer)]

    def _take_some(self) -> bool:
        """Wait for data and take it, in the middle of an operation, which its deadline may end."""
        self._await_data()
        # From here on until it is taken, what is read must not be lost.
        self._taking.add(get_ident())
        try:
            try:
                data = os.read(self._in_fd, READ_BYTES)
            except BlockingIOError:
                return True
            if data:
                self._take(data)
            return bool(data)
        finally:
            self._taking.discard(get_ident())

    def _await_data(self) -> None:
        import select

        poller = select.poll()
        poller.register(self._in_fd, select.POLLIN)
        until = monotonic_ns() + POLL_NS
        while monotonic_ns() < until:
            if poller.poll(0):
                return
            _yield_cpu()
        poller.poll()

    def send(self, message: Message) -> None:
        """Send a message whole, from any thread.

        Raises:
            LocalProtocolError: the session does not allow it now.
            OSError: the host is gone.
        """
        if self._out_fd == _LEFT:
            text = "only the plugin's own process speaks to the host, none that it has started"
            raise BrokenPipeError(EPIPE, text)
        with self._lock:
            self._connection.send(message)
            if self._writing:
                return  # re-entered: the outer call writes it after its own frame
            self._writing = True
            try:
                while data := self._connection.data_to_send():
                    self._write(data)
            finally:
                self._writing = False
        self._catch_up()

    def _read(self) -> bytes:
        """Poll for a moment, then block."""
        until = monotonic_ns() + POLL_NS
        while True:
            try:
                return os.read(self._in_fd, READ_BYTES)
            except BlockingIOError:
                if monotonic_ns() > until:
                    break
            _yield_cpu()
        os.set_blocking(self._in_fd, True)
        try:
            return os.read(self._in_fd, READ_BYTES)
        finally:
            os.set_blocking(self._in_fd, False)

    def _write(self, data: bytes) -> None:
        written = os.write(self._out_fd, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(self._out_fd, rest) :]

"""The child's end of the two protocol pipes: one reader at a time, any number of writers.

Most of the time the loop reads. A thread that waits for something of the host's reads for itself
and for the loop while that is at work; what is not the thread's is kept.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock, allocate_lock, get_ident
from errno import EPIPE
from time import monotonic_ns

from plugin_sdk.child.calls import Calls, current
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES, VALUE
from plugin_sdk.wire.message import PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Failure,
    Feed,
    FeedEnd,
    Progress,
    Result,
    Withdraw,
    YieldCredit,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from plugin_sdk.child.calls import CallState
    from plugin_sdk.wire.arena import Arena

# How long to poll before blocking, in nanoseconds. A wake-up on another CPU costs about 30 µs, so
# two processes that block on each other take 80 µs a round trip and 5 µs when the reader polls.
# Yielding between the polls keeps it harmless where CPUs are scarce.
POLL_NS = 50_000

_LEFT = -1

# How often a thread that waits for an answer looks whether anybody still reads.
_TURN_SECONDS = 0.01

# What is taken note of as it comes, and not handed to the loop.
_PARTS = frozenset({Answer, Cancel, Feed, FeedEnd, YieldCredit})

_LAST = frozenset({Result, Failure})

_PROGRESS_NS = 20_000_000

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
        arena: memory that is shared with the host, for large payloads.

    Attributes:
        calls: those that have no answer yet.
        gone: the host has closed its end.
        on_cancel: takes each call that is to be ended, from whichever thread has read of it.
        shared: several operations run at a time: nobody reads but the loop.
    """

    def __init__(self, in_fd: int, out_fd: int, arena: Arena | None = None) -> None:
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._connection = Connection(PLUGIN)
        self._connection.arena = arena
        self._received: list[Message] = []  # the next one last
        self._turn = allocate_lock()  # held by who reads
        self._loop_waits = False
        self._taking: set[int] = set()  # threads that must not be disturbed
        self._asked = 0
        self._asking: set[int] = set()
        self._answers: dict[int, Answer] = {}
        self._wakers: set[Callable[[], object]] = set()
        self.calls = Calls()
        self.gone = False
        self.shared = False
        self.on_cancel: Callable[[CallState], None] = _nothing
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

    def guard(self) -> RLock:
        """Return the lock that every thread holds while it sends or takes what was read."""
        return self._lock

    def allow(self, max_payload_bytes: int) -> None:
        """Have payloads, and so values, of so many bytes from now on: the host has said so."""
        self._connection.allow(max_payload_bytes)
        VALUE.max_bytes = max_payload_bytes  # of this process, which has one host

    def lend(self) -> bool:
        """Put large payloads into the arena from now on; False where there is none."""
        self._connection.lend()
        return self._connection.arena is not None

    def fileno(self) -> int:
        """Return the descriptor that the host's messages come from, for an event loop."""
        return self._in_fd

    def leave(self) -> None:
        """In a forked copy of the process: take no part in the original's conversation any more.

        Whatever the copy sends meets a `BrokenPipeError`. The lock may have been held, when it was
        forked, by a thread that the copy does not have.
        """
        self._lock = RLock()
        for descriptor in (self._in_fd, self._out_fd):
            os.close(descriptor)
        self._in_fd = self._out_fd = _LEFT

    # -- the loop ---------------------------------------------------------------------------

    def receive(self, poll_ns: int = POLL_NS) -> Message | None:
        """Return the next message, waiting for it; None when the host closed its end.

        Args:
            poll_ns: so long it is looked for before the kernel is asked to wait for it.

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
                    data = self._read(poll_ns)
                    self._take(data)
                    if not data:
                        return None
            return self._received.pop()
        finally:
            self._loop_waits = False

    def _read(self, poll_ns: int) -> bytes:
        """Poll for a moment, then block."""
        until = monotonic_ns() + poll_ns
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

    # -- who waits for something of the host's ----------------------------------------------

    def ask(self, service: str, payload: bytes) -> Answer | None:
        """Ask for a service and wait for the answer, from any thread; None when the host is gone.

        The host is told until when the call waits that this is part of.

        Raises:
            LocalProtocolError: the session does not allow it now, or too much has been asked.
            RemoteProtocolError: the host broke the protocol.
            OSError: the host is gone.
        """
        call = current.get()
        # A task that outlives its call has that call's context, and no deadline any more.
        deadline_ns = call.deadline_ns if call is not None and call.active else 0
        with self._lock:
            number = self._asked + 1
            self.send(Ask(number, service, deadline_ns, payload=payload))
            self._asked = number
            self._asking.add(number)
        try:
            self.wait(lambda: number in self._answers)
            return self._answers.get(number)
        finally:
            # Also when the operation's deadline cut this short: what comes later is dropped.
            self._asking.discard(number)
            if self._answers.pop(number, None) is None:
                self._withdraw(number)

    def _withdraw(self, number: int) -> None:
        try:
            self.send(Withdraw(number))
        except (LocalProtocolError, OSError):
            return  # it has been answered after all, or nobody is there

    def wait(self, ready: Callable[[], bool]) -> bool:
        """Wait until ``ready`` is true, from any thread; False when the host is gone before.

        Args:
            ready: looked at whenever something of the host's has come; must not block.

        Raises:
            RemoteProtocolError: the host broke the protocol.
        """
        if ready():
            return True
        pause = allocate_lock()
        pause.acquire()
        waker = _Waker(pause)
        self._wakers.add(waker)
        try:
            while not ready():
                self._catch_up()
                if self.gone:
                    return False
                # What there is for the loop comes first: else it might never get its turn.
                for_loop = self._loop_waits and self._received
                if self.shared or for_loop or not self._take_turn():
                    pause.acquire(timeout=_TURN_SECONDS)
                    continue
                try:
                    self._taking.discard(get_ident())
                    if not ready():
                        self._await_data()
                        self._take_some()
                finally:
                    self._turn.release()
            return True
        finally:
            self._wakers.discard(waker)

    def look(self) -> None:
        """Take what is there, without waiting, unless somebody reads already.

        Raises:
            RemoteProtocolError: the host broke the protocol.
        """
        if self.gone or self._in_fd == _LEFT or not self._take_turn():
            return
        try:
            self._taking.discard(get_ident())
            self._take_some()
        finally:
            self._turn.release()

    def wake_on_news(self, wake: Callable[[], object]) -> None:
        """Call ``wake``, from any thread, whenever something of the host's has come."""
        self._wakers.add(wake)

    def wake_no_more(self, wake: Callable[[], object]) -> None:
        """Undo `wake_on_news`."""
        self._wakers.discard(wake)

    def _take_turn(self) -> bool:
        """Tell whether this thread reads now; then nothing disturbs it until `_taking` lets it."""
        # An exception between having the turn and knowing it would keep it from all others.
        self._taking.add(get_ident())
        if self._turn.acquire(blocking=False):
            return True
        self._taking.discard(get_ident())
        return False

    def _take_some(self) -> None:
        """Take what is there, in the middle of an operation, which its deadline may end."""
        # From here on until it is taken, what is read must not be lost.
        self._taking.add(get_ident())
        try:
            try:
                data = os.read(self._in_fd, READ_BYTES)
            except BlockingIOError:
                return
            ended = self._note(data)
        finally:
            self._taking.discard(get_ident())
        self._tell(ended)

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

    # -- what has come ----------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self._tell(self._note(data))

    def _note(self, data: bytes) -> list[CallState]:
        """Sort what was read; return the calls that are to be ended."""
        ended: list[CallState] = []
        with self._lock:
            if not data:
                self.gone = True
            try:
                self._connection.receive_data(data)
            except RemoteProtocolError:
                # What came before the fault does not matter: this process is about to end.
                self._received.clear()
                raise
            kept = []
            for message in self._connection.events_received():
                kind = type(message)
                if kind not in _PARTS:
                    if kind is Call:
                        self.calls.open(message)  # type: ignore[arg-type]  # it is one
                    kept.append(message)
                elif isinstance(message, Answer):
                    if message.id in self._asking:
                        self._answers[message.id] = message
                elif (state := self.calls.note(message)) is not None:
                    ended.append(state)
            kept.reverse()
            self._received[:0] = kept
        return ended

    def _tell(self, ended: list[CallState]) -> None:
        if self._wakers:
            for wake in tuple(self._wakers):
                wake()
        for state in ended:
            self.on_cancel(state)

    # -- sending ----------------------------------------------------------------------------

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
            if type(message) in _LAST:
                self.calls.forget(message.id)  # type: ignore[attr-defined]  # both have one
            if self._writing:
                return  # re-entered: the outer call writes it after its own frame
            self._writing = True
            try:
                while self._connection.to_send:
                    data = self._connection.data_to_send()
                    written = os.write(self._out_fd, data)
                    if written < len(data):
                        self._write(memoryview(data)[written:])
            finally:
                self._writing = False
        if self._postponed is not None:
            self._catch_up()

    def may_yield(self, call: int, size: int) -> bool:
        """Tell whether the next item of what a call returns may be sent, at so many bytes."""
        with self._lock:
            return self._connection.may_yield(call, size)

    def progress(self, done: int, total: int) -> None:
        """Say how much of the call is done that this is part of; nothing outside of calls.

        Not more often than anybody could look: what is said too soon after the last is left out,
        unless it is the end.
        """
        call = current.get()
        if call is None or not call.active:
            return
        now = monotonic_ns()
        if done == total or now - call.progress_ns >= _PROGRESS_NS:
            call.progress_ns = now
            self.send(Progress(call.id, done, total))

    def _write(self, rest: memoryview) -> None:
        while rest:
            rest = rest[os.write(self._out_fd, rest) :]


class _Waker:
    """Ends a thread's pause; to end one that has ended already does no harm."""

    __slots__ = ("_pause",)

    def __init__(self, pause: Any) -> None:
        self._pause = pause

    def __call__(self) -> None:
        try:
            self._pause.release()
        except RuntimeError:
            return


def _nothing(_state: CallState) -> None:
    """Take the place of the loop that sees to it, before there is one."""

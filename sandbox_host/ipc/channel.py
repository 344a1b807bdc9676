"""Leader and followers: the caller that leads reads for all who wait.

A thread that always reads would cost every call two wake-ups. Instead, a caller that finds nobody
reading becomes the leader: it polls for up to 50 µs, yielding the CPU in between, and then blocks;
what it reads for others it hands to them. A leader that is done passes the lead on. When nobody
waits in a thread (events, asyncio), ``rearm`` asks the keeper to call `pump` as soon as something
arrives.

Writes never block (`outbox`). A plugin that floods is not read for a while (`Pace`).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import (
    Failed,
    Failure,
    FeedCredit,
    FeedStop,
    Handled,
    HandledSome,
    Progress,
    Ready,
    Result,
    Stopped,
    Yield,
)
from sandbox_host.ipc.lead import Lead
from sandbox_host.ipc.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from plugin_sdk.wire.connection import Connection
    from sandbox_host.ipc.calls import Pending

POLL_SECONDS: Final = 50e-6
"""A wake-up on another CPU costs about 30 µs; polling this long avoids it for quick answers."""

SESSION_ID: Final = 0
"""Number of the pending that stands for loading or stopping, of which there is one at a time."""

_BY_ID: Final = frozenset({Result, Failure, Handled})
_OF_SESSION: Final = frozenset({Ready, Failed, Stopped})
_PARTS: Final = frozenset({Yield, FeedCredit, FeedStop, Progress, HandledSome})

_FOLLOW_SECONDS: Final = 0.5
_PACED_SECONDS: Final = 0.05
_LEAVING_SECONDS: Final = 5.0
_READS_AT_THE_END: Final = 64
_SMALL_BYTES: Final = 512


class Pace(Protocol):
    """How much may be said unasked; see `sandbox_host.budget.rate`."""

    pressed: bool

    def take(self, count: int, size: int, now: float) -> None:
        """Note that so many messages of so many bytes came."""

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing should be read."""


class Reader(Protocol):
    """An event loop that reads while its tasks wait."""

    watches: bool


class Channel:
    """The host's end of one plugin's pipes. All methods may be called from any thread.

    Args:
        connection: the protocol's state.
        receive_fd: non-blocking read end.
        send_fd: non-blocking write end.
        max_unsent_bytes: how much may wait for a plugin that does not read.
        pace: bounds what answers nothing.
        on_message: takes messages that answer nothing: a publish.
        on_part: takes what is said of a pending before its answer.
        on_room: called when everything that was kept for the plugin has been written.
        on_answered: takes each pending that the plugin answered, before its caller gets it.
        on_broken: takes the reason when the stream ended (None) or broke the protocol, and any
            other exception when reading was cut off in the host itself.
        rearm: asks the keeper to `pump` when there is something to read (or room to write).
        on_wait: called before an answer is waited for: what has no hurry may be done there.

    Attributes:
        reader: an event loop that reads while its tasks wait, or None.
        tap: is handed every message that is sent or comes, in their order, or None; must not block.
    """

    def __init__(
        self,
        connection: Connection,
        receive_fd: int,
        send_fd: int,
        *,
        max_unsent_bytes: int,
        pace: Pace,
        on_message: Callable[[Message], None],
        on_part: Callable[[Pending, Message], None],
        on_room: Callable[[], None],
        on_answered: Callable[[Pending, Message], None],
        on_broken: Callable[[BaseException | None], None],
        rearm: Callable[[bool], None],
        on_wait: Callable[[], object] = bool,
    ) -> None:
        self._connection = connection
        self._receive_fd = receive_fd
        self._send_fd = send_fd
        self._outbox = Outbox(send_fd, max_unsent_bytes)
        self._kept = self._outbox.kept
        self._on_message = on_message
        self._on_part = on_part
        self._on_room = on_room
        self._on_answered = on_answered
        self._on_broken = on_broken
        self._rearm = rearm
        self._on_wait = on_wait
        self._pace: Pace | None = pace
        self._pending: dict[int, Pending] = {}
        self._inbox: deque[tuple[Pending | None, Message]] = deque()
        self._state = threading.Lock()
        self._lead = Lead()
        self._read_on_until = 0.0
        self._broken = False
        self._closed = False
        self.reader: Reader | None = None
        self.tap: Callable[[Message], None] | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    @property
    def receive_fd(self) -> int:
        """What the plugin says can be read here."""
        return self._receive_fd

    @property
    def broken(self) -> bool:
        """Nothing can be sent or received any more."""
        return self._broken

    def oldest(self) -> Pending | None:
        """Return what has been without an answer for the longest time."""
        with self._state:
            return next(iter(self._pending.values()), None)

    @property
    def idle(self) -> bool:
        """Nothing is unanswered."""
        return not self._pending

    @property
    def unanswered(self) -> Sized:
        """What `idle` goes by, as it is at any time until the channel is closed."""
        return self._pending

    @property
    def clogged(self) -> bool:
        """Something is kept for the plugin, which does not read."""
        with self._state:  # while it is written, everything is kept for a moment
            return bool(self._outbox)

    def has(self, pending: Pending) -> bool:
        """Tell whether the plugin has not answered it, whoever has given up on that meanwhile."""
        return self._pending.get(pending.id) is pending

    def outstanding(self) -> list[Pending]:
        """Return everything unanswered, oldest first."""
        with self._state:
            return list(self._pending.values())

    def may_feed(self, call: int, stream: int, size: int) -> bool:
        """Tell whether the next item of a stream may be fed to a call; also where it has ended."""
        with self._state:
            if self._broken or not self._connection.is_open(call):
                return True
            fits = self._connection.may_feed(call, stream, size)
        return fits and self.has_room(size)

    def has_room(self, size: int) -> bool:
        """Tell whether ``size`` bytes more may be kept for a plugin that does not read."""
        return self._outbox.has_room(size)

    # -- sending ----------------------------------------------------------------------------

    def send(self, message: Message, pending: Pending | None = None) -> bool:
        """Send without blocking; return False if the channel has been closed.

        Where the stream has ended and the reason is not known yet, nothing is sent, and ``pending``
        is finished with the reason by `close`.

        Raises:
            LocalProtocolError: the message is not allowed now, or breaks a limit.
        """
        with self._state:
            if self._closed:
                return False
            if pending is not None:
                self._pending[pending.id] = pending
            kept = bool(self._kept)
            if not self._broken:
                self._write(message, pending)
        if self._kept:
            self._rearm(True)
        elif kept:
            self._on_room()
        return True

    def _write(self, message: Message, pending: Pending | None) -> None:
        try:
            self._connection.send(message)
            if self.tap is not None:
                self.tap(message)
            data = self._connection.data_to_send()
            self.bytes_out += len(data)
            self._outbox.write(data)
        except LocalProtocolError:
            if pending is not None:
                del self._pending[pending.id]
            raise
        except BaseException as error:
            # KeyboardInterrupt: nobody knows how much of the message is on its way.
            self._broken = True
            self._on_broken(error)
            raise

    def _flush(self) -> bool:
        """Try to write what was kept; return True while something is left."""
        with self._state:
            kept = bool(self._outbox)
            if kept and not self._broken:
                self._outbox.flush()
            left = bool(self._outbox)
        if kept and not left:
            self._on_room()
        return left

    # -- waiting ----------------------------------------------------------------------------

    def wait(
        self, pending: Pending, ready: Callable[[], bool] | None = None, until: float = math.inf
    ) -> None:
        """Block until ``pending`` is finished, leading or following.

        It ends because every pending has a deadline, and the keeper finishes it by then.

        Args:
            pending: what is waited for.
            ready: ends the wait sooner, when a part of it has come.
            until: the same, at this reading of the monotonic clock.
        """
        waiter: threading.Event | None = None
        while pending.answer is None and not _is_over(pending, ready, until):
            if not self._broken and self._as_leader(self._read_until, pending, ready, until):
                continue  # it was over, or the stream has ended
            if waiter is None:
                # Registered before the lead is tried again: a leader that lets go in between
                # sees this waiter when it passes the lead on.
                waiter = pending.register_waiter()
                continue
            waiter.wait(min(_FOLLOW_SECONDS, max(0.0, until - time.monotonic())))
            if not pending.done():
                waiter.clear()

    def poll_briefly(self, pending: Pending, ready: Callable[[], bool] | None = None) -> None:
        """Read for up to 50 µs, for a caller that must not block; then somebody is to `attend`."""
        if not _is_over(pending, ready):
            self._as_leader(self._poll, pending, ready)

    def _poll(self, pending: Pending, ready: Callable[[], bool] | None) -> None:
        self._on_wait()
        until = time.monotonic() + POLL_SECONDS
        while not (self._broken or _is_over(pending, ready)) and time.monotonic() < until:
            if not self._read_once():
                os.sched_yield()

    def attend(self) -> None:
        """Have the keeper read for a caller who does something else meanwhile."""
        self._ask_keeper()

    def pump(self) -> bool:
        """Write and read once what is possible now, for the keeper or an event loop.

        Returns:
            False if nothing was read, because nothing is there, or somebody else leads, or the
            plugin is held back or gone.
        """
        if self._outbox and self._flush():
            self._rearm(True)
        return not self._broken and self._as_leader(self._read_once) is True

    @property
    def led_here(self) -> bool:
        """The calling thread hands out what it has read, somewhere below."""
        return self._lead.mine

    def _as_leader(self, read: Callable[..., object], *how: Any) -> object:
        """Run ``read`` if nobody else reads, and return its result; None if somebody does."""
        try:
            if not self._lead.take():
                return None
            if self._inbox:
                self._hand_out()
            return read(*how)
        finally:
            if self._lead.leave():
                self._pass_on()

    def _read_until(self, pending: Pending, ready: Callable[[], bool] | None, until: float) -> bool:
        if pending.answer is None:
            self._on_wait()  # while the plugin works on it
        polled = time.monotonic() + POLL_SECONDS
        plain = ready is None and until == math.inf
        while not self._broken and pending.answer is None:
            if not plain and _is_over(pending, ready, until):
                break
            if self._read_once():
                continue
            now = time.monotonic()
            if now < polled:
                os.sched_yield()
            else:
                self._block(min(_FOLLOW_SECONDS, max(0.0, until - now)))
        return True

    def _block(self, most: float) -> None:
        """Wait in the kernel until there is something to do, or so many seconds have passed."""
        unsent = self._flush()
        pause = self._held()
        poller = select.poll()
        if not pause:
            poller.register(self._receive_fd, select.POLLIN)
        if unsent:
            poller.register(self._send_fd, select.POLLOUT)
        poller.poll(1_000 * min(pause or most, _PACED_SECONDS if pause else most, most))

    # -- reading ----------------------------------------------------------------------------

    def _read_once(self) -> bool:
        """Read one chunk and hand out what is in it; False if there was nothing to read."""
        if self._pace is not None and self._pace.pressed and self._held():
            return False
        try:
            data = os.read(self._receive_fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        reason: BaseException | None = None
        try:
            self._receive(data)
        except RemoteProtocolError as error:
            reason = error
        except BaseException as error:
            # KeyboardInterrupt between two bytes: what the plugin says next cannot be trusted to
            # be understood. It is not the plugin's fault, and is told so.
            self._broken = True
            self._on_broken(error)
            raise
        self._hand_out()
        if self._broken:
            self._on_broken(reason)
        return bool(data)

    def _receive(self, data: bytes) -> None:
        """Feed the connection and put what came out into the inbox."""
        with self._state:
            self.bytes_in += len(data)
            try:
                if data:
                    self._connection.receive_data(data)
                else:
                    self._broken = True
                    # In the middle of a frame: whoever is killed while it writes has broken no
                    # rule. One that closed its pipe and lives on has, and is found out by that.
                    with contextlib.suppress(RemoteProtocolError):
                        self._connection.receive_eof()
            except RemoteProtocolError:
                self._broken = True
                raise
            finally:
                self._sort(len(data))

    def _sort(self, read_bytes: int) -> None:
        """Find whom each message is for, and count what was not asked for."""
        size = unasked = 0
        messages = self._connection.events_received()
        if self._connection.crossed:
            unasked, self._connection.crossed = self._connection.crossed, 0
        if not messages and read_bytes < _SMALL_BYTES:
            unasked += 1  # a frame in small pieces costs a read for each of them
        for message in messages:
            pending, kind = None, type(message)
            if kind in _BY_ID:
                pending = self._pending.pop(message.id, None)  # type: ignore[attr-defined]
            elif kind in _PARTS:
                pending = self._pending.get(message.id)  # type: ignore[attr-defined]
            elif kind in _OF_SESSION:
                pending = self._pending.pop(SESSION_ID, None)
            # A report on an event is not asked for by anybody who waits, and progress is not
            # bounded by credits, as the other parts are.
            if pending is None or pending.is_delivery or kind is Progress:
                unasked += 1
                size += len(message.payload)
            if self.tap is not None:
                self.tap(message)
            self._inbox.append((pending, message))
        if unasked and self._pace is not None:
            self._pace.take(unasked, size, time.monotonic())

    def _hand_out(self) -> None:
        """Give everything in the inbox to whom it belongs.

        An entry leaves the inbox after it was given: a KeyboardInterrupt in between gives it twice,
        which does no harm, rather than never, which would leave its caller waiting.
        """
        inbox = self._inbox
        while inbox:
            pending, message = inbox[0]
            try:
                if pending is None:
                    self._on_message(message)
                elif type(message) in _PARTS:
                    self._on_part(pending, message)
                    pending.nudge()
                else:
                    self._on_answered(pending, message)
                    pending.finish(message, time.monotonic())
            except Exception:
                inbox.popleft()
                raise
            inbox.popleft()

    def _pass_on(self) -> None:
        """Give the lead to somebody who waits in a thread, or else to the keeper."""
        if not self._pending:
            return  # who sends now has not looked for the lead yet
        with self._state:
            waiting = list(self._pending.values())
        if waiting and not any(pending.nudge() for pending in waiting):
            self._ask_keeper()

    def _ask_keeper(self) -> None:
        """Have the keeper pump when something comes; not while a flooding plugin is not read.

        Then its next sweep asks itself, and the wait costs nobody anything. Nor where an event loop
        watches.
        """
        if self.reader is not None and self.reader.watches and not self._outbox:
            return
        if not self._held():
            self._rearm(bool(self._outbox))

    def _held(self) -> float:
        """Return for how many seconds a flooding plugin is not read; 0.0 where it is."""
        pace = self._pace
        if pace is None or not pace.pressed:
            return 0.0
        now = time.monotonic()
        return pace.wait(now) if now >= self._read_on_until else 0.0

    def read_on(self, seconds: float) -> None:
        """Read the plugin for so long, whatever it has said: it may be unable to hear else."""
        self._read_on_until = time.monotonic() + seconds

    # -- the end ----------------------------------------------------------------------------

    def drain(self) -> None:
        """Read what the plugin left in the pipe when it ended.

        Must come before `close`: an answer that was sent just before the end is an answer.
        """

        def read() -> bool:
            for _ in range(_READS_AT_THE_END):
                if self._broken or not self._read_once():
                    break
            return True

        self._pace = None  # what is in the pipe now is all there will ever be
        until = time.monotonic() + _LEAVING_SECONDS
        while not self._broken and not self._as_leader(read) and time.monotonic() < until:
            time.sleep(0.001)  # whoever leads meets the end of the stream at once

    def close(self, answer: Callable[[Pending], Exception]) -> bool:
        """Finish everything unanswered with an error, for good.

        Returns:
            True when no thread reads or writes the descriptors any more, and none will: they may
            be closed, and their numbers used again. False if a leader did not leave.
        """
        with self._state:
            self._broken = self._closed = True
            pendings, self._pending = list(self._pending.values()), {}
            self._outbox.clear()
        now = time.monotonic()
        for pending in pendings:
            pending.finish(answer(pending), now)
        return self._lead.end(_LEAVING_SECONDS)


def _is_over(pending: Pending, ready: Callable[[], bool] | None, until: float = math.inf) -> bool:
    return (
        pending.answer is not None
        or (ready is not None and ready())
        or (until != math.inf and time.monotonic() >= until)
    )

"""One running plugin: its child, its channel, its account, its state. The keeper looks after it.

Everything here may be called from any thread. What ends a plugin is recorded first, as an
`Ending`, and then done; when the process is gone, whoever waits gets the one true cause.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError, RemoteProtocolError
from plugin_sdk.wire.limits import MAX_EVENT_BYTES, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.messages import Call, Deliver, Failure, Handled, Load, Publish, Stop
from sandbox_host.budget.enforce import Excess
from sandbox_host.budget.enforce import Step as Remedy
from sandbox_host.budget.ledger import Ledger
from sandbox_host.errors import (
    MessageTooLargeError,
    NotSerializableError,
    PluginEndedError,
    PluginError,
    UsageError,
)
from sandbox_host.ipc.calls import Pending
from sandbox_host.ipc.channel import SESSION_ID, Channel
from sandbox_host.model import CallUsage, Cause, Metered, State, Usage
from sandbox_host.observe.plugin_log import PluginLog
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending, cause_of
from sandbox_host.runtime.keeper import EXIT, IDLE_SECONDS
from sandbox_host.runtime.lifecycle import ENDED, Step, advance
from sandbox_host.runtime.output import Output
from sandbox_host.runtime.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from plugin_sdk.wire.messages import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Exit, Places
    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Limits, Receipt
    from sandbox_host.runtime.interface import Interface
    from sandbox_host.runtime.keeper import Keeper

_log = logging.getLogger("sandbox_host")

STACKS_SECONDS: Final = 0.05
"""How long a plugin that is to be ended may take to show where it stands."""

_HURRY_SECONDS: Final = 0.005
_LEAVING_SECONDS: Final = 0.5
"""How long a process may live on after it closed its pipe, before that counts as a breach."""

_DYING_SECONDS: Final = 5.0
"""How long a process that was killed may take to be gone, before nobody waits for that any more."""

_UNKNOWN_OPERATION: Final = "(unknown)"


class Listener(Protocol):
    """Who is told what a running plugin does unasked: the host."""

    def published(self, process: PluginProcess, event_type: str, payload: bytes) -> None:
        """It published an event; its right to has not been checked."""

    def handler_failed(self, process: PluginProcess, event_type: str, report: Any) -> None:
        """A handler of an event failed."""

    def ended(self, process: PluginProcess) -> None:
        """It has ended, and whoever waited for it knows."""

    def gone(self, process: PluginProcess) -> None:
        """Nothing of its process is left: call `PluginProcess.release`, best in another thread."""


class PluginProcess:
    """A confined, attested child and everything the host knows of it.

    Attributes:
        ended: nobody need wait for it any more: all was given back, or it cannot be ended.
        gone: the process has been seen to end.

    Args:
        plan: what was admitted.
        places: where its files are.
        child: the process, started.
        receipt: what confines it.
        keeper: looks after it from now on.
        config: the operator's.
        log_path: where its output goes.
        listener: is told what it does unasked.

    Raises:
        ConfigError: its log cannot be written.
        ConfinementError: it cannot be looked after.
    """

    def __init__(
        self,
        plan: SandboxPlan,
        places: Places,
        child: Child,
        receipt: Receipt,
        *,
        keeper: Keeper,
        config: HostConfig,
        log_path: Path,
        listener: Listener,
    ) -> None:
        self.plan = plan
        self.places = places
        self.receipt = receipt
        self.interface: Interface | None = None
        self.state = State.STARTING
        self.cause: Cause | None = None
        self.cause_text = ""
        self.ended = threading.Event()
        self.gone = False
        self.copied = False
        self.log = PluginLog(log_path, config.log_bytes)
        self.ledger = Ledger()
        self._child = child
        self._output = Output(child, self.log)
        self._watchdog = Watch(child, plan.limits, self.ledger)
        self._keeper = keeper
        self._config = config
        self._listener = listener
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        # An id must not be overtaken by a later one between its choice and its sending.
        self._sending = threading.Lock()
        self._ending: Ending | None = None
        self._offender: Pending | None = None
        self._kill_at = 0.0
        self._closed_pipe_at = 0.0
        self._given_up = False
        self._may_close = False
        self.channel = Channel(
            child.connection,
            child.receive_fd,
            child.send_fd,
            max_unsent_bytes=2 * MAX_PAYLOAD_BYTES,
            on_message=self._on_message,
            on_answered=self._on_answered,
            on_broken=self._on_broken,
            rearm=lambda for_room: keeper.watch(self, for_room=for_room),
        )
        try:
            keeper.adopt(self)
        except BaseException:
            self._output.close()
            raise

    # -- what applications ask for --------------------------------------------------------

    @property
    def identity(self) -> str:
        """What the host calls the plugin."""
        return self.plan.identity

    def load(self, order: Mapping[str, Any], timeout: float) -> Message:
        """Have the child import the plugin; return `Ready` or `Failed`.

        Raises:
            PluginError: it was ended meanwhile.
        """
        pending = Pending(SESSION_ID, answers.START, time.monotonic() + timeout, time.monotonic())
        return self._answer_to(pending, Load(payload=codec.pack(order)))

    def ready(self, interface: Interface) -> None:
        """Let it be called from now on.

        Raises:
            PluginEndedError: it ended in the meantime.
        """
        with self._lock:
            if self.state not in ENDED:
                self.state = advance(self.state, Step.READY)
                self.interface = interface
                return
        raise self._not_running()

    def begin(
        self, operation: str, arguments: tuple[Any, ...], keywords: dict[str, Any], deadline: float
    ) -> Pending:
        """Send a call; the answer comes to the returned pending, whatever happens.

        Args:
            operation: the operation's name.
            arguments: positional arguments.
            keywords: keyword arguments.
            deadline: seconds from now.

        Raises:
            PluginError: it is not ready, too much is outstanding, or an argument cannot be sent.
        """
        payload = self._pack(operation, [list(arguments), keywords])
        now = time.monotonic()
        with self._sending:
            self._check_ready(len(payload))
            pending = Pending(next(self._ids), operation, now + deadline, now)
            pending.bytes_out = len(payload)
            call = Call(pending.id, operation, int((now + deadline) * 1e9), payload=payload)
            if not self._send(call, pending):
                raise self._gone(pending)
        return pending

    def result(self, pending: Pending) -> Any:
        """Return the value of a finished call, or raise what became of it.

        Raises:
            PluginError: the operation failed, was too late, or its plugin was ended.
        """
        try:
            return self._value(pending)
        except PluginError as error:
            error.usage = self._bill(pending)
            raise

    def metered(self, pending: Pending) -> Metered:
        """Return the same with what it cost; an error carries its cost as well.

        Raises:
            PluginError: as `result`.
        """
        return Metered(self.result(pending), self._bill(pending))

    def _bill(self, pending: Pending) -> CallUsage:
        if pending.cost is not None:
            return pending.cost
        wall = max(0.0, (pending.finished_at or time.monotonic()) - pending.sent_at)
        used = self._child.cpu_seconds() - pending.cpu_at_start if pending.started_at else 0.0
        return CallUsage(max(0.0, used), wall, pending.bytes_out, 0)

    def _value(self, pending: Pending) -> Any:
        answer = pending.answer
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None  # noqa: S101 - callers wait first
        sample = self._child.sample() if isinstance(answer, Failure) else None
        try:
            return answers.value_of(self.plan, pending, answer, sample)
        except answers.BadAnswerError as error:
            self._violated(str(error))
            raise self._gone(pending) from None

    def is_bulky(self, pending: Pending) -> bool:
        """Tell whether the answer is so large that decoding it takes noticeably long."""
        payload = getattr(pending.answer, "payload", b"")
        return len(payload) > MAX_EVENT_BYTES

    def deliver(self, event: PackedEvent) -> None:
        """Send an event to its handlers, unless too much waits for it already: then it is lost."""
        now = time.monotonic()
        payload = event.delivery()
        with self._sending:
            if self.state is not State.READY or not self._has_room(len(payload)):
                return
            number = next(self._ids)
            # Nobody waits for it: its time begins when its handlers do, not while others run.
            pending = Pending(number, f"@{event.type}", math.inf, now, is_delivery=True)
            self._send(Deliver(number, event.type, payload=payload), pending)

    def stop(self, timeout: float, cause: Cause) -> Message | None:
        """Let it finish what it has, clean up and leave; end it at the timeout.

        Whoever comes second waits with the first.

        Returns:
            `Stopped`, or None where it had to be ended, had ended, or somebody else stops it.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            mine = self.state is State.READY
            if mine:
                self.state = advance(self.state, Step.DRAIN)
        answer: Message | None = None
        if mine:
            pending = Pending(SESSION_ID, answers.CLEAN_UP, deadline, time.monotonic())
            try:
                answer = self._answer_to(pending, Stop())
            except PluginError:
                answer = None
        if mine or self.state is State.DRAINING:
            self.ended.wait(max(0.0, deadline - time.monotonic()))
        self.end(Ending(cause, f"{self.identity} was ended by the host ({cause})."), at_once=True)
        self.ended.wait(timeout + 1.0)
        return answer

    def usage(self) -> Usage:
        """Return what it has cost so far, looking at the process once more if it lives."""
        self._watchdog.sample()
        return self.ledger.usage(bytes_in=self.channel.bytes_in, bytes_out=self.channel.bytes_out)

    def log_tail(self, lines: int) -> list[str]:
        """Return the last lines it printed, those before its last answer included."""
        self._output.drain()
        return self.log.tail(lines)

    def resident_bytes(self) -> int:
        """Return its resident memory now; 0 once it has ended."""
        facts = self._watchdog.sample()
        return facts.resident_bytes if facts else 0

    def end(
        self, ending: Ending, *, at_once: bool = False, offender: Pending | None = None
    ) -> None:
        """End the process, asking first where it stands; the first reason given is the cause."""
        with self._lock:
            if self._ending is not None or self.state in ENDED:
                return
            self._ending = ending
            self._offender = offender
            self._kill_at = time.monotonic() + (0.0 if at_once else STACKS_SECONDS)
        # Whoever calls this cannot mend it, and may hold a lock. The keeper kills again, and again.
        with contextlib.suppress(Exception):
            if at_once:
                self._child.kill()
            else:
                self._child.ask_for_stacks()
        self._keeper.wake()

    # -- sending ----------------------------------------------------------------------------

    def _answer_to(self, pending: Pending, message: Message) -> Message:
        with self._sending:
            if not self._send(message, pending):
                raise self._gone(pending)
        self.channel.wait(pending)
        if isinstance(pending.answer, Exception):
            raise pending.answer
        assert pending.answer is not None  # noqa: S101 - wait returns when it is finished
        return pending.answer

    def _pack(self, operation: str, value: Any) -> bytes:
        try:
            return codec.pack(value)
        except PayloadTooLargeError as error:
            text = f"The arguments of {self.identity}.{operation} are too large: {error}."
            raise MessageTooLargeError(text, plugin=self.identity) from None
        except PayloadError as error:
            text = f"The arguments of {self.identity}.{operation} cannot be sent: {error}."
            raise NotSerializableError(text, plugin=self.identity) from None

    def _send(self, message: Message, pending: Pending) -> bool:
        if self.channel.oldest() is None:
            # Its turn is now: read its clocks before the plugin can begin.
            self._watchdog.start(pending)
        sent = self.channel.send(message, pending)
        if sent:
            self._mark_oldest()
        return sent

    def _has_room(self, size: int) -> bool:
        outstanding = self._child.connection.outstanding
        return outstanding < self._config.max_outstanding_calls and self.channel.has_room(size)

    def _check_ready(self, size: int) -> None:
        if self.copied:
            raise UsageError(
                f"{self.identity} belongs to the process that this one was forked from.",
                remedy="Make a host of its own after the fork.",
            )
        if self.state is not State.READY:
            raise self._not_running()
        if not self._has_room(size):
            raise answers.too_much(self.identity, self._child.connection.outstanding)

    def _not_running(self) -> PluginEndedError:
        return answers.not_running(self.identity, self.state, self.cause, self.cause_text)

    # -- what comes back --------------------------------------------------------------------

    def _mark_oldest(self) -> None:
        """Start the clocks of the message that the plugin works on now: it answers in order."""
        oldest = self.channel.oldest()
        if oldest is not None and not oldest.started_at:
            self._watchdog.start(oldest)

    def _on_answered(self, pending: Pending, message: Message) -> None:
        pending.cost = self._cost(pending, message)
        self._mark_oldest()
        if isinstance(message, Handled):
            if not message.ok:
                self._listener.handler_failed(self, pending.operation[1:], self._report(message))
        elif pending.id != SESSION_ID:
            offered = self.interface.operations if self.interface else ()
            name = pending.operation if pending.operation in offered else _UNKNOWN_OPERATION
            self.ledger.answered(name, pending.cost, failed=isinstance(message, Failure))

    def _cost(self, pending: Pending, message: Message) -> CallUsage:
        started = pending.started_at > 0
        return CallUsage(
            cpu_seconds=self._child.cpu_seconds() - pending.cpu_at_start if started else 0.0,
            wall_seconds=time.monotonic() - pending.sent_at,
            bytes_out=pending.bytes_out,
            bytes_in=len(getattr(message, "payload", b"")),
        )

    def _report(self, message: Message) -> Any:
        try:
            return codec.unpack(message.payload)
        except PayloadError as error:
            self._violated(str(error))
            return {}

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Publish):
            self._listener.published(self, message.event_type, message.payload)

    def _on_broken(self, reason: BaseException | None) -> None:
        """The stream ended: because the process did, the plugin means harm, or we were cut off."""
        if isinstance(reason, RemoteProtocolError):
            self._violated(str(reason))
        elif reason is not None:
            self._fail(reason)
        elif not self._closed_pipe_at:
            self._closed_pipe_at = time.monotonic()
            self._keeper.wake()

    def _violated(self, what: str, *, at_once: bool = False) -> None:
        text = f"{self.identity} broke the protocol: {answers.clean(what, 300)}."
        self.end(Ending(Cause.PROTOCOL_VIOLATION, text), at_once=at_once)

    # -- what the keeper calls --------------------------------------------------------------

    def steady_fds(self) -> dict[int, str]:
        """Return the descriptors that are always watched."""
        return {**self._output.descriptors(), self._child.exit_fd: EXIT}

    def channel_fds(self) -> tuple[int, int]:
        """Return the protocol's descriptors."""
        return self._child.receive_fd, self._child.send_fd

    def pump(self) -> None:
        """Read and write the protocol as far as possible now."""
        self.channel.pump()

    def readable(self, role: str) -> bool:
        """Take output, a stack dump, or the end of the process."""
        if role != EXIT:
            return self._output.take(role)
        how = self._child.wait(0.0)
        if how is not None:
            self._finish(how)
        return how is None

    def tick(self, now: float) -> float:
        """Check budgets and deadlines; return in how many seconds to look again."""
        if self._ending is not None:
            return self._see_to_end(now)
        if self._closed_pipe_at and now - self._closed_pipe_at > _LEAVING_SECONDS:
            self._violated("it closed its pipe and stayed", at_once=True)
        oldest = self.channel.oldest()
        excess = self._watchdog.look(oldest, now)
        if self._watchdog.blind and not self.readable(EXIT):
            return IDLE_SECONDS  # it had ended, and its end had not been noticed
        if self._watchdog.hidden:
            self._violated(
                "its main thread left, and hid the others from its budgets", at_once=True
            )
        elif excess is not None:
            self._act_on(excess, oldest, now)
        for pending in self.channel.outstanding():
            if pending is not oldest and now >= pending.deadline:
                # It waits behind another; the plugin skips it when its turn comes.
                pending.finish(answers.too_late(self.identity, pending, now, ended=False), now)
        if oldest is None:
            return IDLE_SECONDS
        return min(self._config.sweep_seconds, max(0.001, oldest.deadline - now))

    def _act_on(self, excess: Excess, oldest: Pending | None, now: float) -> None:
        if excess.step is Remedy.INTERRUPT and oldest is not None:
            oldest.interrupted_at = now
            with contextlib.suppress(Exception):  # then it is ended, after the same grace
                self._child.interrupt()
            return
        text = answers.told_to_operator(self.identity, excess)
        self.end(Ending(excess.cause, text, excess), offender=oldest)

    @property
    def data_dir(self) -> Path:
        """The plugin's own directory."""
        return self.places.data_dir

    @property
    def limits(self) -> Limits:
        """Its budgets."""
        return self.plan.limits

    def unlinked_bytes(self, device: int) -> int:
        """Return what it holds open on a device that has no name any more."""
        return self._child.unlinked_bytes(device)

    def exceeded(self, excess: Excess) -> None:
        """End it for an excess that was found elsewhere than at the watch's looks."""
        text = answers.told_to_operator(self.identity, excess)
        self.end(Ending(excess.cause, text, excess), offender=self.channel.oldest())

    def broke_down(self, error: BaseException) -> None:
        """A fault of the host's: this plugin is ended, the others go on."""
        if self._ending is None:
            self._fail(error)
        else:
            self._give_up(_shown(error))

    def unwatched(self) -> None:
        """Nobody looks after it any more, after `broke_down`: let nobody wait for it."""
        self._give_up("nobody looks after it any more")

    def _fail(self, error: BaseException) -> None:
        text = f"{self.identity} was ended after a fault of the host's: {_shown(error)}."
        self.end(Ending(Cause.UNKNOWN, text), at_once=True)

    # -- the end ----------------------------------------------------------------------------

    def _see_to_end(self, now: float) -> float:
        if now >= self._kill_at:
            if not self.readable(EXIT):
                return IDLE_SECONDS
            self._child.kill()
            if now >= self._kill_at + _DYING_SECONDS:
                self._give_up(f"it was not gone {_DYING_SECONDS:g} s after it was killed")
        return IDLE_SECONDS if self._given_up else _HURRY_SECONDS

    def _give_up(self, why: str) -> None:
        """Let nobody wait any longer for the end of the process; it goes on being killed.

        What was taken for it is not given back while it may live.
        """
        ending = self._ending
        if ending is None or self._given_up or self.gone:
            return
        self._given_up = True
        with contextlib.ExitStack() as steps:
            steps.callback(self.ended.set)
            steps.callback(self._listener.ended, self)
            steps.callback(self.channel.close, self._gone)
            steps.callback(self._end_as, ending.cause, f"{ending.text} Its process may live on.")
            pid = self.receipt.pid
            _log.error("%s: process %d has not been seen to end: %s", self.identity, pid, why)

    def _finish(self, how: Exit) -> None:
        """The process is gone: take its last words, tell the cause, close everything.

        Everything after the first lines is done whatever fails before it, in this order reversed.
        """
        if self.gone:
            return
        self.gone = True
        with contextlib.ExitStack() as steps:
            steps.callback(self._listener.gone, self)
            if not self._given_up:
                steps.callback(self._listener.ended, self)
            steps.callback(self._close)
            steps.callback(self._output.close)
            self.channel.drain()
            self._output.drain()
            self.ledger.sampled(
                cpu=how.cpu_seconds, resident_peak=how.resident_peak_bytes, descriptors=0, threads=0
            )
            self._tell_cause(how)

    def _close(self) -> None:
        """Finish all calls; the descriptors may be closed unless a thread still reads them."""
        try:
            self._may_close = self.channel.close(self._gone)
        finally:
            self._keeper.dismiss(self)

    def release(self) -> None:
        """Close the descriptors and give back what was taken for the process; takes a while."""
        try:
            if self._may_close:
                self._child.close()
        finally:
            self.ended.set()

    def _tell_cause(self, how: Exit) -> None:
        if self.state is State.DRAINING and how.code == 0 and self._ending is None:
            self._end_as(Cause.UNLOADED, f"{self.identity} was unloaded.")
        else:
            lifetime = self.plan.limits.cpu_total_seconds
            self._end_as(*cause_of(self.identity, self._ending, how, lifetime))

    def _end_as(self, cause: Cause, text: str) -> None:
        """Set the cause and the last state, unless that has been done."""
        with self._lock:
            if self.state in ENDED:
                return
            self.cause, self.cause_text = cause, text
            asked = cause in {Cause.UNLOADED, Cause.HOST_SHUTDOWN}
            draining = self.state is State.DRAINING
            self.state = advance(self.state, Step.ENDED if asked and draining else Step.FAILED)

    def _gone(self, pending: Pending) -> PluginError:
        """Return the error for a call that will not be answered any more."""
        excess = self._ending.excess if self._ending else None
        if excess is not None and pending is self._offender:
            place = self._output.place(str(self.places.package_dir))
            now, ended = time.monotonic(), not self._given_up
            return answers.exceeded(self.identity, pending, excess, place, now, ended=ended)
        cause = self.cause or (self._ending.cause if self._ending else Cause.UNKNOWN)
        why = self.cause_text or (self._ending.text if self._ending else "its process is gone.")
        return answers.unanswered(self.identity, pending, cause, why)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")

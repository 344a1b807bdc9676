"""One running plugin: its child, its channel, its account, its state. The keeper looks after it.

Everything here may be called from any thread. What ends a plugin is recorded first, as an
`Ending`, and then done; when the process is gone, whoever waits gets the one true cause.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import LocalProtocolError, PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import MAX_EVENT_BYTES, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.messages import Call, Deliver, Failure, Handled, Load, Publish, Stop
from sandbox_host.backends.base import Exit
from sandbox_host.budget.enforce import Excess, Facts, Running, judge
from sandbox_host.budget.enforce import Step as Remedy
from sandbox_host.budget.ledger import Ledger
from sandbox_host.budget.place import MAX_DUMP_BYTES, place_in
from sandbox_host.errors import (
    BackpressureError,
    BudgetExceededError,
    MessageTooLargeError,
    NotSerializableError,
    PluginEndedError,
    PluginError,
)
from sandbox_host.ipc.calls import Pending
from sandbox_host.ipc.channel import SESSION_ID, Channel
from sandbox_host.model import Cause, State, Usage
from sandbox_host.observe.plugin_log import PluginLog
from sandbox_host.runtime import answers
from sandbox_host.runtime.causes import Ending, cause_of
from sandbox_host.runtime.keeper import IDLE_SECONDS
from sandbox_host.runtime.lifecycle import ENDED, Step, advance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from plugin_sdk.wire.errors import RemoteProtocolError
    from plugin_sdk.wire.messages import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Places
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Event, Receipt
    from sandbox_host.runtime.interface import Interface
    from sandbox_host.runtime.keeper import Keeper

LOAD: Final = "load"
STOP: Final = "cleanup"

STACKS_SECONDS: Final = 0.05
"""How long a plugin that is to be ended may take to show where it stands."""

_HURRY_SECONDS: Final = 0.005
_LEAVING_SECONDS: Final = 0.5
"""How long a process may live on after it closed its pipe, before that counts as a breach."""

_DRAIN_BYTES: Final = 4 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024


class PluginProcess:
    """A confined, attested child and everything the host knows of it.

    Args:
        plan: what was admitted.
        places: where its files are.
        child: the process, started.
        receipt: what confines it.
        keeper: looks after it from now on.
        config: the operator's.
        log_path: where its output goes.
        on_publish: takes what it publishes: event type and packed data.
        on_handler_error: takes the event type and the report of a failed handler.
        on_ended: called once, when the process is gone and everything of it is closed.
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
        on_publish: Callable[[PluginProcess, str, bytes], None],
        on_handler_error: Callable[[PluginProcess, str, Any], None],
        on_ended: Callable[[PluginProcess], None],
    ) -> None:
        self.plan = plan
        self.places = places
        self.receipt = receipt
        self.interface: Interface | None = None
        self.state = State.STARTING
        self.cause: Cause | None = None
        self.cause_text = ""
        self.ended = threading.Event()
        self.log = PluginLog(log_path, config.log_bytes)
        self.ledger = Ledger()
        self.lost_events = 0
        self._child = child
        self._keeper = keeper
        self._config = config
        self._on_publish = on_publish
        self._on_handler_error = on_handler_error
        self._on_ended = on_ended
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        # An id must not be overtaken by a later one between its choice and its sending.
        self._sending = threading.Lock()
        self._ending: Ending | None = None
        self._blamed: Pending | None = None
        self._kill_at = 0.0
        self._dump = bytearray()
        self._closed_pipe_at = 0.0
        self.channel = Channel(
            child.connection,
            child.receive_fd,
            child.send_fd,
            max_unsent_bytes=2 * MAX_PAYLOAD_BYTES,
            on_message=self._on_message,
            on_answered=self._on_answered,
            on_broken=self._on_broken,
            watch=lambda for_room: keeper.watch(self, for_room=for_room),
        )
        keeper.adopt(self)

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
        pending = Pending(SESSION_ID, LOAD, time.monotonic() + timeout, time.monotonic())
        return self._answer_to(pending, Load(payload=codec.pack(order)))

    def ready(self, interface: Interface) -> None:
        """It may be called from now on."""
        with self._lock:
            self.state = advance(self.state, Step.READY)
            self.interface = interface

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
            deadline_ns = int((now + deadline) * 1e9)
            call = Call(pending.id, operation, deadline_ns, payload=payload)
            if not self._send(call, pending):
                raise self._gone(pending)
        return pending

    def result(self, pending: Pending) -> Any:
        """Return the value of a finished call, or raise what became of it.

        Raises:
            PluginError: the operation failed, was too late, or its plugin was ended.
        """
        answer = pending.answer
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None  # noqa: S101 - callers wait first
        try:
            return answers.value_of(self.identity, pending.operation, answer)
        except answers.BadAnswerError as error:
            self.end(Ending(Cause.PROTOCOL_VIOLATION, self._violation(str(error))))
            raise self._gone(pending) from None
        except PluginError as error:
            if isinstance(answer, Failure):
                raise self._reported(pending, answer, error) from None
            raise

    def is_bulky(self, pending: Pending) -> bool:
        """Tell whether the answer is so large that decoding it takes noticeably long."""
        payload = getattr(pending.answer, "payload", b"")
        return len(payload) > MAX_EVENT_BYTES

    def deliver(self, event: Event, payload: bytes) -> bool:
        """Send an event to its handlers; False, and counted, if it cannot take more now."""
        now = time.monotonic()
        with self._sending:
            if self.state is not State.READY or not self._has_room(len(payload)):
                self.lost_events += 1
                return False
            number = next(self._ids)
            deadline = now + self.plan.limits.wall_seconds
            pending = Pending(number, f"@{event.type}", deadline, now, is_delivery=True)
            return self._send(Deliver(number, event.type, payload=payload), pending)

    def stop(self, timeout: float, cause: Cause) -> Message | None:
        """Let it finish what it has, clean up and leave; end it at the timeout.

        Returns:
            `Stopped`, or None where it had to be ended or had ended already.
        """
        with self._lock:
            if self.state is State.READY:
                self.state = advance(self.state, Step.DRAIN)
        deadline = time.monotonic() + timeout
        answer: Message | None = None
        if self.state is State.DRAINING:
            pending = Pending(SESSION_ID, STOP, deadline, time.monotonic())
            try:
                answer = self._answer_to(pending, Stop())
            except PluginError:
                answer = None
            self.ended.wait(max(0.0, deadline - time.monotonic()))
        self.end(Ending(cause, f"{self.identity} was ended by the host ({cause})."), at_once=True)
        self.ended.wait(timeout + 1.0)
        return answer

    def usage(self) -> Usage:
        """Return what it has cost so far, looking at the process once more if it lives."""
        self._sample()
        return self.ledger.usage(bytes_in=self.channel.bytes_in, bytes_out=self.channel.bytes_out)

    def resident_bytes(self) -> int:
        """Return its resident memory now; 0 once it has ended."""
        sample = self._child.sample()
        return sample.resident_bytes if sample else 0

    def end(self, ending: Ending, *, at_once: bool = False) -> None:
        """End the process, asking first where it stands; the first reason given is the cause."""
        with self._lock:
            if self._ending is not None or self.state in ENDED:
                return
            self._ending = ending
            self._kill_at = time.monotonic() + (0.0 if at_once else STACKS_SECONDS)
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
        try:
            sent = self.channel.send(message, pending)
        except LocalProtocolError:
            if self.channel.broken:
                return False
            raise
        if sent:
            self._mark_oldest()
        return sent

    def _has_room(self, size: int) -> bool:
        outstanding = self._child.connection.outstanding
        return outstanding < self._config.max_outstanding_calls and self.channel.has_room(size)

    def _check_ready(self, size: int) -> None:
        if self.state is not State.READY:
            if self.cause is not None:
                raise PluginEndedError(
                    f"{self.identity} is not running: {self.cause_text}",
                    plugin=self.identity,
                    cause=self.cause,
                    remedy="Load it again.",
                )
            text = f"{self.identity} is {self.state} and takes no calls."
            raise PluginEndedError(text, plugin=self.identity, cause=Cause.UNLOADED)
        if not self._has_room(size):
            raise BackpressureError(
                f"{self.identity} has {self._child.connection.outstanding} calls and deliveries "
                "outstanding and takes no more now.",
                plugin=self.identity,
                remedy="Wait for answers before you send more.",
            )

    # -- what comes back --------------------------------------------------------------------

    def _mark_oldest(self) -> None:
        """Start the clocks of the message that the plugin works on now: it answers in order."""
        oldest = self.channel.oldest()
        if oldest is not None and not oldest.started_at:
            oldest.cpu_at_start = self._child.cpu_seconds()
            oldest.started_at = time.monotonic()

    def _on_answered(self, pending: Pending, message: Message) -> None:
        self._mark_oldest()
        if isinstance(message, Handled):
            if not message.ok:
                self._on_handler_error(self, pending.operation[1:], self._report(message))
        elif pending.id != SESSION_ID:
            wall = time.monotonic() - pending.sent_at
            self.ledger.answered(pending.operation, wall, failed=isinstance(message, Failure))

    def _report(self, message: Message) -> Any:
        try:
            return codec.unpack(message.payload)
        except PayloadError as error:
            self.end(Ending(Cause.PROTOCOL_VIOLATION, self._violation(str(error))))
            return {}

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Publish):
            self._on_publish(self, message.event_type, message.payload)

    def _on_broken(self, violation: RemoteProtocolError | None) -> None:
        """The stream ended: because the process did, or because the plugin means harm."""
        if violation is not None:
            self.end(Ending(Cause.PROTOCOL_VIOLATION, self._violation(str(violation))))
        elif not self._closed_pipe_at:
            self._closed_pipe_at = time.monotonic()
            self._keeper.wake()

    def _violation(self, what: str) -> str:
        return f"{self.identity} broke the protocol: {answers.clean(what, 300)}."

    def _reported(self, pending: Pending, answer: Failure, error: PluginError) -> PluginError:
        """Return the error of a failure, with the host's own figures where it is about a budget."""
        told = codec.unpack(answer.payload)
        name = pending.operation
        sample = self._child.sample()
        if answer.code in {"deadline-passed", "interrupted"}:
            place = answers.clean(told.get("place"), 300)
            late = answer.code == "deadline-passed"
            why = "waited for its turn" if late else "took too long"
            return self._too_late(pending, ended=False, place=place, why=why)
        used = (
            {"descriptors": sample.descriptors, "memory": sample.resident_bytes} if sample else {}
        )
        limits = self.plan.limits
        seen = used.get(answer.code)
        excess = answers.excess_of(self.identity, name, answer.code, told, limits, seen)
        if excess is None:
            return error
        self.ledger.exceeded(excess.budget)
        return excess

    def _too_late(
        self, pending: Pending, *, ended: bool, place: str = "", why: str = "took too long"
    ) -> BudgetExceededError:
        return answers.too_late(
            self.identity,
            pending.operation,
            pending.deadline - pending.sent_at,
            time.monotonic() - pending.sent_at,
            ended=ended,
            place=place,
            why=why,
        )

    # -- what the keeper calls --------------------------------------------------------------

    def steady_fds(self) -> dict[int, str]:
        """Return the descriptors that are always watched."""
        child = self._child
        return {
            child.log_fds[0]: "stdout",
            child.log_fds[1]: "stderr",
            child.trace_fd: "trace",
            child.exit_fd: "exit",
        }

    def channel_fds(self) -> tuple[int, int]:
        """Return the protocol's descriptors."""
        return self._child.receive_fd, self._child.send_fd

    def pump(self) -> None:
        """Read and write the protocol as far as possible now."""
        self.channel.pump()

    def readable(self, role: str) -> bool:
        """Take output, a stack dump, or the end of the process."""
        if role == "exit":
            self._finish()
            return True
        if role == "trace":
            return self._take_dump()
        return self._take_output(0 if role == "stdout" else 1, _READ_BYTES)

    def _take_output(self, stream: int, most: int) -> bool:
        while most > 0:
            try:
                data = os.read(self._child.log_fds[stream], _READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            most -= len(data)
            self.log.write(data)
        return True

    def _take_dump(self) -> bool:
        try:
            data = os.read(self._child.trace_fd, _READ_BYTES)
        except BlockingIOError:
            return True
        room = MAX_DUMP_BYTES - len(self._dump)
        self._dump += data[:room]  # only the first dump is looked at; the rest is read and dropped
        return bool(data)

    def tick(self, now: float) -> float:
        """Check budgets and deadlines; return in how many seconds to look again."""
        if self._ending is not None:
            if now >= self._kill_at:
                self._child.kill()
            return _HURRY_SECONDS
        if self._closed_pipe_at and now - self._closed_pipe_at > _LEAVING_SECONDS:
            why = self._violation("it closed its pipe and stayed")
            self.end(Ending(Cause.PROTOCOL_VIOLATION, why), at_once=True)
        oldest = self.channel.oldest()
        facts = self._sample()
        running = self._running(oldest) if oldest is not None else None
        excess = judge(self.plan.limits, facts, running, now)
        if excess is not None:
            self._act_on(excess, oldest, now)
        for pending in self.channel.outstanding():
            if pending is not oldest and now >= pending.deadline:
                # It waits behind another; the plugin skips it when its turn comes.
                why = "waited for its turn"
                pending.finish(self._too_late(pending, ended=False, why=why), now)
        if oldest is None:
            return IDLE_SECONDS
        return min(self._config.sweep_seconds, max(0.001, oldest.deadline - now))

    def _sample(self) -> Facts | None:
        sample = self._child.sample()
        if sample is None:
            return None
        self.ledger.sampled(
            cpu=sample.cpu_seconds,
            resident_peak=sample.resident_peak_bytes,
            descriptors=sample.descriptors,
            threads=sample.threads,
        )
        return Facts(sample.resident_bytes, sample.threads)

    def _running(self, oldest: Pending) -> Running:
        started_at, deadline = oldest.sent_at, oldest.deadline
        if oldest.is_delivery:
            # Nobody waits for it, and its handlers are not to blame for what stood before them.
            started_at = oldest.started_at or time.monotonic()
            deadline = started_at + self.plan.limits.wall_seconds
        return Running(
            operation=oldest.operation,
            cpu_seconds=self._child.cpu_seconds() - oldest.cpu_at_start,
            started_at=started_at,
            deadline=deadline,
            interrupted_at=oldest.interrupted_at,
        )

    def _act_on(self, excess: Excess, oldest: Pending | None, now: float) -> None:
        if excess.step is Remedy.INTERRUPT and oldest is not None:
            oldest.interrupted_at = now
            self._child.interrupt()
            return
        self.ledger.exceeded(excess.budget)
        text = (
            f"{self.identity} exceeded its budget {excess.budget}"
            f"{f' in {excess.operation}' if excess.operation else ''}: "
            f"{excess.used:.4g} of {excess.limit:.4g} {excess.unit}."
        )
        self._blamed = oldest
        self.end(Ending(excess.cause, text, excess))

    def broke_down(self, error: Exception) -> None:
        """A fault of the host's: this plugin is ended, the others go on."""
        text = f"{self.identity} was ended after a fault of the host's: {type(error).__name__}."
        self.end(Ending(Cause.UNKNOWN, text), at_once=True)

    # -- the end ----------------------------------------------------------------------------

    def _finish(self) -> None:
        """The process is gone: take its last words, tell the cause, close everything."""
        self.channel.drain()
        for stream in (0, 1):
            self._take_output(stream, _DRAIN_BYTES)
        self._take_dump()
        how = self._child.wait(1.0) or Exit(None, None)
        self.ledger.sampled(
            cpu=how.cpu_seconds, resident_peak=how.resident_peak_bytes, descriptors=0, threads=0
        )
        with self._lock:
            left = self.state is State.DRAINING and how.code == 0 and self._ending is None
            if left:
                self.cause, self.cause_text = Cause.UNLOADED, f"{self.identity} was unloaded."
            else:
                self.cause, self.cause_text = self._cause_of(how)
            asked = self.cause in {Cause.UNLOADED, Cause.HOST_SHUTDOWN}
            draining = self.state is State.DRAINING
            self.state = advance(self.state, Step.ENDED if asked and draining else Step.FAILED)
        self.channel.close(self._gone)
        self._keeper.dismiss(self)
        self._child.close()
        self.log.close()
        self._on_ended(self)
        self.ended.set()

    def _cause_of(self, how: Exit) -> tuple[Cause, str]:
        lifetime = self.plan.limits.cpu_total_seconds
        return cause_of(self.identity, self._ending, how, lifetime)

    def _gone(self, pending: Pending) -> PluginError:
        """Return the error for a call that will not be answered any more."""
        excess = self._ending.excess if self._ending else None
        place = place_in(bytes(self._dump), str(self.places.package_dir))
        if excess is not None and pending is self._blamed:
            if excess.cause is Cause.DEADLINE:
                return self._too_late(pending, ended=True, place=place)
            at = f" at {place}" if place else ""
            return BudgetExceededError(
                f"{self.identity}.{pending.operation} exceeded the budget {excess.budget}{at}: "
                f"{excess.used:.4g} of {excess.limit:.4g} {excess.unit}; its plugin was ended.",
                plugin=self.identity,
                budget=excess.budget,
                limit=excess.limit,
                used=excess.used,
                unit=excess.unit,
                place=place,
                remedy=f'Raise "limits" in plugin.json, or find out why {pending.operation} '
                "needs so much.",
            )
        cause = self.cause or (self._ending.cause if self._ending else Cause.UNKNOWN)
        why = self.cause_text or (self._ending.text if self._ending else "its process is gone.")
        text = f"{self.identity}.{pending.operation} was not answered: {why}"
        return PluginEndedError(text, plugin=self.identity, cause=cause, remedy="Load it again.")

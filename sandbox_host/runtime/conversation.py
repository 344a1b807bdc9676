"""What the host and one plugin say to each other: calls, events, answers, and what each costs.

What is said by the plugin is hostile: whatever cannot be believed ends its process, by way of its
`Party`, and whoever waited is told why.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import LocalProtocolError, PayloadError, PayloadTooLargeError
from plugin_sdk.wire.events import join_events
from plugin_sdk.wire.limits import MAX_EVENTS_AT_ONCE, REPORT, value_bounds
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Deliver,
    DeliverMany,
    Failure,
    FeedCredit,
    FeedStop,
    Handled,
    HandledSome,
    Log,
    Progress,
    Publish,
    Withdraw,
    Yield,
    YieldCredit,
)
from sandbox_host.broker.handlers import HandlerQueue
from sandbox_host.budget.enforce import INTERRUPT_GRACE_SECONDS
from sandbox_host.errors import (
    MessageTooLargeError,
    NotSerializableError,
    OperationError,
    PluginError,
)
from sandbox_host.ipc.calls import Pending
from sandbox_host.ipc.channel import SESSION_ID, Channel
from sandbox_host.ipc.flows import Inflow, Outflow
from sandbox_host.model import CallUsage, Metered
from sandbox_host.runtime import answers
from sandbox_host.runtime.asked import Asked
from sandbox_host.runtime.serving import check_not_waiting
from sandbox_host.runtime.traffic import Traffic
from sandbox_host.runtime.turns import Turns

if TYPE_CHECKING:
    from plugin_sdk.wire.message import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child
    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.budget.ledger import Ledger
    from sandbox_host.budget.rate import MessageRate
    from sandbox_host.observe.dossier import FrameHeader
    from sandbox_host.runtime.party import Party, Request
    from sandbox_host.runtime.watch import Watch

_UNKNOWN_OPERATION: Final = "(unknown)"


class Conversation:
    """The host's side of it. Methods may be called from any thread.

    Args:
        plan: what was admitted.
        child: the process.
        party: what else there is of the plugin.
        ledger: where costs are added up.
        watch: keeps the clocks of what is worked on.
        rate: bounds what the plugin says unasked.
        max_outstanding: more calls and deliveries than these are refused.

    Attributes:
        channel: the pipes, and who waits for what.
        events: what waits for its handlers.
        bounds: of each value that it is sent.
    """

    def __init__(
        self,
        plan: SandboxPlan,
        child: Child,
        party: Party,
        *,
        ledger: Ledger,
        watch: Watch,
        rate: MessageRate,
        max_outstanding: int,
    ) -> None:
        self._plan = plan
        self._child = child
        self._party = party
        self._ledger = ledger
        self._watch = watch
        self._max_outstanding = max_outstanding
        self._turns = Turns(
            child, watch, plan.manifest.concurrency, lambda: party.held_seconds, party.hurry
        )
        self._ids = itertools.count(1)
        self._traffic = Traffic()
        self.events = HandlerQueue(max_outstanding, self._send_events)
        # An id must not be overtaken by a later one between its choice and its sending.
        self._sending = threading.Lock()
        self._crediting = threading.RLock()  # to write may make room
        self.bounds = value_bounds(child.connection.max_payload_bytes)
        self.channel = Channel(
            child.connection,
            child.receive_fd,
            child.send_fd,
            max_unsent_bytes=2 * self.bounds.max_bytes,
            pace=rate,
            on_message=self._on_message,
            on_part=self._on_part,
            on_room=self._on_room,
            on_answered=self._on_answered,
            on_broken=party.broken,
            rearm=party.rearm,
            on_wait=ledger.settle,
        )

    # -- what is asked of the plugin --------------------------------------------------------

    def begin(self, request: Request) -> Pending:
        """Send a call; the answer comes to the returned pending, whatever happens.

        Raises:
            ReentrantCallError: the plugin waits for the service that this is called from.
            PluginError: it is not ready, too much is outstanding, or an argument cannot be sent.
        """
        operation, plan = request.operation, self._plan
        check_not_waiting(plan.identity)
        payload = request.packed
        if payload is None:
            payload = self._pack(request)
        size, now = len(payload), time.monotonic()
        with self._sending:
            if not request.of_hosts_own:
                self._party.check_ready()
            outstanding = self._child.connection.outstanding
            if outstanding >= self._max_outstanding or not self.channel.has_room(size):
                raise answers.too_much(plan.identity, outstanding)
            number = next(self._ids)
            pending = Pending(number, operation, now + request.deadline, now, limits=request.limits)
            pending.bytes_out = size
            if request.packed is not None:
                pending.by_plugin = True
            if request.feeds:
                pending.feeds = {number: Outflow() for number, _ in enumerate(request.feeds, 1)}
            if request.streams:
                pending.inflow = Inflow(lambda items: self._credit(pending, items))
            told = now + min(request.deadline, request.asked_seconds)
            deadline_ns = int(told * 1e9) if told < math.inf else 0
            call = Call(number, operation, deadline_ns, payload=payload)
            if not self._send(call, pending):
                raise self._party.unanswered(pending)
        return pending

    def ask(self, what: str, message: Message, deadline: float) -> Message:
        """Send a message of the session's and return its answer.

        Args:
            what: `answers.START` or `answers.CLEAN_UP`.
            message: `Load` or `Stop`.
            deadline: reading of the monotonic clock, in seconds.

        Raises:
            PluginError: it was ended meanwhile, or too late.
        """
        pending = self.begin_asking(what, message, deadline)
        self.channel.wait(pending)
        if isinstance(pending.answer, Exception):
            raise pending.answer
        assert pending.answer is not None  # noqa: S101 - wait returns when it is finished
        return pending.answer

    def begin_asking(self, what: str, message: Message, deadline: float) -> Pending:
        """Send a message of the session's as `ask` does, and do not wait for its answer.

        Raises:
            PluginError: it was ended meanwhile.
        """
        pending = Pending(SESSION_ID, what, deadline, time.monotonic())
        pending.bytes_out = len(getattr(message, "payload", b""))
        with self._sending:
            if not self._send(message, pending):
                raise self._party.unanswered(pending)
        return pending

    def answer(self, number: int, *, ok: bool, payload: bytes) -> None:
        """Send what became of a service that the plugin asked for, unless it has ended."""
        if not self.channel.has_room(len(payload)):
            self._party.violated("it asks for services, and does not read the answers")
            return
        with contextlib.suppress(LocalProtocolError):  # it says that it has stopped
            self.channel.send(Answer(number, ok, payload=payload))

    def deliver(self, event: PackedEvent) -> None:
        """Send an event to its handlers, unless too much waits for it already: then it is lost."""
        self.events.deliver(event.prepare())

    def relieve(self) -> None:
        """Read what the plugin has handled, and send what waits; nothing where somebody does."""
        if not self.channel.led_here:
            self.channel.pump()

    def _send_events(self, *, more: bool = False) -> None:
        """Send what waits and may be with the plugin now; see `HandlerQueue.take`."""
        # A recording has each event on its own.
        at_most = MAX_EVENTS_AT_ONCE if self.channel.tap is None else 1
        with self._sending:
            while self._party.takes_calls and (events := self.events.take(at_most, more=more)):
                self.events.sent(len(events), done=self._send_together(events))

    def _send_together(self, events: list[PackedEvent]) -> bool:
        event_type, count = events[0].type, len(events)
        number = next(self._ids)
        if count == 1:
            message: Message = Deliver(number, event_type, payload=events[0].delivery())
        else:
            payload = join_events([event.entry for event in events], count)
            message = DeliverMany(number, event_type, count, payload=payload)
        if not self._has_room(len(message.payload)):
            return False
        # Nobody waits for it: its time begins when its handlers do, not while others run.
        now = time.monotonic()
        pending = Pending(number, f"@{event_type}", math.inf, now, is_delivery=True)
        pending.unhandled = count
        return self._send(message, pending)

    def _handled(self, pending: Pending, count: int, cost: CallUsage, report: Message) -> None:
        """So many events more were handled: send the next, and tell where one failed."""
        self._watch.handled(cost)
        pending.unhandled -= count
        with self._sending:
            self.events.handled(count, cost.wall_seconds, last=not pending.unhandled)
        self._send_events(more=True)
        if not report.ok:  # type: ignore[attr-defined]  # both have it
            self._party.handler_failed(pending.operation[1:], self._report(report))

    def _pack(self, request: Request) -> bytes:
        identity, operation = self._plan.identity, request.operation
        try:
            if not (request.feeds or request.many):
                return codec.pack_call(request.arguments, request.keywords, self.bounds)
            value: list[Any] = [list(request.arguments), request.keywords, list(request.feeds)]
            return codec.pack_in_parts([*value, True] if request.many else value, self.bounds)
        except PayloadTooLargeError as error:
            text = f"The arguments of {identity}.{operation} are too large: {error}."
            raise MessageTooLargeError(text, plugin=identity) from None
        except PayloadError as error:
            text = f"The arguments of {identity}.{operation} cannot be sent: {error}."
            raise NotSerializableError(text, plugin=identity) from None

    def _has_room(self, size: int) -> bool:
        outstanding = self._child.connection.outstanding
        return outstanding < self._max_outstanding and self.channel.has_room(size)

    def _send(self, message: Message, pending: Pending) -> bool:
        self._turns.before(pending, self.channel)
        sent = self.channel.send(message, pending)
        if sent and not pending.started_at:  # what was before it may have been answered meanwhile
            self._turns.follow(self.channel)
        return sent

    def resume(self) -> None:
        """Send events that waited because the plugin took none for a while."""
        self._send_events()

    def leave(self) -> list[PackedEvent]:
        """Return the events that wait for its handlers, for those of another version."""
        with self._sending:
            return self.events.leave()

    # -- while it is not answered -----------------------------------------------------------

    def at_work(self) -> list[Pending]:
        """Return what the plugin works on now, the oldest first, with its CPU time shared out."""
        self._turns.settle()
        return self._turns.at_work(self.channel)

    def cancel(self, pending: Pending, *, late: bool = False, hard: bool = True) -> None:
        """Have a call ended that nobody waits for: it is asked to end, and then made to.

        Args:
            pending: the call; nothing happens where it has been answered.
            late: its deadline has passed; else nobody wants its value any more.
            hard: its plugin is ended if it goes on; else it is asked once.
        """
        if pending.asked_to_end or not self.channel.has(pending):
            return
        pending.asked_to_end = hard
        pending.cancelled = hard and not late
        if hard and pending.started_at and not pending.interrupted_at:
            pending.interrupted_at = time.monotonic()
            pending.deadline = min(pending.deadline, pending.interrupted_at)
        for feed in pending.feeds.values():
            feed.stop()
        if not pending.is_delivery and pending.id != SESSION_ID:
            with contextlib.suppress(LocalProtocolError):  # it is answered at this moment
                self.channel.send(Cancel(pending.id, late))
        # It may be writing what is not read now: who is asked to end has to be heard.
        self.channel.read_on(INTERRUPT_GRACE_SECONDS)
        if pending.started_at:
            with contextlib.suppress(Exception):  # then it is ended, after the same grace
                self._child.interrupt()
            self._party.hurry()

    def feed(self, pending: Pending, number: int, message: Message) -> bool:
        """Send an item of a stream, or its end; False where nobody reads it any more."""
        try:
            return not pending.feeds[number].stopped and self.channel.send(message)
        except LocalProtocolError:
            return False  # the call is answered at this moment

    def await_item(self, pending: Pending, wall_seconds: float) -> None:
        """Count the plugin's time for the next item from now on: a reader waits for it."""
        now = time.monotonic()
        whole = pending.until <= now + wall_seconds
        pending.waiting_since = pending.sent_at if whole else now
        if not pending.interrupted_at:
            pending.deadline = pending.until if whole else now + wall_seconds

    def rest(self, pending: Pending) -> None:
        """Nobody waits for the next item: until somebody does, only the whole has a deadline."""
        if not pending.interrupted_at:
            pending.deadline, pending.waiting_since = pending.until, pending.sent_at

    def _credit(self, pending: Pending, items: int) -> None:
        """Tell the plugin what was taken; one that does not read is told when it does.

        Else its credits would be kept for it without end: it could yield on without reading them.
        """
        with self._crediting:
            pending.uncredited += items
        if not self.channel.clogged:
            self._pay(pending)

    def _pay(self, pending: Pending) -> None:
        with self._crediting:
            items, pending.uncredited = pending.uncredited, 0
            if items:
                with contextlib.suppress(LocalProtocolError):  # it is answered at this moment
                    self.channel.send(YieldCredit(pending.id, items))

    def _on_room(self) -> None:
        for pending in self.channel.outstanding():
            if pending.uncredited:
                self._pay(pending)
            for feed in pending.feeds.values():
                feed.notify()

    def _on_part(self, pending: Pending, message: Message) -> None:
        if isinstance(message, Yield):
            if pending.inflow is None:
                self.cancel(pending)  # who asked for a value is told by `result`
                pending.yields = True
                return
            if not self._turns.has_come(pending, self.channel):
                # Else it could yield a window for each of a thousand calls that wait.
                self._party.violated(f"it yields for {pending.id}, whose turn has not come")
                return
            self.rest(pending)
            pending.inflow.put(message)
        elif isinstance(message, Progress):
            pending.progress = (message.done, message.total)
        elif isinstance(message, HandledSome):
            cost = self._turns.cost(pending, message)
            self._turns.again(pending)
            self._handled(pending, message.events, cost, message)
        elif isinstance(message, FeedCredit | FeedStop):
            feed = pending.feeds.get(message.stream)
            if feed is None:
                self._party.violated(f"there is no stream {message.stream} of {message.id}")
            elif isinstance(message, FeedStop):
                feed.stop()
            else:
                feed.notify()

    # -- what becomes of it -----------------------------------------------------------------

    def result(self, pending: Pending) -> Any:
        """Return the value of a finished call, or raise what became of it.

        Raises:
            PluginError: the operation failed, was too late, or its plugin was ended.
        """
        try:
            return self._value(pending)
        except PluginError as error:
            error.usage = self._bill(pending)
            for feed in pending.feeds.values():
                error.__cause__ = feed.problem or error.__cause__
            raise

    def outcomes(self, pending: Pending, count: int) -> list[Any]:
        """Return the values of a finished batch, each call's own or its error as an exception.

        Raises:
            PluginError: as `result`, for the batch as a whole.
        """
        value = self.result(pending)
        try:
            return answers.outcomes_of(self._plan, pending, value, count)
        except answers.BadAnswerError as error:
            self._party.violated(str(error))
            raise self._party.unanswered(pending) from None

    def metered(self, pending: Pending) -> Metered:
        """Return the same with what it cost; an error carries its cost as well.

        Raises:
            PluginError: as `result`.
        """
        return Metered(self.result(pending), self._bill(pending))

    def is_bulky(self, pending: Pending) -> bool:
        """Tell whether the answer is large."""
        return len(getattr(pending.answer, "payload", b"")) > codec.QUICK_BYTES

    def takes_long(self, pending: Pending) -> bool:
        """Tell whether the answer may take so long to decode that a loop should not wait for it."""
        payload = getattr(pending.answer, "payload", b"")
        return len(payload) > codec.QUICK_BYTES and not codec.is_quick(payload)

    def _value(self, pending: Pending) -> Any:
        answer = pending.answer
        if pending.yields:
            raise answers.no_stream(self._plan.identity, pending, yields=True)
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None  # noqa: S101 - callers wait first
        sample = self._child.sample() if isinstance(answer, Failure) else None
        try:
            return answers.value_of(self._plan, pending, answer, sample)
        except OperationError as error:
            if error.denial is not None:
                self._party.reported(error.denial)
            raise
        except answers.BadAnswerError as error:
            self._party.violated(str(error))
            raise self._party.unanswered(pending) from None

    def _bill(self, pending: Pending) -> CallUsage:
        if pending.cost is not None:
            return pending.cost
        wall = max(0.0, (pending.finished_at or time.monotonic()) - pending.sent_at)
        self._turns.settle()
        used = self._child.cpu_seconds() - pending.cpu_at_start if pending.started_at else 0.0
        return CallUsage(max(0.0, used), wall, pending.bytes_out, 0)

    def _on_answered(self, pending: Pending, message: Message) -> None:
        kind, cost = type(message), self._turns.cost(pending, message)
        pending.cost = cost
        pending.held_seconds = self._party.held_seconds - pending.held_at_start
        self._traffic.answered(pending, cost, kind)
        if not self.channel.idle:
            self._turns.follow(self.channel)
        if kind is Handled:
            self._handled(pending, pending.unhandled, cost, message)
        elif pending.id != SESSION_ID:
            name = pending.operation
            if name not in self._party.operations:
                name = _UNKNOWN_OPERATION
            failed = kind is Failure and not pending.cancelled
            self._ledger.answered(name, cost, failed=failed)
            if failed and pending.by_plugin:
                self._ledger.excuse()

    def _report(self, message: Message) -> Any:
        try:
            return codec.unpack(message.payload, REPORT)  # by whoever reads for everybody
        except PayloadError as error:
            self._party.violated(str(error))
            return {}

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Publish):
            self._traffic.published(message.event_type, len(message.payload), time.monotonic())
            self._party.published(message.event_type, message.payload)
        elif isinstance(message, Ask):
            self._traffic.asked(message.id, message.service, len(message.payload), time.monotonic())
            asked = Asked(message.id, message.service, message.payload, message.deadline_ns)
            self._party.asked(asked)
        elif isinstance(message, Withdraw):
            self._party.withdrawn(message.id)
        elif isinstance(message, Log):
            self._party.logged(message.level, message.logger, message.payload)

    def traffic(self, end: float) -> tuple[tuple[FrameHeader, ...], str]:
        """Return the headers of the last messages, and what it worked on; before it is closed.

        Args:
            end: reading of the monotonic clock that their times are counted back from.
        """
        waiting = self.channel.outstanding()
        return self._traffic.frames(waiting, end), self._traffic.last_operation(waiting)

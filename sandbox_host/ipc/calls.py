"""What a caller holds while its message is on the way: a `Pending`."""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plugin_sdk.wire.message import Message
    from sandbox_host.ipc.flows import Inflow, Outflow
    from sandbox_host.model import CallUsage, Limits


class Pending:
    """One call or delivery that has no answer yet.

    It is finished exactly once, with the plugin's answer or with an error of the host's. All
    methods may be called from any thread.

    Attributes:
        id: the wire's number.
        operation: what was asked for, as the ledger and errors name it.
        deadline: reading of the monotonic clock, in seconds, by which it must be finished.
        limits: the budgets that it is held to; None for its plugin's own.
        is_delivery: True for events, which nobody waits for.
        unhandled: of a delivery, how many events the plugin has not handled.
        sent_at: reading of the monotonic clock when it was sent.
        started_at: the same when it became the plugin's oldest unanswered message; 0.0 before.
        cpu_at_start: the plugin's CPU clock at that moment, in seconds.
        held_at_start: for how long the plugin had been held back by then, in seconds.
        held_seconds: for how long it was held back meanwhile: it sent or printed too much.
        bytes_out: of its payload.
        waiting_since: reading of the monotonic clock from which its deadline is counted.
        until: the same reading for all of it, where `deadline` is for the next item of a stream.
        asked_to_end: its plugin has been told that it is to end, and is ended if it goes on.
        cancelled: the same, because nobody waits for it any more.
        inflow: what it yields, where its caller reads a stream; None for a plain call.
        feeds: the streams that were passed to it, by number.
        yields: it does, although its caller wants a value.
        uncredited: items that were taken, and that the plugin has not been told of, because it does
            not read.
        by_plugin: its arguments are another plugin's, whose fault it may be if it fails.
        progress: how much of it is done, and of how much, by the plugin's own word; (0, 0) before.
        cost: what it cost, once it has been answered; None before, and where no answer came.
        answer: the plugin's answer, or the error; None before it is finished.
    """

    # As the most are that they are made for: one is made for every call.
    yields = False
    asked_to_end = False
    cancelled = False
    inflow: Inflow | None = None
    feeds: Mapping[int, Outflow] = MappingProxyType({})
    uncredited = 0
    unhandled = 0
    by_plugin = False
    progress = (0, 0)
    started_at = 0.0
    finished_at = 0.0
    interrupted_at = 0.0
    cpu_at_start = 0.0
    held_at_start = 0.0
    held_seconds = 0.0
    bytes_out = 0
    cost: CallUsage | None = None
    answer: Message | Exception | None = None
    _event: threading.Event | None = None
    _callbacks: tuple[Callable[[Pending], object], ...] = ()

    def __init__(
        self,
        number: int,
        operation: str,
        deadline: float,
        now: float,
        *,
        limits: Limits | None = None,
        is_delivery: bool = False,
    ) -> None:
        self.id = number
        self.operation = operation
        self.deadline = self.until = deadline
        self.limits = limits
        self.is_delivery = is_delivery
        self.sent_at = self.waiting_since = now
        self._lock = threading.Lock()

    def done(self) -> bool:
        """Tell whether it has been finished."""
        return self.answer is not None

    def finish(self, answer: Message | Exception, now: float) -> bool:
        """Give it its answer; return False if it had one already."""
        with self._lock:
            if self.answer is not None:
                return False
            self.finished_at = now
            self.answer = answer
            event, callbacks = self._event, self._callbacks
        if self.feeds:
            for feed in self.feeds.values():
                feed.stop()
        wake = self.inflow.wake if self.inflow is not None else None
        if wake is not None:
            wake()
        if event is not None:
            event.set()
        for callback in callbacks:
            callback(self)
        return True

    def on_done(self, callback: Callable[[Pending], object]) -> None:
        """Call ``callback`` when it is finished, or now; from whichever thread finishes it.

        It must not raise: who finishes a call has others to finish.
        """
        with self._lock:
            if self.answer is None:
                self._callbacks = (*self._callbacks, callback)
                return
        callback(self)

    def register_waiter(self) -> threading.Event:
        """Return the event that is set when it is finished, or when it should try to lead."""
        with self._lock:
            if self._event is None:
                self._event = threading.Event()
            if self.answer is not None:
                self._event.set()
            return self._event

    def nudge(self) -> bool:
        """Wake its waiter although it is not finished; False if nobody waits in a thread."""
        with self._lock:
            if self._event is None or self.answer is not None:
                return False
            self._event.set()
            return True

"""What a caller holds while its message is on the way: a `Pending`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin_sdk.wire.message import Message
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
        is_delivery: True for an event, which nobody waits for.
        sent_at: reading of the monotonic clock when it was sent.
        started_at: the same when it became the plugin's oldest unanswered message; 0.0 before.
        cpu_at_start: the plugin's CPU clock at that moment, in seconds.
        held_at_start: for how long the plugin had been held back by then, in seconds.
        held_seconds: for how long it was held back meanwhile: it sent or printed too much.
        bytes_out: of its payload.
        cost: what it cost, once it has been answered; None before, and where no answer came.
        answer: the plugin's answer, or the error; None before it is finished.
    """

    __slots__ = (
        "_callback",
        "_event",
        "_lock",
        "answer",
        "bytes_out",
        "cost",
        "cpu_at_start",
        "deadline",
        "finished_at",
        "held_at_start",
        "held_seconds",
        "id",
        "interrupted_at",
        "is_delivery",
        "limits",
        "operation",
        "sent_at",
        "started_at",
    )

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
        self.deadline = deadline
        self.limits = limits
        self.is_delivery = is_delivery
        self.sent_at = now
        self.started_at = 0.0
        self.finished_at = 0.0
        self.interrupted_at = 0.0
        self.cpu_at_start = 0.0
        self.held_at_start = 0.0
        self.held_seconds = 0.0
        self.bytes_out = 0
        self.cost: CallUsage | None = None
        self.answer: Message | Exception | None = None
        self._lock = threading.Lock()
        self._event: threading.Event | None = None
        self._callback: Callable[[Pending], object] | None = None

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
            event, callback = self._event, self._callback
        if event is not None:
            event.set()
        if callback is not None:
            callback(self)
        return True

    def on_done(self, callback: Callable[[Pending], object]) -> None:
        """Call ``callback`` when it is finished, or now; from whichever thread finishes it.

        It must not raise: who finishes a call has others to finish.
        """
        with self._lock:
            if self.answer is None:
                self._callback = callback
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

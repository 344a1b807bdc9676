"""Calls that have no answer yet, with what the host says of them meanwhile."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar

from plugin_sdk.errors import Cancelled, DeadlinePassed
from plugin_sdk.wire.messages import Call, Cancel, Feed, FeedEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugin_sdk.wire.message import Message


class Fed:
    """A stream that is fed to a call, as far as it has come.

    Attributes:
        items: payloads that nobody has taken, the oldest first.
        ended: there will be no more.
        problem: why it was cut off; None where it came to its end.
        uncredited: items and bytes that were taken, and that the host has not been told of.
        stopped: the operation reads no more of it.
    """

    __slots__ = ("ended", "items", "problem", "stopped", "uncredited")

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self.ended = False
        self.problem: bytes | None = None
        self.uncredited = [0, 0]
        self.stopped = False


class CallState:
    """One call, from its arrival to its answer.

    Attributes:
        id: the wire's number.
        deadline_ns: reading of CLOCK_MONOTONIC; 0 where there is none.
        cancelled: the host waits for it no more.
        late: its deadline has passed, by the host's word.
        active: its operation runs; an exception may be raised in it.
        interrupted: an exception was raised in it; that is done once.
        progress_ns: when the host was last told how much is done.
        fed: the streams that are fed to it, by number.
        thread: ident of the thread that runs it, where that is not the loop's.
    """

    __slots__ = (
        "active",
        "cancelled",
        "deadline_ns",
        "fed",
        "id",
        "interrupted",
        "late",
        "progress_ns",
        "thread",
    )

    def __init__(self, call: Call) -> None:
        self.id = call.id
        self.deadline_ns = call.deadline_ns
        self.cancelled = False
        self.late = False
        self.active = False
        self.interrupted = False
        self.progress_ns = 0
        self.fed: dict[int, Fed] = {}
        self.thread = 0

    def stream(self, number: int) -> Fed:
        """Return one of the streams that are fed to it."""
        fed = self.fed.get(number)
        if fed is None:
            fed = self.fed[number] = Fed()
        return fed

    def is_late(self, now_ns: int) -> bool:
        """Tell whether its deadline has passed, by the clock or by the host's word."""
        return self.late or 0 < self.deadline_ns <= now_ns

    def reason(self) -> type[BaseException]:
        """Return what is raised in its operation when that is to end."""
        return Cancelled if self.cancelled and not self.late else DeadlinePassed


class Calls:
    """All of them. Its channel's lock guards it."""

    __slots__ = ("_by_id",)

    def __init__(self) -> None:
        self._by_id: dict[int, CallState] = {}

    def __getitem__(self, number: int) -> CallState:
        return self._by_id[number]

    def forget(self, number: int) -> None:
        """It is answered: who still holds one of its streams gets nothing more from it."""
        state = self._by_id.pop(number, None)
        if state is not None:
            state.active = False

    def open(self, call: Call) -> None:
        """It has come."""
        self._by_id[call.id] = CallState(call)

    def note(self, message: Message) -> CallState | None:
        """Take what a message says of a call; return the call if it is to be ended."""
        if isinstance(message, Feed):
            fed = self._by_id[message.id].stream(message.stream)
            if not fed.stopped:
                fed.items.append(message.payload)
        elif isinstance(message, FeedEnd):
            fed = self._by_id[message.id].stream(message.stream)
            fed.ended = True
            fed.problem = None if message.ok else message.payload
        elif isinstance(message, Cancel):
            state = self._by_id[message.id]
            state.cancelled, state.late = True, message.late
            return state
        return None


current: ContextVar[CallState | None] = ContextVar("call", default=None)
"""The call that the running code belongs to: its thread's, or its task's."""

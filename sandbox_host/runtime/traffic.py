"""Remembers the last messages between host and plugin, for its dossier: headers, never payloads."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sandbox_host.ipc.channel import SESSION_ID
from sandbox_host.observe.dossier import FrameHeader
from sandbox_host.runtime import answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugin_sdk.wire.message import Message
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import CallUsage

_REMEMBERED: Final = 20
"""So many answered messages, and as many events of the plugin's and services it asked for."""


class Traffic:
    """Of one plugin. Methods may be called from any thread.

    It is written on the path of every call, so it keeps figures and names as they are, and makes
    headers of them only when somebody asks. A message itself would keep its payload alive.
    """

    def __init__(self) -> None:
        self._answered: deque[tuple[int, str, float, CallUsage, type[Message]]]
        self._answered = deque(maxlen=_REMEMBERED)
        self._published: deque[tuple[float, str, int]] = deque(maxlen=_REMEMBERED)
        self._asked: deque[tuple[float, int, str, int]] = deque(maxlen=_REMEMBERED)

    def answered(self, pending: Pending, cost: CallUsage, kind: type[Message]) -> None:
        """Note an answer, of this kind, and what it answers."""
        self._answered.append((pending.id, pending.operation, pending.sent_at, cost, kind))

    def published(self, event_type: str, size: int, now: float) -> None:
        """Note an event that the plugin published."""
        self._published.append((now, event_type, size))

    def asked(self, number: int, service: str, size: int, now: float) -> None:
        """Note a service that the plugin asked for."""
        self._asked.append((now, number, service, size))

    def last_operation(self, waiting: Sequence[Pending]) -> str:
        """Return what the plugin works on, or else worked on last; "" where that was nothing.

        Args:
            waiting: what is unanswered, the oldest first.
        """
        if waiting:
            return waiting[0].operation
        return self._answered[-1][1] if self._answered else ""

    def frames(self, waiting: Sequence[Pending], end: float) -> tuple[FrameHeader, ...]:
        """Return the headers, in the order of time.

        Args:
            waiting: what is unanswered.
            end: reading of the monotonic clock that times are counted back from.
        """
        found = []
        for number, name, sent_at, cost, kind in list(self._answered):
            asked, answer = _asked(number, name), kind.__name__.lower()
            before = end - sent_at
            found.append(FrameHeader(before, "out", asked, number, cost.bytes_out, name))
            before -= cost.wall_seconds
            found.append(FrameHeader(before, "in", answer, number, cost.bytes_in, name))
        for one in waiting[:_REMEMBERED]:
            asked, before = _asked(one.id, one.operation), end - one.sent_at
            found.append(FrameHeader(before, "out", asked, one.id, one.bytes_out, one.operation))
        for at, event_type, size in list(self._published):
            found.append(FrameHeader(end - at, "in", "publish", 0, size, event_type))
        for at, number, service, size in list(self._asked):
            found.append(FrameHeader(end - at, "in", "ask", number, size, service))
        found.sort(key=lambda frame: -frame.before_end_seconds)
        return tuple(found)


def _asked(number: int, operation: str) -> str:
    if number == SESSION_ID:
        return "load" if operation == answers.START else "stop"
    return "deliver" if operation.startswith("@") else "call"

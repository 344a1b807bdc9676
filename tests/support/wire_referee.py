"""docs/wire.md as a judge: what one end may send, and what it makes of what comes.

It keeps the whole history and looks everything up in it: slow, and so plain that it can be held
against the page. `plugin_sdk.wire.connection` is held against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Confine,
    Confined,
    Deliver,
    DeliverMany,
    Failed,
    Failure,
    Feed,
    FeedCredit,
    FeedEnd,
    FeedStop,
    Handled,
    HandledSome,
    Load,
    Log,
    Progress,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
    Withdraw,
    Yield,
    YieldCredit,
)


class Verdict(Enum):
    """What becomes of a message."""

    GOOD = "good"
    DROPPED = "dropped"
    BREACH = "breach"


@dataclass(frozen=True)
class Bounds:
    """What the session is held to; small ones are reached sooner."""

    items: int
    stream_bytes: int
    outstanding: int
    asked: int


OPENERS = {Call: (Result, Failure), Deliver: (Handled,), DeliverMany: (Handled,), Ask: (Answer,)}
NUMBERED = (Call, Deliver, DeliverMany)
"""What shares one count of ids."""
OF_A_CALL = (Cancel, Yield, YieldCredit, Feed, FeedEnd, FeedCredit, FeedStop, Progress)
UNASKED = (Publish, Log, Ask, Withdraw)
HOST_WHILE_WORKING = (Answer, Cancel, YieldCredit, Feed, FeedEnd)
PLUGIN_WHILE_WORKING = (
    *(Result, Failure, Yield, FeedCredit, FeedStop, Progress, Handled, HandledSome),
    *UNASKED,
)
MAY_SEND: dict[str, dict[str, tuple[type[Message], ...]]] = {
    "new": {HOST: (Confine,)},
    "confining": {PLUGIN: (Confined, Failed)},
    "confined": {HOST: (Load,)},
    "loading": {HOST: (Answer,), PLUGIN: (*UNASKED, Ready, Failed)},
    "running": {
        HOST: (Call, Deliver, DeliverMany, Stop, *HOST_WHILE_WORKING),
        PLUGIN: PLUGIN_WHILE_WORKING,
    },
    "stopping": {HOST: HOST_WHILE_WORKING, PLUGIN: (*PLUGIN_WHILE_WORKING, Stopped)},
    "closed": {},
}
"""The table of docs/wire.md's section on the session."""
LEADS_TO = {
    Confine: "confining",
    Confined: "confined",
    Load: "loading",
    Ready: "running",
    Stop: "stopping",
    Stopped: "closed",
    Failed: "closed",
}


class Referee:
    """Watches one end: what passes it, in the order in which it passes.

    Args:
        role: whose end it is.
        bounds: what the session is held to.
    """

    def __init__(self, role: str, bounds: Bounds) -> None:
        self.role = role
        self.bounds = bounds
        self.history: list[Message] = []

    def came(self, message: Message) -> Verdict:
        """Judge a message of the peer's, and remember it where it counts."""
        if self._has_left():
            return Verdict.DROPPED
        if message.sender == self.role or not self._is_in_the_table(message):
            return Verdict.BREACH
        if self._has_crossed(message):
            return Verdict.DROPPED
        return self._judged(message)

    def sends(self, message: Message) -> Verdict:
        """Judge a message of this end's own, and remember it where it may be sent."""
        if message.sender != self.role or not self._is_in_the_table(message):
            return Verdict.BREACH
        return self._judged(message)

    @property
    def state(self) -> str:
        """Name the state of the session, as this end sees it."""
        for message in reversed(self.history):
            if type(message) in LEADS_TO:
                return LEADS_TO[type(message)]
        return "new"

    def outstanding(self, *openers: type[Message]) -> list[Message]:
        """Return what was opened by such messages and is not closed, oldest first."""
        closed = {
            (opener, message.id)
            for message in self.history
            for opener, closers in OPENERS.items()
            if isinstance(message, closers)
        }
        return [m for m in self.history if isinstance(m, openers) and (type(m), m.id) not in closed]

    def untaken(self, call: int, stream: int) -> list[int]:
        """Return the sizes of a stream's items that were sent and not credited; 0: what returns."""
        sizes: list[int] = []
        for message in self.history:
            if _stream_of(message) != (call, stream):
                continue
            if isinstance(message, Yield | Feed):
                sizes.append(len(message.payload))
            elif isinstance(message, YieldCredit | FeedCredit):
                del sizes[: message.items]
        return sizes

    def unhandled(self, delivery: int) -> int:
        """Return how many events of an outstanding DeliverMany were not said to be handled."""
        of_it = [m for m in self.history if getattr(m, "id", 0) == delivery]
        events = [m.events for m in self.outstanding(DeliverMany) if m.id == delivery]
        return sum(events) - sum(m.events for m in of_it if isinstance(m, HandledSome))

    def _has_left(self) -> bool:
        """Tell whether the last word of this end's own closed the session."""
        return self.state == "closed" and self.history[-1].sender == self.role

    def _is_in_the_table(self, message: Message) -> bool:
        return type(message) in MAY_SEND[self.state].get(message.sender, ())

    def _has_crossed(self, message: Message) -> bool:
        """Tell whether this end closed what the message is of, when it may have been on its way."""
        if not isinstance(message, (Cancel, YieldCredit, Feed, FeedEnd, Withdraw)):
            return False
        opener: type[Message] = Ask if isinstance(message, Withdraw) else Call
        kinds = (Ask,) if opener is Ask else NUMBERED
        if any(open_.id == message.id for open_ in self.outstanding(*kinds)):
            return False
        return message.id <= self._last_id(*kinds)

    def _last_id(self, *kinds: type[Message]) -> int:
        return max((m.id for m in self.history if isinstance(m, kinds)), default=0)

    def _judged(self, message: Message) -> Verdict:
        good = self._opens_well(message) and self._closes_well(message) and self._is_within(message)
        if not good:
            return Verdict.BREACH
        self.history.append(message)
        return Verdict.GOOD

    def _opens_well(self, message: Message) -> bool:
        if not isinstance(message, (*NUMBERED, Ask)):
            return True
        asks = isinstance(message, Ask)
        kinds = (Ask,) if asks else NUMBERED
        most = self.bounds.asked if asks else self.bounds.outstanding
        return message.id > self._last_id(*kinds) and len(self.outstanding(*kinds)) < most

    def _closes_well(self, message: Message) -> bool:
        openers = tuple(opener for opener, by in OPENERS.items() if isinstance(message, by))
        return not openers or message.id in {m.id for m in self.outstanding(*openers)}

    def _is_within(self, message: Message) -> bool:
        if isinstance(message, Withdraw):
            return message.id in {m.id for m in self.outstanding(Ask)}
        if isinstance(message, HandledSome):
            return message.events < self.unhandled(message.id)
        if not isinstance(message, OF_A_CALL):
            return True
        if message.id not in {m.id for m in self.outstanding(Call)}:
            return False
        return self._keeps_credits(message)

    def _keeps_credits(self, message: Message) -> bool:
        """Judge what is said of a stream of an outstanding call."""
        place = _stream_of(message)
        if place is None:
            return True
        said = [m for m in self.history if _stream_of(m) == place]
        if isinstance(message, FeedStop):
            return not any(isinstance(m, FeedStop) for m in said)
        sizes = self.untaken(*place)
        if isinstance(message, YieldCredit | FeedCredit):
            return message.items <= len(sizes)
        if any(isinstance(m, FeedEnd) for m in said):
            return False
        return isinstance(message, FeedEnd) or self.has_room(sizes, len(message.payload))

    def has_room(self, sizes: list[int], size: int) -> bool:
        """Tell whether an item may follow untaken ones of such sizes."""
        within = sum(sizes) + size <= self.bounds.stream_bytes
        return not sizes or (len(sizes) < self.bounds.items and within)


def _stream_of(message: Message) -> tuple[int, int] | None:
    if isinstance(message, Yield | YieldCredit):
        return message.id, 0
    if isinstance(message, Feed | FeedEnd | FeedCredit | FeedStop):
        return message.id, message.stream
    return None

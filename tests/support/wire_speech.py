"""Messages as one end might say them, in their usual proportions: mostly good, some not.

Drawn by a seeded generator, not by a strategy: a strategy of many alternatives says the first ones
most of the time, and never fills a stream.
"""

from __future__ import annotations

import random

from plugin_sdk.wire.message import HOST, Message
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
from tests.support.wire_referee import NUMBERED, Referee

SIZES = (0, 1, 9, 20, 41, 64)
WEIGHTS: dict[str, dict[type[Message], int]] = {
    HOST: {
        Call: 3,
        Deliver: 1,
        DeliverMany: 1,
        Cancel: 1,
        YieldCredit: 4,
        Feed: 8,
        FeedEnd: 1,
        Answer: 2,
    },
    "plugin": {
        Yield: 9,
        FeedCredit: 4,
        FeedStop: 1,
        Progress: 1,
        Result: 2,
        Failure: 1,
        Handled: 2,
        HandledSome: 2,
        Ask: 2,
        Withdraw: 1,
        Publish: 1,
        Log: 1,
    },
}
LEADING = (Confine(1, 1), Confined(1, 1), Load(), Ready(), Stop(), Stopped(), Failed("import"))
"""What moves the session, in the order in which it may."""


def leading(calls: int, asked: int) -> list[Message]:
    """Return what makes a running session in which so much is outstanding."""
    opening: list[Message] = [Call(number, "predict", 0) for number in range(1, calls + 1)]
    opening += [Ask(number, "prices", 0) for number in range(1, asked + 1)]
    return [*LEADING[:4], *opening]


def chance_of(seed: int, referee: Referee) -> random.Random:
    """Return a generator for a seed at this point of the history: the same seeds come often."""
    return random.Random(f"{seed} {len(referee.history)}")


def spoken(chance: random.Random, role: str, referee: Referee) -> Message:
    """Return what this end might say next.

    Args:
        chance: decides.
        role: whose message it is to be.
        referee: the end whose history tells which ids mean something.
    """
    weights = WEIGHTS[role]
    (kind,) = chance.choices(list(weights), list(weights.values()))
    payload = bytes(chance.choice(SIZES))
    number = _id(chance, kind, referee)
    stream, many, flag = chance.choice((1, 1, 2)), chance.randint(1, 3), chance.random() < 0.5
    if kind in {YieldCredit, FeedCredit}:
        number, stream, many = _credit(chance, kind, referee) or (number, stream, many)
    fields: dict[type[Message], tuple[object, ...]] = {
        Call: (number, "predict", 0),
        Deliver: (number, "data_processed"),
        DeliverMany: (number, "data_processed", many),
        Cancel: (number, flag),
        YieldCredit: (number, many),
        Feed: (number, stream),
        FeedEnd: (number, stream, flag),
        Answer: (number, flag),
        Yield: (number,),
        FeedCredit: (number, stream, many),
        FeedStop: (number, stream),
        Progress: (number, 1, 2),
        Result: (number,),
        Failure: (number, "exception"),
        Handled: (number, flag),
        HandledSome: (number, many, flag),
        Ask: (number, "prices", 0),
        Withdraw: (number,),
        Publish: ("model_updated",),
        Log: (20, "plugin"),
    }
    return kind(*fields[kind], payload=payload)


def _credit(
    chance: random.Random, kind: type[Message], referee: Referee
) -> tuple[int, int, int] | None:
    """Choose call, stream and number for a credit, mostly one that may be given."""
    streams = (0,) if kind is YieldCredit else (1, 2)
    waiting = [
        (call.id, stream, len(sizes))
        for call in referee.outstanding(Call)
        for stream in streams
        if (sizes := referee.untaken(call.id, stream))
    ]
    if not waiting or chance.random() < 0.05:
        return None
    call, stream, most = chance.choice(waiting)
    return call, stream, chance.randint(1, most)


def _id(chance: random.Random, kind: type[Message], referee: Referee) -> int:
    """Choose a number that means something: of what is open, of what was closed, or the next."""
    openers: tuple[type[Message], ...] = (Call,)
    if kind in {Ask, Answer, Withdraw}:
        openers = (Ask,)
    elif kind in {Deliver, Handled}:
        openers = (Deliver, DeliverMany)
    elif kind is HandledSome:
        openers = (DeliverMany,)
    counted = (Ask,) if Ask in openers else NUMBERED
    last = max((m.id for m in referee.history if isinstance(m, counted)), default=0)
    if kind in {*NUMBERED, Ask}:
        return last + 1 if chance.random() < 0.95 else max(1, last)
    open_ids = [m.id for m in referee.outstanding(*openers)]
    if open_ids and chance.random() < 0.9:
        return chance.choice(open_ids[:2])
    return chance.choice([max(1, last), last + 1, 1])

"""Cases of the wire's collection: how they are told, and what most of them begin with.

A case plays its steps (`wire_attacker`) while the host does what its ``drive`` says. Most begin
with call 1 outstanding. What is expected has a name: a `Cause` of the plugin's end, "answered", or
the error of the call.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import Ask, Call, Result
from tests.support.wire_attacker import Step, frames, ready

VIOLATION = "protocol-violation"
ANSWERED = "answered"


@dataclass(frozen=True)
class Case:
    """One of the collection.

    Attributes:
        name: what is hostile about it.
        steps: what the plugin does.
        outcome: what the host's part of it comes to.
        told: a part of what the error says.
        drive: what the host does meanwhile.
        then: what the next call comes to; "" where there is none.
        deadline: of the call, in seconds.
    """

    name: str
    steps: list[Step]
    outcome: str
    told: str = ""
    drive: str = "call"
    then: str = ""
    deadline: float = 10.0


SERVING: list[Step] = [("say", ready())]
CALLED: list[Step] = [*SERVING, ("await", Call.number)]
NOTHING = pack(None)
EVENT_OF = {"data": 1}
ONE_ASK = Ask(1, "greet", 0, payload=pack([["Ada"], {}]))
rubbish = random.Random(7).randbytes


def breach(name: str, data: bytes, told: str, *, drive: str = "call") -> Case:
    """Bytes that are sent while call 1 is outstanding, and end the plugin for themselves."""
    return Case(name, [*CALLED, ("say", data)], VIOLATION, told, drive)


def breach_after(name: str, data: bytes, told: str) -> Case:
    """Bytes that hold a good answer, which counts, and then a breach."""
    return Case(name, [*CALLED, ("say", data)], ANSWERED, told, then=VIOLATION)


def lawful(name: str, data: bytes, outcome: str = ANSWERED, told: str = "") -> Case:
    """Bytes that answer call 1 or come before its answer, and after which the plugin serves."""
    answered = outcome != ANSWERED
    steps = [*CALLED, ("say", data), *([] if answered else [("answer", 1)]), ("serve",)]
    return Case(name, steps, outcome, told, then=ANSWERED)


def value(name: str, payload: bytes, told: str) -> Case:
    """The payload of a result that is no value."""
    return breach(f"result: {name}", frames(Result(1, payload=payload)), told)


NOT_OUTSTANDING = "which is not outstanding"
NO_MSGPACK = "header is not"


def start(name: str, data: bytes, told: str, outcome: str = "StartError") -> Case:
    """Bytes that are sent instead of Ready, or before it."""
    return Case(f"start: {name}", [("say", data)], outcome, told, "load")

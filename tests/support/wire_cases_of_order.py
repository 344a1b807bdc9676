"""Cases of the wire's collection: good messages at the wrong time, and by the wrong side."""

from __future__ import annotations

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import (
    Answer,
    Call,
    Confined,
    Deliver,
    DeliverMany,
    Failed,
    Failure,
    Handled,
    HandledSome,
    Progress,
    Publish,
    Result,
    Stop,
    Stopped,
    Withdraw,
    Yield,
)
from tests.support.wire_attacker import Step, frames, raw, ready
from tests.support.wire_cases import (
    ANSWERED,
    CALLED,
    NOT_OUTSTANDING,
    NOTHING,
    ONE_ASK,
    SERVING,
    VIOLATION,
    Case,
    breach,
    breach_after,
    lawful,
    rubbish,
    start,
)

MANY = [*SERVING, ("await", Deliver.number), ("await", DeliverMany.number)]
REPORT = pack({"errors": [[], 3, {"message": {}}]})

UNASKED = [
    breach("speaks for the host", frames(Call(2, "echo", 0)), "Call is not for the peer to send"),
    breach("stops the host", frames(Stop()), "Stop is not for the peer to send"),
    breach("answers itself", frames(ONE_ASK, Answer(1, True)), "Answer is not for the peer to se"),
    breach("ready again", ready(), "Ready is not allowed while running"),
    breach("confined again", frames(Confined(1, 1)), "Confined is not allowed while running"),
    breach("failed after all", frames(Failed("import")), "Failed is not allowed while running"),
    breach("stopped early", frames(Stopped()), "Stopped is not allowed while running"),
    breach("forged id", frames(Result(7, payload=NOTHING)), NOT_OUTSTANDING),
    breach("huge id", frames(Result(2**53 - 1)), NOT_OUTSTANDING),
    breach("id of the next call", frames(Result(2, payload=NOTHING)), NOT_OUTSTANDING),
    breach("a call is handled", frames(Handled(1, True)), NOT_OUTSTANDING),
    breach_after("answers twice", frames(Result(1, payload=pack(1))) * 2, NOT_OUTSTANDING),
    breach_after(
        "answers in two ways",
        frames(Result(1, payload=pack(1)), Failure(1, "exception")),
        NOT_OUTSTANDING,
    ),
    breach_after(
        "progress after the answer",
        frames(Result(1, payload=pack(1)), Progress(1, 1, 1)),
        NOT_OUTSTANDING,
    ),
    breach_after(
        "item after the answer", frames(Result(1, payload=pack(1)), Yield(1)), NOT_OUTSTANDING
    ),
    breach_after("garbage after the answer", frames(Result(1, payload=pack(1))) + rubbish(64), ""),
    breach("progress of another", frames(Progress(9, 1, 1)), NOT_OUTSTANDING),
    lawful("more than all is done", frames(Progress(1, 2**53 - 1, 0))),
    Case(
        "an event is returned",
        [*SERVING, ("await", Deliver.number), ("say", frames(Result(1)))],
        VIOLATION,
        NOT_OUTSTANDING,
        "event",
    ),
    Case(
        "a handler's report is no object",
        [*SERVING, ("await", Deliver.number), ("say", frames(Handled(1, False, payload=b"\xc1")))],
        VIOLATION,
        "payload",
        "event",
    ),
    Case(
        "a handler's report is of another shape",
        [
            *SERVING,
            ("await", Deliver.number),
            ("say", frames(Handled(1, False, payload=pack({"errors": [[], 3, {"message": {}}]})))),
            ("serve",),
        ],
        ANSWERED,
        drive="event",
    ),
    breach("an event that never came is handled", frames(Handled(2, True)), NOT_OUTSTANDING),
    Case(
        "the one event that came is handled in part",
        [*SERVING, ("await", Deliver.number), ("say", frames(HandledSome(1, 1, True)))],
        VIOLATION,
        "for more than may be before Handled",
        "event",
    ),
    Case(
        "all of many are handled, and then the last one",
        [*MANY, ("say", frames(Handled(1, True), HandledSome(2, 7, True)))],
        VIOLATION,
        "HandledSome of 2 for more than may be before Handled",
        "events",
    ),
    Case(
        "some of many are handled again and again",
        [*MANY, ("say", frames(*[HandledSome(2, 3, True)] * 3))],
        VIOLATION,
        "HandledSome of 2 for more than may be before Handled",
        "events",
    ),
    Case(
        "many are handled twice",
        [*MANY, ("say", frames(Handled(2, True), Handled(2, True)))],
        VIOLATION,
        NOT_OUTSTANDING,
        "events",
    ),
    Case(
        "some are handled after the last one",
        [*MANY, ("say", frames(Handled(2, True), HandledSome(2, 1, True)))],
        VIOLATION,
        NOT_OUTSTANDING,
        "events",
    ),
    Case(
        "a report on some is no object",
        [*MANY, ("say", frames(HandledSome(2, 1, False, payload=b"\xc1")))],
        VIOLATION,
        "payload",
        "events",
    ),
    Case(
        "many are handled in parts, and before the one before them",
        [
            *MANY,
            ("say", frames(HandledSome(2, 3, True), HandledSome(2, 3, False, payload=REPORT))),
            ("say", frames(Handled(2, True), Handled(1, True))),
            ("serve",),
        ],
        ANSWERED,
        drive="events",
    ),
    breach("some of a call are handled", frames(HandledSome(1, 1, True)), NOT_OUTSTANDING),
    Case(
        "answers in the wrong order",
        [
            *CALLED,
            ("await", Call.number),
            ("say", frames(Result(2, payload=pack(2)), Result(1, payload=pack(1)))),
            ("serve",),
        ],
        ANSWERED,
        drive="two calls",
        then=ANSWERED,
    ),
]

STARTS = [
    start("garbage", b"\xff" * 40, "header of 4294967295 bytes", VIOLATION),
    start("a result", frames(Result(1)), "Result is not allowed while loading", VIOLATION),
    start("stopped", frames(Stopped()), "Stopped is not allowed while loading", VIOLATION),
    start("confined", frames(Confined(1, 1)), "Confined is not allowed while loading", VIOLATION),
    start("ready with garbage", raw(b"\x91\x04", b"\xc1"), "not understood"),
    start("ready with nothing", raw(b"\x91\x04"), "not understood"),
    start("ready with a number", raw(b"\x91\x04", b"\x01"), "no object"),
    start("ready with an array", raw(b"\x91\x04", b"\xd8\x01u1\x01" + bytes(13)), "not understood"),
    start("ready with a line break", ready(operations=[{"name": "a\nb"}]), "short texts"),
    start(
        "ready with 1001 names", ready(operations=[{"name": str(n)} for n in range(1001)]), "1000"
    ),
    start("ready for what it may not", ready(handles=["user_action"]), "events lack"),
    start("as somebody else", ready(metadata={"name": "other"}), "differ", "MetadataMismatchError"),
    start("failed with garbage", frames(Failed("import", payload=b"\xc1")), "not understood"),
    start(
        "failed with escapes", frames(Failed("import", payload=pack({"message": "\x1b"}))), "x1b"
    ),
    start(
        "publishes what it may not",
        frames(Publish("user_action", payload=NOTHING)),
        "without the permission",
        VIOLATION,
    ),
    Case(
        "start: says much before it is ready",
        [
            ("say", frames(Publish("model_updated", payload=NOTHING), ONE_ASK, Withdraw(1))),
            *SERVING,
            ("serve",),
        ],
        ANSWERED,
        then=ANSWERED,
    ),
]

LEAVING: list[Step] = [*SERVING, ("await", Stop.number)]
LEFT = frames(Stopped(payload=pack({"ok": True})))
ENDS = [
    Case("end: garbage", [*LEAVING, ("say", b"\xff" * 40)], VIOLATION, "header of", "unload"),
    Case(
        "end: with garbage",
        [*LEAVING, ("say", raw(b"\x91\x0d", b"\xc1")), ("exit",)],
        "unloaded",
        "",
        "unload",
    ),
    Case(
        "end: bytes after it",
        [*LEAVING, ("say", LEFT + b"x"), ("exit",)],
        "unloaded|" + VIOLATION,
        "",
        "unload",
    ),
    Case(
        "end: twice",
        [*LEAVING, ("say", LEFT * 2), ("exit",)],
        "unloaded|" + VIOLATION,
        "",
        "unload",
    ),
    Case(
        "end: a result instead",
        [*LEAVING, ("say", frames(Result(1)))],
        VIOLATION,
        NOT_OUTSTANDING,
        "unload",
    ),
    Case("end: ready instead", [*LEAVING, ("say", ready())], VIOLATION, "while stopping", "unload"),
    Case("end: never", LEAVING, "deadline", "", "unload"),
    Case("end: stays after it", [*LEAVING, ("say", LEFT)], "unloaded", "", "unload"),
]

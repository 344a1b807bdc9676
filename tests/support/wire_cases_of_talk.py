"""Cases of the wire's collection: streams, cancellation, services, events and the log."""

from __future__ import annotations

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.limits import MAX_ASKED, MAX_EVENT_BYTES, MAX_STREAM_BYTES, MAX_STREAM_ITEMS
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Cancel,
    Failure,
    Feed,
    FeedCredit,
    FeedEnd,
    FeedStop,
    Log,
    Progress,
    Publish,
    Result,
    Withdraw,
    Yield,
)
from tests.support.wire_attacker import Step, fields, frames
from tests.support.wire_cases import (
    ANSWERED,
    CALLED,
    NOT_OUTSTANDING,
    NOTHING,
    ONE_ASK,
    VIOLATION,
    Case,
    breach,
    lawful,
)

STREAMS = [
    breach(
        "items beyond the credit",
        frames(Yield(1, payload=NOTHING)) * (MAX_STREAM_ITEMS + 1),
        "beyond its credit",
        drive="stream, unread",
    ),
    breach(
        "bytes beyond the credit",
        frames(Yield(1, payload=bytes(MAX_STREAM_BYTES)), Yield(1, payload=b"x")),
        "beyond its credit",
        drive="stream, unread",
    ),
    breach("item of another call", frames(Yield(2)), NOT_OUTSTANDING, drive="stream"),
    Case(
        "items and a result that is none",
        [*CALLED, ("say", frames(Yield(1, payload=pack(1)), Result(1, payload=b"\xc1")))],
        VIOLATION,
        "payload",
        "stream",
    ),
    breach("item that is no value", frames(Yield(1, payload=b"\xc1")), "payload", drive="stream"),
    Case(
        "items where a value is wanted",
        [*CALLED, ("say", frames(Yield(1, payload=NOTHING))), ("answer", 1), ("serve",)],
        "NotAStreamError",
        then=ANSWERED,
    ),
    Case(
        "endless items where a value is wanted",
        [*CALLED, ("say", frames(Yield(1, payload=NOTHING)) * 65)],
        "NotAStreamError|" + VIOLATION,
        then=VIOLATION,
    ),
    breach("credit for what was not fed", frames(FeedCredit(1, 1, 1)), "more than there was"),
    Case(
        "credit for more than was fed",
        [*CALLED, ("await", FeedEnd.number), ("say", frames(FeedCredit(1, 1, 4)))],
        VIOLATION,
        "more than there was",
        "feed",
    ),
    Case(
        "credit for another stream",
        [*CALLED, ("await", FeedEnd.number), ("say", frames(FeedCredit(1, 2, 1)))],
        VIOLATION,
        "more than there was",
        "feed",
    ),
    breach("stops a stream that there is not", frames(FeedStop(1, 1)), "there is no stream 1"),
    Case(
        "stops twice",
        [*CALLED, ("say", frames(FeedStop(1, 1), FeedStop(1, 1)))],
        VIOLATION,
        "comes twice",
        "feed",
    ),
    Case(
        "stops at once",
        [*CALLED, ("say", frames(FeedStop(1, 1))), ("answer", 1), ("serve",)],
        ANSWERED,
        drive="feed",
        then=ANSWERED,
    ),
    Case(
        "takes nothing of an endless stream",
        [*CALLED, ("await", Feed.number), ("answer", 1), ("serve",)],
        ANSWERED,
        drive="endless feed",
        then=ANSWERED,
    ),
]

CANCELLED: list[Step] = [
    *CALLED,
    ("say", frames(Progress(1, 1, 2))),
    ("await", Cancel.number),
]
CANCELS = [
    Case(
        "answers after the cancellation",
        [*CANCELLED, ("answer", 1), ("serve",)],
        "answered|CallCancelledError",
        drive="cancel",
        then=ANSWERED,
    ),
    Case(
        "fails after the cancellation",
        [*CANCELLED, ("say", frames(Failure(1, "cancelled", payload=pack({})))), ("serve",)],
        "CallCancelledError",
        drive="cancel",
        then=ANSWERED,
    ),
    Case(
        "answers twice after the cancellation",
        [*CANCELLED, ("answer", 1), ("answer", 1)],
        "answered|CallCancelledError",
        drive="cancel",
        then=VIOLATION,
    ),
    Case("ignores the cancellation", CANCELLED, "cancelled|CallCancelledError", drive="cancel"),
]

SERVICES = [
    breach("asks again under an id", frames(ONE_ASK, ONE_ASK), "reuses the id 1"),
    breach(
        "asks with ids that go down",
        frames(Ask(5, "greet", 0, payload=pack([["Ada"], {}])), ONE_ASK),
        "reuses the id 1",
    ),
    Case(
        "asks for too many at once",
        [
            *CALLED,
            (
                "say",
                frames(
                    *(
                        Ask(number, "wait", 0, payload=pack([[], {}]))
                        for number in range(1, MAX_ASKED + 2)
                    )
                ),
            ),
        ],
        VIOLATION,
        "more than 64 services asked for",
    ),
    breach("asks for what is not granted", frames(Ask(1, "delete", 0)), "without the permission"),
    breach("asks with control characters", fields(14, 1, "greet\r\n", 0), "Ask.service cannot be"),
    breach("asks with garbage", frames(Ask(1, "greet", 0, payload=b"\xc1")), "payload"),
    breach("asks with no list", frames(Ask(1, "greet", 0, payload=pack({"a": 1}))), "no list of"),
    breach("withdraws what it never asked", frames(Withdraw(1)), NOT_OUTSTANDING),
    Case(
        "withdraws what was answered, twice",
        [
            *CALLED,
            ("say", frames(ONE_ASK)),
            ("await", Answer.number),
            ("say", frames(Withdraw(1), Withdraw(1))),
            ("answer", 1),
            ("serve",),
        ],
        ANSWERED,
        then=ANSWERED,
    ),
    Case(
        "withdraws a hundred thousand times",
        [
            *CALLED,
            ("say", frames(ONE_ASK)),
            ("await", Answer.number),
            ("repeat", frames(Withdraw(1)), 100_000),
        ],
        "deadline",
        deadline=0.2,
    ),
]


def floods(count: int, deadline: float) -> list[Case]:
    """Return the floods of what is lawful: the host reads as much as the budgets allow."""
    steps = {
        "events": Publish("model_updated", payload=NOTHING),
        "log entries": Log(20, "x", payload=pack("y")),
        "progress": Progress(1, 1, 2),
    }
    return [
        Case(
            f"flood of {count:,} {name}",
            [*CALLED, ("repeat", frames(one), count), ("answer", 1), ("serve",)],
            # Who is to end is read on, so that it can hear of it: some get that far.
            "deadline|answered",
            "",
            deadline=deadline,
        )
        for name, one in steps.items()
    ]


EVENTS = [
    breach("publishes what is not granted", frames(Publish("user_action")), "without the permiss"),
    breach("publishes for the host", frames(Publish("plugin_loaded")), "without the permission"),
    breach("publishes garbage", frames(Publish("model_updated", payload=b"\xc1")), "payload"),
    breach(
        "publishes too much",
        frames(Publish("model_updated", payload=pack(bytes(MAX_EVENT_BYTES)))),
        "262144 are allowed",
    ),
    breach(
        "publishes a key twice",
        frames(Publish("model_updated", payload=b"\x82\xa1a\x01\xa1a\x02")),
        "same key twice",
    ),
    breach(
        "publishes what is deep",
        frames(Publish("model_updated", payload=b"\x91" * 40 + b"\x01")),
        "levels of nesting",
    ),
    breach("logs a number", frames(Log(20, "x", payload=pack(1))), "payload of a Log is text"),
    breach("logs nothing", frames(Log(20, "x")), "payload"),
    breach("logs too much", frames(Log(20, "x", payload=pack("x" * 20_000))), "16384 are allowed"),
    breach("logs for a logger with a bell", fields(24, 20, "a\ab", payload=b"\xa0"), "Log.logger"),
    lawful("logs at a level of its own", frames(Log(2**53 - 1, "x", payload=pack("\x1b[2J\n\0")))),
    *floods(20_000, 0.2),
]

A_MILLION = floods(1_000_000, 20.0)
"""The long form."""

"""Cases of the wire's collection: bytes that are no message, and messages that hold no value."""

from __future__ import annotations

import math

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.messages import (
    Cancel,
    Confine,
    Deliver,
    DeliverMany,
    Failure,
    Feed,
    FeedEnd,
    Load,
    Publish,
    Result,
    YieldCredit,
)
from tests.support.wire_attacker import elsewhere, fields, frames, raw
from tests.support.wire_cases import (
    ANSWERED,
    CALLED,
    NO_MSGPACK,
    VIOLATION,
    Case,
    breach,
    lawful,
    rubbish,
    value,
)

FRAMES = [
    breach("header of no bytes", bytes(8), "header of 0 bytes"),
    breach("zeros", bytes(200_000), "header of 0 bytes"),
    breach("header a byte too long", raw(bytes(MAX_HEADER_BYTES + 1)), "header of 1025 bytes"),
    breach("header of 4 GiB", b"\xff" * 4 + bytes(4), "header of 4294967295 bytes"),
    breach(
        "payload a byte too long",
        (1).to_bytes(4, "big") + (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big"),
        "payload of 8388609 bytes",
    ),
    breach("payload of 4 GiB", bytes([0, 0, 0, 1]) + b"\xff" * 4, "payload of 4294967295 bytes"),
    breach("event elsewhere", elsewhere(Publish("model_updated"), 100_000), "outside of its frame"),
    breach("nothing elsewhere", elsewhere(Result(1), 0), "payload of 2147483648 bytes"),
    breach("too much elsewhere", elsewhere(Result(1), MAX_PAYLOAD_BYTES + 1), "bytes; 8388608"),
    breach("answer elsewhere that was never put there", elsewhere(Result(1), 4 << 20), "truncated"),
    breach("answer elsewhere to nothing", elsewhere(Result(9), 4 << 20), "not outstanding"),
    breach("garbage", rubbish(50_000), "bytes; 1 to 1024 are allowed"),
    breach("ones", b"\xff" * 100, "header of 4294967295 bytes"),
    breach("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n", "header of 1213486160 bytes"),
    Case("nothing, and the end", [*CALLED, ("exit",)], "exited"),
    Case("end in a prefix", [*CALLED, ("say", b"\0\0\0"), ("exit",)], "exited"),
    Case("end in a header", [*CALLED, ("say", b"\0\0\0\x09\0\0\0\0\x92"), ("exit",)], "exited"),
    Case(
        "end in a payload",
        [*CALLED, ("say", frames(Result(1, payload=bytes(100)))[:60]), ("exit",)],
        "exited",
    ),
    Case(
        "end in a large payload",
        [*CALLED, ("say", raw(b"x", bytes(4_000_000))[:-1]), ("exit",)],
        "exited",
    ),
    Case("half-closed", [*CALLED, ("close", 4)], VIOLATION, "closed its pipe and stayed"),
    Case(
        "half-closed in a frame",
        [*CALLED, ("say", frames(Result(1))[:9]), ("close", 4)],
        VIOLATION,
        "closed its pipe and stayed",
    ),
    Case("deaf", [*CALLED, ("close", 3), ("answer", 1)], ANSWERED, then="deadline"),
    Case("silence", CALLED, "deadline", deadline=0.1),
    Case(
        "one byte per 100 ms",
        [*CALLED, ("drip", frames(Result(1, payload=pack("x" * 100))), 0.1)],
        "deadline",
        deadline=0.25,
    ),
    Case(
        "one byte at a time",
        [*CALLED, ("drip", frames(Result(1, payload=pack(1))), 0.0), ("serve",)],
        ANSWERED,
        then=ANSWERED,
    ),
]

HEADERS = [
    breach("header: no msgpack", raw(b"\xc1"), NO_MSGPACK),
    breach("header: a list in it", fields(7, [1]), "Result.id cannot be"),
    breach("header: deep", raw(b"\x91" * 1_000), NO_MSGPACK),
    breach("header: a list of 4 billion", raw(b"\xdd\xff\xff\xff\xff\x07"), NO_MSGPACK),
    breach("header: text of 4 GiB", raw(b"\x92\x07\xdb\xff\xff\xff\xff"), NO_MSGPACK),
    breach("header: a timestamp", raw(b"\x92\x07\xd6\xff\x00\x00\x00\x00"), NO_MSGPACK),
    breach("header: invalid UTF-8", raw(b"\x92\x0b\xa2\xc3\x28"), NO_MSGPACK),
    breach("message as a boolean", fields(True, 1), "not an array that starts"),
    breach("a field less", fields(7), "Result has 0 fields, not 1"),
    breach("id as a boolean", fields(7, True), "Result.id cannot be"),
    breach("id that is no number", fields(7, math.nan), "Result.id cannot be"),
    breach("id too large", fields(7, 2**53), "Result.id cannot be"),
    breach("name with a line break", fields(11, "a\nroot: b"), "Publish.event_type cannot be"),
    breach("name with an escape", fields(11, "\x1b]0;owned\a"), "Publish.event_type cannot be"),
    breach("name turned around", fields(11, "\u202etxt.exe"), "Publish.event_type cannot be"),
    breach("code with a bell", fields(8, 1, "exception\a"), "Failure.code cannot be"),
]

PAYLOADS = [
    value("nothing", b"", "payload"),
    value("cut short", pack([1, 2, 3])[:-1], "payload"),
    value("bytes after it", pack(1) + b"\0", "payload"),
    value("a key twice", b"\x82\xa1a\x01\xa1a\x02", "same key twice"),
    value("a key that is a number", b"\x81\x01\x01", "key|strict_map_key"),
    value("a key that is a list", b"\x81\x90\x01", "payload"),
    value("invalid UTF-8", b"\xa2\xc3\x28", "payload"),
    value("half a surrogate", b"\xa3\xed\xa0\x80", "payload"),
    value("the reserved byte", b"\xc1", "payload"),
    value("a timestamp", b"\xd6\xff\x00\x00\x00\x00", "extension"),
    value("a timestamp of 9999", b"\xc7\x0c\xff" + b"\xff" * 12, "extension"),
    value("an extension", b"\xd4\x05\x00", "extension"),
    value("an extension of no bytes", b"\xc7\x00\x01", "payload"),
    value(
        "an array without its elements", b"\xd8\x01f8\x01" + bytes(5) + b"\x09" + bytes(7), "arr"
    ),
    value("an array of objects", b"\xd8\x01O8\x01" + bytes(13), "array of an unknown kind"),
    value(
        "an array of 2^64 elements", b"\xd8\x01u1\x01" + bytes(5) + b"\xff" * 8, "payload has an a"
    ),
    value("a list of 4 billion", b"\xdd\xff\xff\xff\xff", "payload"),
    value("bytes of 4 GiB", b"\xc6\xff\xff\xff\xff", "payload"),
    *(
        lawful(
            f"result: {name}", frames(Result(1, payload=payload)), "MessageTooLargeError", "large"
        )
        for name, payload in {
            "deep": b"\x91" * 40 + b"\x01",
            "deeper": b"\x91" * 100_000 + b"\x01",
            "of empty lists": b"\xdd\x00\x03\xd0\x90" + b"\x90" * 250_000,
            "of empty objects": b"\xdd\x00\x03\xd0\x90" + b"\x80" * 250_000,
            "of small numbers": b"\xdd\x00\x10\x00\x00" + b"\xff" * (1 << 20),
            "of small numbers in two lists": b"\xdd\x00\x09\x00\x00" * 2 + b"\xff" * (9 << 17),
        }.items()
    ),
    breach("failure: no object", frames(Failure(1, "exception", payload=pack([]))), "no answer"),
    breach("failure: garbage", frames(Failure(1, "exception", payload=b"\xc1")), "payload"),
    lawful(
        "failure: unknown code",
        frames(Failure(1, "unheard of", payload=pack({"message": "\x1b[31mroot\n"}))),
        "OperationError",
        r"\\x1b\[31mroot",
    ),
    lawful(
        "failure: of other types",
        frames(Failure(1, "exception", payload=pack({"message": [], "denied": [], "place": 1}))),
        "OperationError",
    ),
    lawful(
        "failure: a megabyte of traceback",
        frames(Failure(1, "exception", payload=pack({"traceback": "x\n" * 500_000}))),
        "OperationError",
    ),
]


VARIANTS: list[tuple[str, bytes, str]] = [
    ("header: an object", raw(b"\x80"), NO_MSGPACK),
    ("header: an empty list", raw(b"\x90"), NO_MSGPACK),
    ("header: an object in it", fields(7, {"id": 1}), NO_MSGPACK),
    ("header: bytes after it", raw(b"\x92\x07\x01\x00"), NO_MSGPACK),
    ("header: cut short", raw(b"\x92\x07"), NO_MSGPACK),
    ("header: an extension", raw(b"\x92\x07\xd4\x05\x00"), NO_MSGPACK),
    ("id zero", fields(7, 0), "Result.id cannot be"),
    ("id as a float", fields(7, 1.0), "Result.id cannot be"),
    ("id negative", fields(7, -1), "Result.id cannot be"),
    ("message as a float", fields(7.0, 1), "does not|not an array that starts"),
    ("a field more", fields(7, 1, 1), "Result has 2 fields, not 1"),
    ("name too long", fields(11, "x" * 257), "Publish.event_type cannot be"),
    ("negative level", fields(24, -1, "x"), "Log.level cannot be"),
    ("progress that is no number", fields(23, 1, math.nan, 1), "Progress.done cannot be"),
    ("stream 9", fields(22, 1, 9), "FeedStop.stream cannot be"),
    ("credit for 65", fields(21, 1, 1, 65), "FeedCredit.items cannot be"),
    ("deadline before the machine", fields(14, 1, "greet", -1), "Ask.deadline_ns cannot be"),
    ("header: half a surrogate", fields(11, "\ud800"), NO_MSGPACK),
    ("unknown message", fields(99), "unknown message number 99"),
    *(
        (f"id: {number!r}", fields(7, number), "Result.id cannot be")
        for number in (2**64 - 1, -(2**63), math.inf, False, "1", b"1", None, [], 0.5)
    ),
    *(
        (f"name: {name!r:.20}", fields(11, name), "Publish.event_type cannot be")
        for name in ("", "a\u2028b", "ä" * 200, b"update", 1, None, "a\0", "a\xa0b", "\x7f")
    ),
    *(
        (f"number: {number!r}", fields(number), "unknown message number|starts with a message")
        for number in (0, -1, 28, 2**64 - 1, "7", None, b"\x07", 1.0)
    ),
    *(
        (type(one).__name__, frames(one), "not for the peer to send")
        for one in (
            *(
                Confine(1, 1),
                Load(),
                Deliver(2, "x"),
                DeliverMany(2, "x", 2),
                Cancel(1, True),
                YieldCredit(1, 1),
            ),
            *(Feed(1, 1), FeedEnd(1, 1, True)),
        )
    ),
    ("flag: 1", fields(10, 1, 1), "Handled.ok cannot be"),
    ("stream: 0", fields(22, 1, 0), "FeedStop.stream cannot be"),
    ("items: 0", fields(21, 1, 1, 0), "FeedCredit.items cannot be"),
    ("total: -1", fields(23, 1, 0, -1), "Progress.total cannot be"),
]
"""More of the kind that the connection alone refuses: name, bytes, what is told."""

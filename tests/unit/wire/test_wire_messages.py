from __future__ import annotations

import msgpack
import pytest

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import MAX_EVENTS_AT_ONCE, MAX_HEADER_BYTES, MAX_ID, MAX_NAME_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    MESSAGES,
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
    parse_message,
)

ONE_OF_EACH = [
    Confine(1, 1, payload=b"plan"),
    Confined(1, 1, payload=b"report"),
    Load(payload=b"x"),
    Ready(payload=b"x"),
    Failed("import", payload=b"x"),
    Call(7, "predict", 123, payload=b"x"),
    Result(7, payload=b"x"),
    Failure(7, "exception", payload=b"x"),
    Deliver(8, "data_processed", payload=b"x"),
    Handled(8, True, payload=b"x"),
    DeliverMany(9, "data_processed", 2, payload=b"x"),
    HandledSome(9, 1, True, payload=b"x"),
    Publish("model_updated", payload=b"x"),
    Stop(),
    Stopped(payload=b"x"),
    Ask(9, "prices.latest", 5, payload=b"x"),
    Answer(9, True, payload=b"x"),
    Cancel(7, False),
    Yield(7, payload=b"x"),
    YieldCredit(7, 3),
    Feed(7, 1, payload=b"x"),
    FeedEnd(7, 1, True),
    FeedCredit(7, 1, 3),
    FeedStop(7, 1),
    Progress(7, 3, 0),
    Log(30, "weather", payload=b"x"),
    Withdraw(9),
]


def header(*values: object) -> bytes:
    return bytes(msgpack.packb(list(values)))


def test_there_is_one_of_each() -> None:
    assert {type(message) for message in ONE_OF_EACH} == set(MESSAGES.values())
    assert all(MESSAGES[message.number] is type(message) for message in ONE_OF_EACH)
    assert {message.sender for message in ONE_OF_EACH} == {HOST, PLUGIN}


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_equal(message: Message) -> None:
    back = parse_message(message.header(), message.payload)
    assert back == message
    assert hash(back) == hash(message)
    assert repr(back) == repr(message)
    assert len(message.header()) <= MAX_HEADER_BYTES


def test_the_longest_names_fit_into_a_header() -> None:
    assert len(Call(MAX_ID, "n" * MAX_NAME_BYTES, MAX_ID).header()) <= MAX_HEADER_BYTES


def test_messages_differ_by_type_fields_and_payload() -> None:
    different = [Call(1, "a", 0), Call(2, "a", 0), Call(1, "b", 0), Call(1, "a", 0, payload=b"x")]
    assert len(set(different)) == len(different)
    assert Load() != Ready()
    assert Load() != "Load"


@pytest.mark.parametrize(
    "message",
    [
        Call(0, "predict", 0),
        Call(MAX_ID + 1, "predict", 0),
        Call(True, "predict", 0),
        Call(1.0, "predict", 0),
        Call(1, "", 0),
        Call(1, "n" * (MAX_NAME_BYTES + 1), 0),
        Call(1, "☃" * 100, 0),
        Call(1, "\ud800", 0),
        Call(1, "red\x1b[31m", 0),
        Call(1, "two\nlines", 0),
        Call(1, "predict", -1),
        Handled(1, 1),
        DeliverMany(1, "a", 0),
        HandledSome(1, MAX_EVENTS_AT_ONCE + 1, True),
        Failed(None),
        Confine("1", 1),
    ],
    ids=repr,
)
def test_a_bad_field_is_our_fault_when_sending(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be"):
        message.header()


def test_a_missing_field_is_our_fault_as_well() -> None:
    with pytest.raises(LocalProtocolError, match="takes 3 fields, not 1"):
        Call(1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not acceptable"),
        (b"\xc1", "not acceptable"),
        (header() + b"\x00", "not acceptable"),
        (header(), "not an array"),
        (header(None), "not an array"),
        (header(True, 1), "not an array"),
        (header([6], 1), "not an array"),
        (bytes(msgpack.packb({"a": 1})), "not acceptable"),
        (bytes(msgpack.packb(6)), "not an array"),
        (bytes(msgpack.packb("six")), "not an array"),
        (header(0), "unknown message number 0"),
        (header(99), "unknown message number 99"),
        (header(-1), "unknown message number -1"),
        (header(2**63), "unknown message number"),
        (header(7), "Result has 0 fields, not 1"),
        (header(7, 1, 1), "Result has 2 fields, not 1"),
        (header(*range(1, 12)), "not acceptable"),
        (header(7, 0), "Result.id cannot be"),
        (header(7, -1), "Result.id cannot be"),
        (header(7, True), "Result.id cannot be"),
        (header(7, 1.0), "Result.id cannot be"),
        (header(7, "1"), "Result.id cannot be"),
        (header(7, [1]), "Result.id cannot be"),
        (header(7, 2**53), "Result.id cannot be"),
        (header(8, 1, ""), "Failure.code cannot be"),
        (header(8, 1, "x" * 300), "Failure.code cannot be"),
        (header(8, 1, b"code"), "Failure.code cannot be"),
        (header(8, 1, "a\x1b[2J"), "Failure.code cannot be"),
        (header(10, 1, 0), "Handled.ok cannot be"),
        (header(27, 1, 0, True), "HandledSome.events cannot be"),
        (header(27, 1, 2**32, True), "HandledSome.events cannot be"),
        (header(27, 1, True, True), "HandledSome.events cannot be"),
        (b"\x92\x07\xa1\xff", "not acceptable"),
        (b"\x92\x07" + bytes(msgpack.packb(msgpack.Timestamp(2**62, 0))), "not acceptable"),
        (b"\x92\x07\xd6\xff\x00\x00\x00\x01", "not acceptable"),
        (b"\x91" * MAX_HEADER_BYTES, "not acceptable"),
    ],
    ids=lambda value: value.hex()[:24] if isinstance(value, bytes) else None,
)
def test_a_bad_header_is_the_peers_fault(data: bytes, told: str) -> None:
    with pytest.raises(RemoteProtocolError, match=told):
        parse_message(data, b"")


def test_a_deadline_is_a_clock_of_a_machine_that_was_up_for_years() -> None:
    century = 100 * 366 * 86_400 * 10**9
    call = Call(1, "predict", century)
    assert parse_message(call.header(), b"") == call
    with pytest.raises(LocalProtocolError):
        Call(1, "predict", 2**63).header()

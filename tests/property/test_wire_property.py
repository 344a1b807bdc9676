"""Whatever bytes arrive: messages or `RemoteProtocolError`, a value or `PayloadError`; no more."""

from __future__ import annotations

import math
import struct
import tracemalloc
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_sdk.wire.codec import QUICK_BYTES, is_quick, pack, unpack
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import (
    LocalProtocolError,
    PayloadError,
    PayloadTooLargeError,
    RemoteProtocolError,
)
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, PREFIX_BYTES, VALUE
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    MESSAGES,
    Call,
    Confine,
    Confined,
    Deliver,
    Failure,
    FeedStop,
    Handled,
    Load,
    Log,
    Progress,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
    Yield,
    parse_message,
)
from plugin_sdk.wire.state import CLOSED, RUNNING, STOPPING

MAX_PAYLOAD = 300
LARGEST_FRAME = PREFIX_BYTES + MAX_HEADER_BYTES + MAX_PAYLOAD

names = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=20)
payloads = st.binary(max_size=MAX_PAYLOAD)
numbers = st.integers(1, 6)


def waiting_host(*, stopping: bool = False) -> Connection:
    """Return a host's connection with calls 1 to 3 and deliveries 4 to 6 outstanding.

    Args:
        stopping: it has sent `Stop` as well, so that the stream may end lawfully.
    """
    host = Connection(HOST, MAX_PAYLOAD)
    host.send(Confine(1, 1))
    host.receive_data(frame(Confined(1, 1)))
    host.send(Load())
    host.receive_data(frame(Ready()))
    for number in range(1, 4):
        host.send(Call(number, "predict", 0))
    for number in range(4, 7):
        host.send(Deliver(number, "data_processed"))
    if stopping:
        host.send(Stop())
    host.data_to_send()
    host.events_received()
    return host


def frame(message: Message) -> bytes:
    return build_frame(message.header(), message.payload, MAX_PAYLOAD)


def raw_frame(header: bytes, payload: bytes) -> bytes:
    return struct.pack(">II", len(header), len(payload)) + header + payload


answers = st.one_of(
    st.builds(lambda i, p: Yield(i, payload=p), numbers, payloads),
    st.builds(FeedStop, numbers, st.integers(1, 8)),
    st.builds(Progress, numbers, st.integers(0, 9), st.integers(0, 9)),
    st.builds(lambda n, p: Log(20, n, payload=p), names, payloads),
    st.builds(lambda i, p: Result(i, payload=p), numbers, payloads),
    st.builds(lambda i, c, p: Failure(i, c, payload=p), numbers, names, payloads),
    st.builds(Handled, numbers, st.booleans()),
    st.builds(lambda t, p: Publish(t, payload=p), names, payloads),
    st.builds(lambda p: Stopped(payload=p), payloads),
)

# Headers that are msgpack of about the right shape, to get past the first checks.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
)
near_headers = st.lists(
    scalars | st.integers(0, 26) | st.lists(scalars, max_size=2), max_size=5
).map(lambda values: bytes(msgpack.packb(values, unicode_errors="surrogatepass")))
near_frames = st.builds(raw_frame, near_headers, st.binary(max_size=20))
near_prefixes = st.builds(
    lambda header, payload, rest: struct.pack(">II", header, payload) + rest,
    st.integers(0, MAX_HEADER_BYTES + 2),
    st.integers(0, MAX_PAYLOAD + 2),
    st.binary(max_size=50),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good stream with a few bytes changed, left out or put in."""
    stream = bytearray(b"".join(map(frame, draw(st.lists(answers, min_size=1, max_size=4)))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(stream)))
        change = draw(st.sampled_from(["replace", "remove", "insert"]))
        if change == "insert":
            stream[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif change == "remove":
            del stream[at : at + draw(st.integers(1, 4))]
        elif at < len(stream):
            stream[at] = draw(st.integers(0, 255))
    return bytes(stream)


streams = st.one_of(
    st.binary(max_size=400),
    mutated(),
    st.lists(near_frames | near_prefixes | answers.map(frame), max_size=5).map(b"".join),
)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def outcome(chunks: list[bytes], *, stopping: bool) -> tuple[list[Message], str | None, str]:
    """Feed a host; return its messages, what it objected to, and where it stands."""
    host = waiting_host(stopping=stopping)
    objection = None
    received: list[Message] = []
    for chunk in chunks:
        try:
            host.receive_data(chunk)
        except RemoteProtocolError as error:
            objection = str(error)
        received += host.events_received()
        assert host._reader.pending_bytes <= LARGEST_FRAME + len(chunk)
        if objection is not None:
            assert host.state == CLOSED
            break
    return received, objection, host.state


@given(stream=streams, cuts=st.lists(st.integers(0, 10_000), max_size=8), stopping=st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_stream_gives_messages_or_a_protocol_error_however_it_is_cut(
    stream: bytes, cuts: list[int], stopping: bool
) -> None:
    whole = outcome([stream], stopping=stopping)
    assert outcome(chunked(stream, cuts), stopping=stopping) == whole
    received, objection, state = whole
    assert all(message.sender == PLUGIN for message in received)
    if objection is None:
        assert state in {RUNNING, STOPPING, CLOSED}


@given(stream=streams, stopping=st.booleans())
@settings(max_examples=150, deadline=None)
def test_byte_by_byte_is_the_same(stream: bytes, stopping: bool) -> None:
    bytewise = outcome([bytes([byte]) for byte in stream], stopping=stopping)
    assert bytewise == outcome([stream], stopping=stopping)


@given(stream=streams)
@settings(max_examples=100, deadline=None)
def test_the_end_of_any_stream_is_an_end_or_a_protocol_error(stream: bytes) -> None:
    host = waiting_host()
    try:
        host.receive_data(stream)
        host.receive_eof()
    except RemoteProtocolError:
        pass
    assert host.state == CLOSED
    with pytest.raises(RemoteProtocolError):
        host.receive_data(b"x")
    with pytest.raises(LocalProtocolError):
        host.send(Stop())


@given(sent=st.lists(answers, max_size=6), cuts=st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=150, deadline=None)
def test_what_one_end_may_send_the_other_receives_unchanged(
    sent: list[Message], cuts: list[int]
) -> None:
    host, plugin = waiting_host(), Connection(PLUGIN, MAX_PAYLOAD)
    plugin.state = host.state
    plugin._exchanges[HOST].open = dict(host._exchanges[HOST].open)
    accepted = []
    for message in sent:
        try:
            plugin.send(message)
        except LocalProtocolError:
            continue
        accepted.append(message)
    received: list[Message] = []
    for chunk in chunked(plugin.data_to_send(), cuts):
        if chunk:
            host.receive_data(chunk)
        received += host.events_received()
    assert received == accepted
    assert host.outstanding == plugin.outstanding


@given(header=near_headers | st.binary(max_size=60), payload=st.binary(max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_header_is_a_message_or_a_protocol_error(header: bytes, payload: bytes) -> None:
    try:
        message = parse_message(header, payload)
    except RemoteProtocolError as error:
        told = str(error)
    else:
        told = repr(message)
        assert type(message) in MESSAGES.values()
        assert parse_message(message.header(), payload) == message
    assert len(told) < 1_000


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8")),
        st.binary(),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=30,
)


@given(value=values)
@settings(max_examples=200, deadline=None)
def test_a_value_comes_back_equal(value: Any) -> None:
    assert unpack(pack(value)) == value


def test_not_a_number_comes_back_as_such() -> None:
    assert math.isnan(unpack(pack(math.nan)))


# Any msgpack there is, also what `pack` never writes: other keys, extension types, deep nesting.
foreign = st.recursive(
    scalars
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**62), st.integers(0, 999_999_999)),
    lambda inner: st.lists(inner) | st.dictionaries(scalars, inner),
    max_leaves=20,
).map(lambda value: bytes(msgpack.packb(value, unicode_errors="surrogatepass")))
container_noise = st.lists(
    st.sampled_from(
        [b"\x90", b"\x91", b"\x80", b"\x81", b"\xdd", b"\xdf", b"\xdc\xff\xff", b"\xa1a"]
    )
    | st.binary(max_size=3),
    max_size=120,
).map(b"".join)


@given(data=st.one_of(st.binary(max_size=200), foreign, container_noise))
@settings(max_examples=600, deadline=None)
def test_any_payload_is_a_value_or_a_payload_error(data: bytes) -> None:
    try:
        value = unpack(data)
    except PayloadError:
        return
    assert is_plain(value)
    # What was accepted can be sent on.
    assert pack(value)


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in {bool, int, float, str, bytes, memoryview}


@pytest.mark.parametrize("levels", [2, 3, 8])
@pytest.mark.parametrize("kind", [b"\xdd", b"\xdf"], ids=["lists", "objects"])
def test_elements_of_all_levels_count_together(levels: int, kind: bytes) -> None:
    """Found by fuzzing: each list alone was held to the bound, and 8 of them took 325 MiB."""
    each = VALUE.elements // levels + 1
    items = each if kind == b"\xdd" else each // 2 + 1
    data = (kind + struct.pack(">I", items)) * levels + b"\xe0" * (VALUE.elements + 100)
    with pytest.raises(PayloadTooLargeError, match="more than 1000000 elements"):
        unpack(data)


@given(
    count=st.integers(1, 2**32 - 1),
    depth=st.integers(1, 40),
    kind=st.sampled_from([b"\xdd", b"\xdf"]),
    filler=st.sampled_from([b"\x90", b"\x80", b"\xe0", b"\xc0", b"\xa0"]),
    sent=st.integers(0, 100_000),
)
@settings(max_examples=25, deadline=None)
def test_no_payload_takes_more_memory_than_its_bytes_allow(
    count: int, depth: int, kind: bytes, filler: bytes, sent: int
) -> None:
    data = (kind + struct.pack(">I", count)) * depth + filler * sent
    tracemalloc.start()
    try:
        unpack(data)
    except PayloadError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # An empty dict takes one byte on the wire and 64 in memory, and a pointer in its list.
    assert peak < 2 * 1024 * 1024 + 100 * len(data)


@given(head=st.binary(max_size=64), filler=st.binary(min_size=1, max_size=2))
@settings(deadline=None)
def test_whether_it_is_quick_to_unpack_is_told_of_any_bytes(head: bytes, filler: bytes) -> None:
    """And what is has few elements, which are all that takes long."""
    data = head + filler * QUICK_BYTES
    if not is_quick(data):
        return
    try:
        value = unpack(data)
    except PayloadError:  # text that is none, or a key that comes twice
        return
    assert elements_of(value) <= len(data) // 256


def elements_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(elements_of, inner))

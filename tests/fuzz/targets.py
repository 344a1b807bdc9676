"""What a coverage-guided fuzzer feeds: each takes any bytes and fails only where the code is wrong.

`run.py` runs them under the fuzzer; `test_fuzz_corpus.py` replays what it has found worth keeping.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from plugin_sdk.wire import codec as codecs
from plugin_sdk.wire import frames
from plugin_sdk.wire import pieces as pieces_of_values
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import LocalProtocolError, PayloadError, RemoteProtocolError
from plugin_sdk.wire.limits import (
    ARGUMENTS,
    EVENT,
    MAX_HEADER_BYTES,
    METADATA,
    PREFIX_BYTES,
    REPORT,
    VALUE,
    Bounds,
)
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
    Feed,
    FeedEnd,
    HandledSome,
    Load,
    Ready,
    Result,
    Stop,
    Stopped,
    Yield,
    YieldCredit,
)
from plugin_sdk.wire.state import CLOSED

CORPUS = Path(__file__).with_name("corpus")
"""A file for each target: a line of hexadecimal digits for each input."""

MAX_PAYLOAD = 6_000
TIGHT = Bounds(48, 3, 4, 12)
BOUNDS = (VALUE, EVENT, ARGUMENTS, METADATA, REPORT, TIGHT)


@contextmanager
def everything_is_large() -> Iterator[None]:
    """Let what is short take the ways of what is long: it may make no other difference."""
    kept = [(module, name, getattr(module, name)) for module, name in _THRESHOLDS]
    for module, name, _ in kept:
        setattr(module, name, 8)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


_THRESHOLDS = ((frames, "_LARGE_BYTES"), (codecs, "LARGE_BYTES"), (pieces_of_values, "LARGE_BYTES"))


# -- frames and messages --------------------------------------------------------------------------


def connection(data: bytes) -> None:
    """A host in the middle of everything reads a stream: whole, and in pieces.

    The first byte says how the rest is read: bit 0, as parts that are given their lengths, rather
    than as it is; bit 1, after Stop; the upper bits, how it is cut.
    """
    if not data:
        return
    mode, stream = data[0], data[1:]
    if mode & 1:
        stream = b"".join(_framed(stream))
    whole = _outcome([stream], stopping=bool(mode & 2))
    size = 1 + (mode >> 2)
    cuts = [*range(0, len(stream), size), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(cuts)]
    with everything_is_large():
        assert _outcome(pieces, stopping=bool(mode & 2)) == whole


def _framed(data: bytes) -> Iterator[bytes]:
    """Read lengths of one byte each, of a header and of a payload, and give them their four."""
    while len(data) >= 2:
        header, payload = data[0] or 1, data[1]
        size = header + payload
        body = data[2 : 2 + size].ljust(size, b"\0")
        yield struct.pack(">II", header, payload) + body
        data = data[2 + size :]


def _busy_host() -> Connection:
    """Return one with calls, a delivery, services and streams open, and some of each closed."""
    host = Connection(HOST, MAX_PAYLOAD)
    said: list[Message] = [Confine(1, 1), Confined(1, 1), Load(), Ready()]
    said += [Call(number, "predict", 0) for number in range(1, 5)]
    said += [Deliver(5, "data_processed"), DeliverMany(6, "data_processed", 3)]
    said += [HandledSome(6, 1, True), Ask(1, "prices", 0), Ask(2, "prices", 0)]
    said += [Feed(1, 1, payload=b"x"), Feed(1, 2, payload=b"y"), FeedEnd(1, 2, True)]
    said += [Yield(2, payload=b"z"), Yield(2), YieldCredit(2, 1), Cancel(3, False)]
    said += [Answer(1, True), Result(4)]
    for message in said:
        if message.sender == HOST:
            host.send(message)
        else:
            host.receive_data(frame(message))
    host.events_received()
    host.data_to_send()
    return host


def frame(message: Message) -> bytes:
    """Return a message as bytes."""
    header = message.header()
    return struct.pack(">II", len(header), len(message.payload)) + header + message.payload


def _outcome(pieces: list[bytes], *, stopping: bool) -> tuple[list[Message], str, str, int]:
    host = _busy_host()
    if stopping:
        host.send(Stop())
    received: list[Message] = []
    objection = ""
    for piece in pieces:
        try:
            host.receive_data(piece)
        except RemoteProtocolError as error:
            objection = str(error)
        received += host.events_received()
        most = PREFIX_BYTES + MAX_HEADER_BYTES + MAX_PAYLOAD
        assert host._reader.pending_bytes <= most
        if objection:
            break
    assert all(message.sender == PLUGIN for message in received)
    assert len(objection) < 1_000
    if objection:
        _check_is_dead(host)
    return received, objection, host.state, host.outstanding


def _check_is_dead(host: Connection) -> None:
    assert host.state == CLOSED
    for attempt in (lambda: host.receive_data(frame(Stopped())), lambda: host.send(Stop())):
        try:
            attempt()
        except (RemoteProtocolError, LocalProtocolError):
            continue
        raise AssertionError
    assert not host.events_received()


# -- values ---------------------------------------------------------------------------------------


def codec(data: bytes) -> None:
    """A payload is a value within its bounds, which comes back as itself; or a `PayloadError`."""
    if not data:
        return
    bounds, payload = BOUNDS[data[0] % len(BOUNDS)], data[1:]
    value = _unpacked(payload, bounds)
    with everything_is_large():
        other = _unpacked(payload, bounds)
    assert (value is _REFUSED) is (other is _REFUSED)
    if value is _REFUSED:
        return
    elements, containers = _measured(value, 0, bounds)
    assert elements <= bounds.elements
    assert containers <= bounds.containers
    again = pack(value)
    assert pack(unpack(again)) == again == pack(other)
    with everything_is_large():
        assert pack(value) == again
    if len(again) <= bounds.max_bytes:
        assert pack(value, bounds) == again


def _unpacked(payload: bytes, bounds: Bounds) -> Any:
    try:
        return unpack(payload, bounds)
    except PayloadError as error:
        assert len(str(error)) < 1_000  # noqa: PT017 - of every error, and there may be none
        return _REFUSED


_REFUSED = object()


def _measured(value: Any, depth: int, bounds: Bounds) -> tuple[int, int]:
    """Count elements and containers, in another way than the codec does, and check the types."""
    if value is None or type(value) in {bool, int, float, str, bytes}:
        return 1, 0
    assert depth <= bounds.depth
    if type(value) not in {dict, list}:
        assert bounds.arrays
        view = memoryview(value)
        assert view.readonly
        # An array of a few bytes has no more elements than these; zero may stand for any number.
        assert view.nbytes <= bounds.max_bytes
        return 1, 1
    items = [*value, *value.values()] if type(value) is dict else value
    if type(value) is dict:
        assert all(type(key) is str for key in value)
    measured = [_measured(item, depth + 1, bounds) for item in items]
    return 1 + sum(one for one, _ in measured), 1 + sum(one for _, one in measured)


# -- what the host makes of values ----------------------------------------------------------------


def answers(data: bytes) -> None:
    """A payload of a plugin's, wherever the host reads one: an error of the host's own, or a value.

    The first byte says what message it is of.
    """
    from tests.fuzz import host_readings

    if data:
        readers = host_readings.READERS
        readers[data[0] % len(readers)](data[1:])


TARGETS: dict[str, Callable[[bytes], None]] = {
    "connection": connection,
    "codec": codec,
    "answers": answers,
}


def kept(target: str) -> list[bytes]:
    """Return the inputs of a target that are kept."""
    lines = (CORPUS / f"{target}.txt").read_text("ascii").split()
    return [bytes.fromhex(line) for line in lines]

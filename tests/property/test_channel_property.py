"""Whatever bytes a plugin sends: messages, or the protocol is broken; never anything else.

Whole or in any pieces, the outcome is the same, and nothing is kept beyond the limits.
"""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import MAX_HEADER_BYTES
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Failure, Handled, Publish, Ready, Result, Stopped
from tests.support.channels import Line, line

MAX_KEPT = MAX_HEADER_BYTES + 8 * (1 << 20) + 65_536

plausible = st.one_of(
    st.builds(Result, st.integers(1, 4), payload=st.binary(max_size=20)),
    st.builds(Failure, st.integers(1, 4), st.just("exception"), payload=st.binary(max_size=20)),
    st.builds(Handled, st.integers(1, 4), st.booleans()),
    st.builds(Publish, st.just("data_processed"), payload=st.binary(max_size=20)),
    st.builds(Ready),
    st.builds(Stopped),
)


def frame(message: Message) -> bytes:
    """Return a message as bytes, whether or not the protocol allows it now."""
    header = message.header()
    sizes = len(header).to_bytes(4, "big") + len(message.payload).to_bytes(4, "big")
    return sizes + header + message.payload


frames = st.lists(plausible.map(frame), max_size=6).map(b"".join)
prefixes = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(
    lambda sizes: b"".join(size.to_bytes(4, "big") for size in sizes)
)
mutated = st.tuples(frames, st.integers(0, 200), st.binary(max_size=3)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] :]
)
streams = st.one_of(st.binary(max_size=300), frames, prefixes, mutated)


def outcome(pieces: list[bytes], *, ends: bool) -> tuple[list[object], list[Message], list[str]]:
    """Feed a stream to a channel with three calls outstanding; return what came of it."""
    with line() as wire:
        pendings = [wire.call() for _ in range(3)]
        for piece in pieces:
            os.write(wire.from_plugin, piece)
            wire.channel.pump()
            assert kept(wire) <= MAX_KEPT
        if ends:
            wire.hang_up()
        for _ in range(3):
            wire.channel.pump()
        assert all(reason is None or type(reason) is RemoteProtocolError for reason in wire.broken)
        assert len(wire.broken) <= 1
        assert wire.channel.broken is bool(wire.broken)
        answers = [pending.answer for pending in pendings]
        assert all(a is None or isinstance(a, (Result, Failure)) for a in answers)
        return list(answers), wire.messages, [str(reason) for reason in wire.broken]


def kept(wire: Line) -> int:
    """Return how many bytes of unfinished frames are held."""
    return wire.channel._connection._reader.pending_bytes


@settings(deadline=None, max_examples=150)
@given(streams, st.booleans())
def test_whole_or_byte_by_byte(stream: bytes, ends: bool) -> None:
    whole = outcome([stream], ends=ends)
    single = outcome([stream[i : i + 1] for i in range(len(stream))], ends=ends)
    assert whole == single


@settings(deadline=None, max_examples=100)
@given(streams, st.lists(st.integers(1, 40), max_size=20))
def test_in_any_pieces(stream: bytes, sizes: list[int]) -> None:
    pieces, rest = [], stream
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert outcome([*filter(None, pieces), rest], ends=True) == outcome([stream], ends=True)


@settings(deadline=None, max_examples=100)
@given(st.lists(plausible, max_size=6), st.binary(min_size=1, max_size=50))
def test_what_came_before_a_breach_still_counts(messages: list[Message], junk: bytes) -> None:
    stream = b"".join(map(frame, messages))
    clean, dirty = outcome([stream], ends=False), outcome([stream + b"\xff" * 8 + junk], ends=False)
    assert clean[:2] == dirty[:2]
    assert dirty[2]

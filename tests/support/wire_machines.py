"""What the state machines of the wire share: small bounds, and what has to hold of one end."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from plugin_sdk.wire import frames, streams
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, PREFIX_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN
from plugin_sdk.wire.messages import Ask, Call, Deliver, DeliverMany
from tests.support.wire_referee import NUMBERED, Bounds, Referee

BOUNDS = Bounds(items=3, stream_bytes=40, outstanding=5, asked=3)
MAX_PAYLOAD = 64
LARGEST_FRAME = PREFIX_BYTES + MAX_HEADER_BYTES + MAX_PAYLOAD
OTHER = {HOST: PLUGIN, PLUGIN: HOST}

seeds = st.integers(0, 2**32 - 1)
steps = st.sampled_from([1, 3, *[30] * 8])


class Bounded(RuleBasedStateMachine):
    """What both machines share: the bounds of the code are those of the referee meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._patches = [
            patch.object(streams, "MAX_STREAM_ITEMS", BOUNDS.items),
            patch.object(streams, "MAX_STREAM_BYTES", BOUNDS.stream_bytes),
            patch.object(frames, "_LARGE_BYTES", 24),
        ]
        for patched in self._patches:
            patched.start()

    def teardown(self) -> None:
        for patched in self._patches:
            patched.stop()


def connection(role: str) -> Connection:
    made = Connection(role, MAX_PAYLOAD)
    made._exchanges[HOST].most = BOUNDS.outstanding
    made._exchanges[PLUGIN].most = BOUNDS.asked
    return made


def check_memory(end: Connection) -> None:
    """One frame, and what is counted for outstanding exchanges: nothing else is kept."""
    assert end._reader.pending_bytes <= LARGEST_FRAME
    assert not end._received
    assert not end.to_send
    assert end._windows._by_call.keys() <= end._exchanges[HOST].open.keys()


def check_exchanges(end: Connection, referee: Referee) -> None:
    assert end.state == referee.state
    for side, openers in ((HOST, NUMBERED), (PLUGIN, (Ask,))):
        outstanding = referee.outstanding(*openers)
        expected = {m.id: Deliver if type(m) is DeliverMany else type(m) for m in outstanding}
        assert end._exchanges[side].open == expected
    many = referee.outstanding(DeliverMany)
    assert end._unhandled == {m.id: referee.unhandled(m.id) for m in many}


def check_streams(end: Connection, referee: Referee) -> None:
    for call in referee.outstanding(Call):
        for stream in (0, 1, 2):
            sizes = referee.untaken(call.id, stream)
            assert len(sizes) <= BOUNDS.items
            assert sum(sizes) <= BOUNDS.stream_bytes or len(sizes) == 1
            room = referee.has_room(sizes, 9)
            assert room is (
                end.may_feed(call.id, stream, 9) if stream else end.may_yield(call.id, 9)
            )

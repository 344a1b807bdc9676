from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_STREAM_BYTES, MAX_STREAM_ITEMS
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Confine,
    Confined,
    Deliver,
    Feed,
    FeedCredit,
    FeedEnd,
    FeedStop,
    Load,
    Progress,
    Ready,
    Result,
    Withdraw,
    Yield,
    YieldCredit,
)
from plugin_sdk.wire.streams import Window


def carry(sender: Connection, receiver: Connection, *messages: Message) -> list[Message]:
    for message in messages:
        sender.send(message)
    receiver.receive_data(sender.data_to_send())
    return receiver.events_received()


@pytest.fixture
def pair() -> tuple[Connection, Connection]:
    """Both ends of a session in which call 1 is outstanding."""
    host, plugin = Connection(HOST), Connection(PLUGIN)
    carry(host, plugin, Confine(1, 1))
    carry(plugin, host, Confined(1, 1))
    carry(host, plugin, Load())
    carry(plugin, host, Ready())
    carry(host, plugin, Call(1, "read", 0))
    return host, plugin


def forged(*messages: Message) -> bytes:
    return b"".join(build_frame(m.header(), m.payload, 8_000_000) for m in messages)


def test_a_whole_stream(pair: tuple[Connection, Connection]) -> None:
    host, plugin = pair
    items: list[Message] = [Yield(1, payload=b"a"), Yield(1, payload=b"b")]
    assert carry(plugin, host, *items) == items
    assert carry(host, plugin, YieldCredit(1, 2)) == [YieldCredit(1, 2)]
    assert carry(plugin, host, Yield(1), Progress(1, 3, 3), Result(1))[-1] == Result(1)
    assert not host.is_open(1)
    with pytest.raises(LocalProtocolError, match="Yield is of 1, which is not outstanding"):
        plugin.send(Yield(1))


def test_a_fed_stream(pair: tuple[Connection, Connection]) -> None:
    host, plugin = pair
    carry(host, plugin, Feed(1, 1, payload=b"a"), Feed(1, 2, payload=b"b"), FeedEnd(1, 1, True))
    with pytest.raises(LocalProtocolError, match="after the end of a stream of 1"):
        host.send(Feed(1, 1))
    assert carry(plugin, host, FeedCredit(1, 2, 1), FeedStop(1, 2))
    with pytest.raises(LocalProtocolError, match="for more than there was"):
        plugin.send(FeedCredit(1, 2, 1))


@pytest.mark.parametrize(
    ("told", "messages"),
    [
        ("beyond its credit", [Yield(1)] * (MAX_STREAM_ITEMS + 1)),
        ("beyond its credit", [Yield(1, payload=bytes(MAX_STREAM_BYTES)), Yield(1, payload=b"x")]),
        ("Yield is of 2, which is not outstanding", [Yield(2)]),
        ("for more than there was", [FeedCredit(1, 1, 1)]),
        ("FeedCredit is of 9, which", [FeedCredit(9, 1, 1)]),
        ("FeedStop of 1 comes twice", [FeedStop(1, 1), FeedStop(1, 1)]),
        ("Progress is of 2, which", [Progress(2, 1, 1)]),
        ("Yield is of 1, which", [Result(1), Yield(1)]),
        ("Withdraw is of 1, which", [Withdraw(1)]),
        ("YieldCredit is not for the peer", [YieldCredit(1, 1)]),
    ],
)
def test_what_a_hostile_plugin_says_of_streams(
    pair: tuple[Connection, Connection], told: str, messages: list[Message]
) -> None:
    with pytest.raises(RemoteProtocolError, match=told):
        pair[0].receive_data(forged(*messages))


def test_one_item_alone_may_be_large(pair: tuple[Connection, Connection]) -> None:
    host, plugin = pair
    large = Yield(1, payload=bytes(3 * MAX_STREAM_BYTES))
    assert plugin.may_yield(1, len(large.payload))
    assert carry(plugin, host, large) == [large]
    assert not plugin.may_yield(1, 1)
    carry(host, plugin, YieldCredit(1, 1))
    assert plugin.may_yield(1, 1)


def test_what_crosses_an_answer_is_dropped_and_counted(
    pair: tuple[Connection, Connection],
) -> None:
    host, plugin = pair
    carry(plugin, host, Yield(1))
    plugin.send(Result(1))
    late: list[Message] = [Cancel(1, False), YieldCredit(1, 1), Feed(1, 1), FeedEnd(1, 1, True)]
    assert carry(host, plugin, *late) == []
    assert plugin.crossed == len(late)
    carry(plugin, host, Ask(1, "prices.latest", 0))
    host.send(Answer(1, True))
    assert carry(plugin, host, Withdraw(1)) == []
    assert host.crossed == 1


def test_what_was_never_called_cannot_have_crossed(pair: tuple[Connection, Connection]) -> None:
    with pytest.raises(RemoteProtocolError, match="Cancel is of 7"):
        pair[1].receive_data(forged(Cancel(7, False)))


def test_asking_for_room_keeps_nothing(pair: tuple[Connection, Connection]) -> None:
    """A writer may ask on after its call was answered: for as long as the session lasts."""
    host, plugin = pair
    carry(plugin, host, Yield(1, payload=b"a"), Result(1))
    for call in range(1, 100):
        assert plugin.may_yield(call, 1)
        assert host.may_feed(call, 1, 1)
    assert not host._windows._by_call
    assert not plugin._windows._by_call


def test_a_breach_is_told_once_and_nothing_is_held(pair: tuple[Connection, Connection]) -> None:
    host, _ = pair
    with pytest.raises(RemoteProtocolError, match="YieldCredit is not for the peer"):
        host.receive_data(forged(Yield(1), YieldCredit(1, 1)) + bytes(100_000))
    assert host.events_received() == [Yield(1)]
    assert host._reader.pending_bytes == 0
    host.receive_eof()


def test_what_is_said_of_a_call_is_not_said_of_an_event(
    pair: tuple[Connection, Connection],
) -> None:
    host, plugin = pair
    carry(host, plugin, Deliver(2, "data_processed"))
    for message in (Yield(2), Progress(2, 1, 1), FeedStop(2, 1)):
        with pytest.raises(LocalProtocolError, match="of 2, which is not outstanding"):
            plugin.send(message)
    with pytest.raises(LocalProtocolError, match="of 2, which is not outstanding"):
        host.send(Cancel(2, False))


@given(st.lists(st.integers(0, MAX_STREAM_BYTES * 2) | st.just(-1), max_size=200))
def test_a_window_is_never_fuller_than_its_bounds(steps: list[int]) -> None:
    """Sizes are sent where there is room; -1 takes one: the sum is bounded, or one item's."""
    window, waiting = Window(), list[int]()
    for step in steps:
        if step < 0:
            assert window.take(1) is bool(waiting)
            waiting = waiting[1:]
        elif window.has_room(step):
            window.add(step)
            waiting.append(step)
        assert len(window) == len(waiting) <= MAX_STREAM_ITEMS
        assert len(waiting) <= 1 or sum(waiting) <= MAX_STREAM_BYTES
        assert window.has_room(0) is (
            (len(waiting) < MAX_STREAM_ITEMS and sum(waiting) <= MAX_STREAM_BYTES) or not waiting
        )
    assert not window.take(len(waiting) + 1)

"""Leader and followers over real pipes: every answer reaches its caller, no write blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import MAX_STREAM_BYTES, MAX_STREAM_ITEMS
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Confine,
    Failure,
    Feed,
    FeedCredit,
    FeedStop,
    Progress,
    Publish,
    Result,
    Withdraw,
    Yield,
)
from sandbox_host.ipc.calls import Pending
from tests.support.channels import Line, in_thread, line


@pytest.fixture
def wire() -> Iterator[Line]:
    with line() as made:
        yield made


def calls_at(wire: Line, count: int) -> list[Call]:
    """Return the calls at the plugin's end, once there are so many."""
    found: list[Call] = []
    while len(found) < count:
        found += [message for message in wire.receive() if isinstance(message, Call)]
    return found


def test_wait_returns_the_answer(wire: Line) -> None:
    pending = wire.call(b"\x01")
    waiting = in_thread(wire.channel.wait, pending)
    (call,) = calls_at(wire, 1)
    assert call.payload == b"\x01"
    wire.answer(Result(call.id, payload=b"\x02"))
    waiting.join(10)
    assert pending.answer == Result(call.id, payload=b"\x02")
    assert wire.answered == [pending]
    assert wire.channel.outstanding() == []


def test_answers_in_any_order_to_many_waiting_threads(wire: Line) -> None:
    pendings = [wire.call() for _ in range(8)]
    threads = [in_thread(wire.channel.wait, pending) for pending in pendings]
    for call in reversed(calls_at(wire, 8)):
        wire.answer(Result(call.id, payload=bytes([call.id])))
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert all(p.answer == Result(p.id, payload=bytes([p.id])) for p in pendings)


def test_leader_that_is_done_passes_the_lead_on(wire: Line) -> None:
    first, second = wire.call(), wire.call()
    leading = in_thread(wire.channel.wait, first)
    time.sleep(0.01)  # only to make it likely that the first thread leads
    following = in_thread(wire.channel.wait, second)
    calls = calls_at(wire, 2)
    wire.answer(Result(calls[0].id))
    leading.join(10)
    assert not leading.is_alive()
    wire.answer(Result(calls[1].id))
    following.join(10)
    assert not following.is_alive()


def test_nobody_waits_so_the_keeper_is_asked(wire: Line) -> None:
    pending = wire.call()
    wire.channel.poll_briefly(pending)
    assert not pending.done()
    assert wire.watched
    (call,) = calls_at(wire, 1)
    wire.answer(Result(call.id))
    wire.channel.pump()
    assert pending.done()


def test_oldest_and_outstanding(wire: Line) -> None:
    assert wire.channel.oldest() is None
    pendings = [wire.call() for _ in range(3)]
    assert wire.channel.oldest() is pendings[0]
    assert wire.channel.outstanding() == pendings
    wire.answer(Failure(calls_at(wire, 3)[0].id, "exception"))
    wire.channel.pump()
    assert wire.channel.oldest() is pendings[1]


def test_publish_is_no_answer(wire: Line) -> None:
    pending = wire.call()
    calls_at(wire, 1)
    wire.answer(Publish("data_processed", payload=b"\x01"))
    wire.channel.pump()
    assert wire.messages == [Publish("data_processed", payload=b"\x01")]
    assert not pending.done()


# -- what is said of a call before its answer ---------------------------------------------------


def fed(wire: Line) -> Pending:
    """Return a call to which one item was fed, and which the plugin has."""
    pending = wire.call()
    assert wire.channel.send(Feed(pending.id, 1, payload=b"\x01"))
    calls_at(wire, 1)
    return pending


PARTS = {
    "yield": (Yield(1, payload=b"\x07"), 0),
    "credit": (FeedCredit(1, 1, 1), 0),
    "stop": (FeedStop(1, 1), 0),
    "progress": (Progress(1, 2, 3), 1),
}


@pytest.mark.parametrize(("part", "counted"), PARTS.values(), ids=PARTS)
def test_a_part_is_handed_on_and_wakes_who_waits(wire: Line, part: Message, counted: int) -> None:
    pending = fed(wire)
    woken = pending.register_waiter()
    wire.answer(part)
    wire.channel.pump()
    assert wire.parts == [(pending, part)]
    assert woken.is_set()
    assert not pending.done()
    assert (wire.messages, wire.answered) == ([], [])
    assert wire.channel.outstanding() == [pending]
    assert wire.pace.counted == counted  # credits bound the others


def test_waiting_for_a_part(wire: Line) -> None:
    pending = wire.call()
    calls_at(wire, 1)
    wire.channel.wait(pending, lambda: True)
    waiting = in_thread(wire.channel.wait, pending, lambda: bool(wire.parts))
    wire.answer(Yield(pending.id, payload=b"\x07"))
    waiting.join(10)
    assert not waiting.is_alive()
    assert not pending.done()


def test_parts_come_before_the_answer_and_in_their_order(wire: Line) -> None:
    pending = wire.call()
    calls_at(wire, 1)
    items = [Yield(pending.id, payload=bytes([number])) for number in range(5)]
    for message in (*items, Result(pending.id)):
        wire.answer(message)
    wire.channel.wait(pending)
    assert wire.parts == [(pending, item) for item in items]
    assert pending.answer == Result(pending.id)


def test_what_may_be_fed(wire: Line) -> None:
    pending = fed(wire)
    assert not wire.channel.may_feed(pending.id, 1, MAX_STREAM_BYTES)
    for _ in range(MAX_STREAM_ITEMS - 1):
        assert wire.channel.may_feed(pending.id, 1, 1)
        assert wire.channel.send(Feed(pending.id, 1, payload=b"\x01"))
    assert not wire.channel.may_feed(pending.id, 1, 1)
    wire.receive()
    wire.answer(FeedCredit(pending.id, 1, 2))
    wire.channel.pump()
    assert wire.channel.may_feed(pending.id, 1, 1)
    wire.answer(Result(pending.id))
    wire.channel.pump()
    assert wire.channel.may_feed(pending.id, 1, MAX_STREAM_BYTES)  # who feeds it finds out


def test_what_has_crossed_is_dropped_and_paced(wire: Line) -> None:
    for number in range(1, 6):
        wire.answer(Ask(number, "slow", 0))
    wire.channel.pump()
    assert wire.pace.counted == 5
    for number in range(1, 6):
        wire.channel.send(Answer(number, True))
        wire.answer(Withdraw(number))  # the answer is on its way
    wire.channel.pump()
    assert wire.pace.counted >= 10
    assert {type(message) for message in wire.messages} == {Ask}
    assert not wire.channel.broken


# -- the end -----------------------------------------------------------------------------------


def test_end_of_stream(wire: Line) -> None:
    pending = wire.call()
    wire.hang_up()
    wire.channel.pump()
    assert wire.broken == [None]
    assert wire.channel.broken
    assert not pending.done()
    late = Pending(99, "echo", 1.0, 0.0)
    assert wire.channel.send(Call(99, "echo", 0), late)
    wire.channel.close(lambda p: RuntimeError(p.operation))
    assert isinstance(pending.answer, RuntimeError)
    assert isinstance(late.answer, RuntimeError)
    assert not wire.channel.send(Call(100, "echo", 0), Pending(100, "echo", 1.0, 0.0))


def test_answer_before_the_end_of_the_stream_counts(wire: Line) -> None:
    pending = wire.call()
    (call,) = calls_at(wire, 1)
    wire.answer(Result(call.id))
    wire.hang_up()
    wire.channel.drain()
    wire.channel.close(lambda _: RuntimeError("lost"))
    assert pending.answer == Result(call.id)


def test_garbage_breaks_it_and_says_why(wire: Line) -> None:
    import os

    pending = wire.call()
    os.write(wire.from_plugin, b"\xff" * 100)
    wire.channel.pump()
    (violation,) = wire.broken
    assert isinstance(violation, RemoteProtocolError)
    assert not pending.done()
    wire.channel.pump()
    assert len(wire.broken) == 1


def test_messages_before_the_garbage_are_taken(wire: Line) -> None:
    import os

    pending = wire.call()
    (call,) = calls_at(wire, 1)
    wire.plugin.send(Result(call.id))
    os.write(wire.from_plugin, wire.plugin.data_to_send() + b"\xff" * 8)
    wire.channel.pump()
    assert pending.answer == Result(call.id)
    assert len(wire.broken) == 1


def test_our_own_mistakes_are_local_errors(wire: Line) -> None:
    with pytest.raises(LocalProtocolError):
        wire.channel.send(Confine(1, 1))
    with pytest.raises(LocalProtocolError):
        wire.channel.send(Call(1, "\x00", 0))
    assert not wire.channel.broken


def test_writes_never_block_and_arrive_whole_in_the_end(wire: Line) -> None:
    payload = bytes(range(256)) * 2_000
    pendings = [wire.call(payload) for _ in range(2)]  # a pipe takes 64 KiB
    assert wire.watched[-1] is True
    received: list[Call] = []
    while len(received) < 2:
        received += [m for m in wire.receive() if isinstance(m, Call)]
        wire.channel.pump()
    assert [call.payload for call in received] == [payload] * 2
    for pending in pendings:
        wire.answer(Result(pending.id))
    wire.channel.pump()
    assert all(pending.done() for pending in pendings)


def test_two_full_pipes_do_not_deadlock(wire: Line) -> None:
    """The plugin writes an answer larger than a pipe while the host writes a call of that size."""
    payload = bytes(500_000)
    first = wire.call()
    waiting = in_thread(wire.channel.wait, first)
    (call,) = calls_at(wire, 1)
    answering = in_thread(wire.answer, Result(call.id, payload=payload))
    second = wire.call(payload)
    waiting.join(10)
    answering.join(10)
    assert not waiting.is_alive()
    assert isinstance(first.answer, Result)
    assert not second.done()


def test_room_is_bounded() -> None:
    with line(max_unsent_bytes=100_000) as wire:
        assert wire.channel.has_room(1 << 30)  # nothing waits: any one message may be kept
        wire.call(bytes(140_000))
        assert wire.channel.has_room(1_000)
        assert not wire.channel.has_room(60_000)


def test_plugin_that_is_gone_does_not_break_a_writer(wire: Line) -> None:
    import os

    os.close(wire.to_plugin)
    wire.to_plugin = os.open(os.devnull, os.O_RDONLY)
    assert not wire.call(bytes(200_000)).done()


def test_bytes_are_counted(wire: Line) -> None:
    wire.call(bytes(100))
    (call,) = calls_at(wire, 1)
    wire.answer(Result(call.id, payload=bytes(1_000)))
    wire.channel.pump()
    assert 100 < wire.channel.bytes_out < 200
    assert 1_000 < wire.channel.bytes_in < 1_100


def test_close_ends_waiting_threads(wire: Line) -> None:
    pending = wire.call()
    waiting = in_thread(wire.channel.wait, pending)
    wire.hang_up()
    closing = in_thread(wire.channel.close, lambda _: RuntimeError("gone"))
    waiting.join(10)
    closing.join(10)
    assert not waiting.is_alive()
    assert not closing.is_alive()
    assert isinstance(pending.answer, RuntimeError)
    wire.channel.pump()
    wire.channel.poll_briefly(Pending(9, "x", 0.0, 0.0))

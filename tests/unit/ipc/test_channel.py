"""Leader and followers over real pipes: every answer reaches its caller, no write blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.messages import Call, Confine, Failure, Publish, Result
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

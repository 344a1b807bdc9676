from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugin_sdk.child.io import ChildChannel, flush_output
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Answer, Ask, Call, Deliver, Publish, Result
from plugin_sdk.wire.state import RUNNING
from tests.support.child_session import HostEnd, pipes


class Ends:
    """A channel and the host's end of it, both in the state in which calls are made."""

    def __init__(self, down: tuple[int, int], up: tuple[int, int]) -> None:
        self.channel = ChildChannel(down[0], up[1])
        self.host = HostEnd(up[0], down[1])
        self.channel._connection.state = self.host.connection.state = RUNNING


@pytest.fixture
def ends() -> Iterator[Ends]:
    with pipes() as (down, up):
        yield Ends(down, up)


def test_messages_come_one_by_one_and_in_order(ends: Ends) -> None:
    calls: list[Message] = [Call(1, "a", 0), Call(2, "b", 0, payload=b"x" * 1000)]
    for call in calls:
        ends.host.send(call)
    assert [ends.channel.receive(), ends.channel.receive()] == calls


def test_it_waits_for_what_comes_later(ends: Ends) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ends.channel.receive)
        # More than one wait: the second half comes only after the first was read.
        ends.host.connection.send(Call(1, "a", 0, payload=b"x" * 100_000))
        data = ends.host.connection.data_to_send()
        os.write(ends.host.send_fd, data[:20])
        os.write(ends.host.send_fd, data[20:])
        assert waiting.result(20) == Call(1, "a", 0, payload=b"x" * 100_000)


def test_it_blocks_in_the_end_instead_of_polling_for_ever(ends: Ends) -> None:
    states: list[bool] = []
    read = os.read

    def spy(descriptor: int, size: int) -> bytes:
        states.append(os.get_blocking(descriptor))
        if states[-1]:
            ends.host.send(Call(1, "a", 0))
        return read(descriptor, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plugin_sdk.child.io.os.read", spy)
        assert ends.channel.receive() == Call(1, "a", 0)
    assert states[-1] is True
    assert not any(states[:-1])
    assert os.get_blocking(ends.channel._in_fd) is False


def test_the_end_of_the_stream_is_none(ends: Ends) -> None:
    os.close(ends.host.send_fd)
    assert ends.channel.receive() is None


def test_a_host_that_dies_inside_a_frame_has_just_ended(ends: Ends) -> None:
    os.write(ends.host.send_fd, b"\0\0\0\x09\0\0")
    os.close(ends.host.send_fd)
    assert ends.channel.receive() is None


def test_nonsense_from_the_host_is_its_fault(ends: Ends) -> None:
    os.write(ends.host.send_fd, b"\xff" * 8)
    with pytest.raises(RemoteProtocolError):
        ends.channel.receive()


def test_an_answer_larger_than_the_pipe_is_written_whole(ends: Ends) -> None:
    ends.host.send(Call(1, "a", 0))
    ends.channel.receive()
    size = 4 * fcntl.fcntl(ends.host.receive_fd, fcntl.F_GETPIPE_SZ)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(ends.channel.send, Result(1, payload=b"x" * size))
        assert ends.host.receive() == Result(1, payload=b"x" * size)
        sending.result(20)


def test_threads_do_not_tear_each_others_frames(ends: Ends) -> None:
    per_thread, threads = 50, 4

    def publish(thread: int) -> None:
        for _ in range(per_thread):
            ends.channel.send(Publish("model_updated", payload=bytes([thread]) * 3000))

    with ThreadPoolExecutor(threads) as pool:
        publishing = [pool.submit(publish, thread) for thread in range(threads)]
        received = [ends.host.receive() for _ in range(threads * per_thread)]
        for each in publishing:
            each.result(20)
    for thread in range(threads):
        assert (
            received.count(Publish("model_updated", payload=bytes([thread]) * 3000)) == per_thread
        )


def test_a_send_inside_a_send_is_written_after_it(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a signal handler or a finalizer of the plugin may do.
    write = os.write
    inner = [Publish("inner")]

    def reenter(descriptor: int, data: bytes) -> int:
        if inner:
            ends.channel.send(inner.pop())
            return write(descriptor, data[:3])
        return write(descriptor, data)

    monkeypatch.setattr("plugin_sdk.child.io.os.write", reenter)
    ends.channel.send(Publish("outer"))
    monkeypatch.undo()
    assert [ends.host.receive(), ends.host.receive()] == [Publish("outer"), Publish("inner")]


def test_a_send_that_is_refused_leaves_the_channel_usable(ends: Ends) -> None:
    with pytest.raises(LocalProtocolError):
        ends.channel.send(Result(9))
    ends.channel.send(Publish("model_updated"))
    assert ends.host.receive() == Publish("model_updated")


def test_a_host_that_is_gone_is_an_os_error(ends: Ends) -> None:
    os.close(ends.host.receive_fd)
    with pytest.raises(BrokenPipeError):
        ends.channel.send(Publish("model_updated"))


def test_flushing_survives_whatever_stands_for_the_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hostile:
        flushed = 0

        def flush(self) -> None:
            Hostile.flushed += 1
            raise SystemExit

    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", Hostile())
    flush_output()
    assert Hostile.flushed == 1


def test_asking_takes_its_answer_and_leaves_the_rest_in_order(ends: Ends) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ends.channel.ask, "prices.latest", b"x")
        assert ends.host.receive() == Ask(1, "prices.latest", 0, payload=b"x")
        later: list[Message] = [Call(1, "a", 0), Deliver(2, "b")]
        ends.host.send(later[0])
        ends.host.send(Answer(1, True, payload=b"y"))
        ends.host.send(later[1])
        assert asked.result(20) == Answer(1, True, payload=b"y")
    assert [ends.channel.receive(), ends.channel.receive()] == later


def test_a_thread_may_ask_while_the_loop_reads_and_while_it_does_not(ends: Ends) -> None:
    with ThreadPoolExecutor(4) as pool:
        loop = pool.submit(ends.channel.receive)
        asked = [pool.submit(ends.channel.ask, name, b"") for name in "ab"]
        names = {}
        for _ in asked:
            message = ends.host.receive()
            assert isinstance(message, Ask)
            names[message.service] = message.id
        ends.host.send(Answer(names["b"], True, payload=b"b"))
        assert asked[1].result(20).payload == b"b"  # type: ignore[union-attr]  # it is there
        ends.host.send(Call(1, "op", 0))
        assert loop.result(20) == Call(1, "op", 0)
        # The loop is at work now: who waits reads for itself.
        ends.host.send(Answer(names["a"], False, payload=b"a"))
        assert asked[0].result(20) == Answer(names["a"], False, payload=b"a")


def test_asking_a_host_that_is_gone(ends: Ends) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ends.channel.ask, "a", b"")
        assert isinstance(ends.host.receive(), Ask)
        os.close(ends.host.send_fd)
        assert asked.result(20) is None
        # The descriptor is closed by the fixture once more.
        os.dup2(ends.host.receive_fd, ends.host.send_fd)


def test_an_answer_that_nobody_waits_for_any_more_is_dropped(ends: Ends) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ends.channel, "_await_data", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ends.channel.ask("a", b"")
    ends.host.receive()
    ends.host.send(Answer(1, True))
    ends.host.send(Call(1, "op", 0))
    assert ends.channel.receive() == Call(1, "op", 0)


def test_a_deadline_cannot_come_between_taking_the_turn_and_knowing_it(ends: Ends) -> None:
    class Turn:
        """A lock; when it has been acquired, a signal handler has its say, as after any C call."""

        def __init__(self) -> None:
            self.held = False

        def acquire(self, *, blocking: bool) -> bool:
            assert not blocking
            self.held = True
            if not ends.channel.sending:
                raise TimeoutError
            return True

        def release(self) -> None:
            self.held = False

    turn = ends.channel._turn = Turn()  # type: ignore[assignment]  # as much of one as is used
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ends.channel.ask, "service", b"\x90")
        assert ends.host.receive() == Ask(1, "service", 0, payload=b"\x90")
        ends.host.send(Answer(1, True, payload=b"\x01"))
        assert waiting.result(20) == Answer(1, True, payload=b"\x01")
    assert (turn.held, ends.channel._taking) == (False, set())


def test_what_is_postponed_comes_after_the_frame(ends: Ends) -> None:
    sent: list[bool] = []
    write = os.write

    def late(descriptor: int, data: bytes) -> int:
        assert ends.channel.sending
        ends.channel.postpone(lambda: sent.append(ends.channel.sending))
        assert not sent
        return write(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", late)
        ends.channel.send(Publish("event", payload=b"\x01"))
    assert sent == [False]
    assert ends.host.receive() == Publish("event", payload=b"\x01")


def test_what_is_postponed_by_one_thread_is_not_anothers(ends: Ends) -> None:
    called: list[int] = []
    ends.channel.postpone(lambda: called.append(1))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ends.channel.send, Publish("event", payload=b"\x01")).result(20)
    assert not called
    ends.channel.send(Publish("event", payload=b"\x01"))
    assert called == [1]

"""An event loop that reads a plugin's pipe itself, and leaves it when nobody waits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from plugin_sdk.wire.messages import Call, Result
from sandbox_host.runtime.loop_reader import finished
from tests.support.channels import Line, in_thread, line


@pytest.fixture
def wire() -> Iterator[Line]:
    with line() as made:
        yield made


def answer_all(wire: Line) -> None:
    for call in wire.receive():
        assert isinstance(call, Call)
        wire.answer(Result(call.id, payload=b"\x01"))


def test_the_loop_reads_itself_and_asks_no_keeper(wire: Line) -> None:
    async def talk() -> None:
        pendings = [wire.call() for _ in range(5)]
        asyncio.get_running_loop().call_later(0.01, answer_all, wire)
        await asyncio.gather(*(finished(pending, wire.channel) for pending in pendings))
        assert all(pending.done() for pending in pendings)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(talk())
    assert wire.watched == []
    assert wire.channel.reader is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_is_cancelled_leaves_the_others_waiting(wire: Line) -> None:
    async def talk() -> None:
        first, second = wire.call(), wire.call()
        waiting = [asyncio.ensure_future(finished(p, wire.channel)) for p in (first, second)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        asyncio.get_running_loop().call_later(0.01, answer_all, wire)
        await asyncio.wait(waiting)
        assert waiting[0].cancelled()
        assert second.done()

    asyncio.run(talk())
    assert wire.channel.reader is None


def test_where_a_thread_reads_the_keeper_is_asked_for_the_rest(wire: Line) -> None:
    slow, quick = wire.call(), wire.call()
    thread = in_thread(wire.channel.wait, slow)

    async def talk() -> None:
        asyncio.get_running_loop().call_later(0.01, answer_all, wire)
        await finished(quick, wire.channel)

    asyncio.run(asyncio.wait_for(talk(), 20))
    thread.join(20)
    assert slow.done()
    assert quick.done()


def test_the_end_of_the_stream_is_not_watched_for_ever(wire: Line) -> None:
    async def talk() -> None:
        pending = wire.call()
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, os.close, wire.from_plugin)
        loop.call_later(0.05, lambda: pending.finish(RuntimeError("ended"), 0.0))
        await finished(pending, wire.channel)

    asyncio.run(talk())
    assert wire.broken == [None]
    wire.from_plugin = os.open("/dev/null", os.O_WRONLY)


def test_who_relied_on_a_loop_that_leaves_has_the_keeper(wire: Line) -> None:
    first, second = wire.call(), wire.call()
    calls: list[Call] = []

    def answer(index: int) -> None:
        calls.extend(call for call in wire.receive() if isinstance(call, Call))
        wire.answer(Result(calls[index].id, payload=b"\x01"))

    async def talk() -> None:
        waiting = asyncio.ensure_future(finished(first, wire.channel))
        await asyncio.sleep(0)
        thread = in_thread(lambda: asyncio.run(finished(second, wire.channel)))
        await asyncio.sleep(0.05)
        assert wire.watched == []  # this loop reads for the other as well
        answer(0)
        await waiting
        assert wire.watched, "nobody would read for the other"
        answer(1)
        assert wire.channel.pump()
        await asyncio.to_thread(thread.join, 20)

    asyncio.run(asyncio.wait_for(talk(), 30))
    assert second.done()

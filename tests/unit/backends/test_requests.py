"""Requests to a nursery: answers in any order, to threads that wait at the same time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.nursery import MAX_PACKET_BYTES
from sandbox_host.backends.linux.requests import Requests

Pair = tuple[Requests, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Requests(ours), theirs


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def received(theirs: socket.socket) -> Any:
    return unpack(theirs.recv(MAX_PACKET_BYTES))


def answer(theirs: socket.socket, number: int, ends: list[int] | None = None) -> None:
    socket.send_fds(theirs, [pack({"id": number, "error": ""})], ends or [])


def test_answers_in_another_order_reach_who_asked(pair: Pair) -> None:
    requests, theirs = pair

    def ask() -> bool:
        number = requests.send({"x": 1}, [], soon())
        return requests.answer(number, soon())[1]["id"] == number

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask) for _ in range(8)]
        numbers = [received(theirs)["id"] for _ in range(8)]
        for number in reversed(numbers):
            answer(theirs, number)
        assert all(one.result(10) for one in asked)
    assert requests.count == 8


def test_descriptors_come_with_their_answer(pair: Pair) -> None:
    requests, theirs = pair
    first, second = (requests.send({}, [], soon()) for _ in range(2))
    read_end, write_end = os.pipe()
    answer(theirs, second, [write_end])
    answer(theirs, first)
    os.close(write_end)
    assert requests.answer(first, soon())[0] == []
    (mine,) = requests.answer(second, soon())[0]
    os.close(mine)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_what_comes_too_late_is_closed(pair: Pair) -> None:
    requests, theirs = pair
    late = requests.send({}, [], soon())
    with pytest.raises(TimeoutError):
        requests.answer(late, soon(0.0))
    read_end, write_end = os.pipe()
    answer(theirs, late, [write_end])
    os.close(write_end)
    next_one = requests.send({}, [], soon())
    answer(theirs, next_one)
    requests.answer(next_one, soon())
    assert os.read(read_end, 1) == b""  # nobody holds the other end
    os.close(read_end)


def test_who_is_late_hands_the_reading_on(pair: Pair) -> None:
    requests, theirs = pair
    one, two = (requests.send({}, [], soon()) for _ in range(2))
    done = threading.Event()

    def wait_long() -> None:
        requests.answer(two, soon())
        done.set()

    with ThreadPoolExecutor(2) as pool:
        short = pool.submit(requests.answer, one, soon(0.05))
        pool.submit(wait_long)
        with pytest.raises(TimeoutError):
            short.result(10)
        answer(theirs, two)
        assert done.wait(10)


@pytest.mark.parametrize("how", ["shutdown", "close"])
def test_end_of_the_nursery(pair: Pair, how: str) -> None:
    requests, theirs = pair
    number = requests.send({}, [], soon())
    theirs.close() if how == "close" else theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionError):
        requests.answer(number, soon())
    with pytest.raises(ConnectionError):
        requests.send({}, [], soon())


def test_nonsense(pair: Pair) -> None:
    requests, theirs = pair
    number = requests.send({}, [], soon())
    theirs.send(b"\xc1")
    with pytest.raises(PayloadError):
        requests.answer(number, soon())


def test_no_room_for_a_request(pair: Pair) -> None:
    requests, _ = pair

    def fill() -> None:
        for _ in range(100_000):
            requests.send({"x": b"x" * 30_000}, [], soon(0.01))

    with pytest.raises(TimeoutError):
        fill()

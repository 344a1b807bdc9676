"""Frames over a socket: bounded before anything is allocated, each within one deadline."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.wire.errors import PayloadTooLargeError
from sandbox_host.model import MIB
from sandbox_host.service import frames

LATE = 20.0
SOON = 0.05


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with contextlib.ExitStack() as stack:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        yield tuple(stack.enter_context(end) for end in ends)  # type: ignore[misc]


@pytest.mark.parametrize(
    "value", [None, {"a": [1, b"\0", "é"]}, "x" * 900_000], ids=["null", "nested", "long"]
)
def test_what_is_sent_is_received(pair: tuple[socket.socket, socket.socket], value: Any) -> None:
    one, other = pair
    sender = threading.Thread(target=frames.send, args=(one, value, frames.REQUEST, LATE))
    sender.start()
    assert frames.receive(other, frames.REQUEST, LATE) == value
    sender.join()


def test_a_length_is_refused_before_memory_is_taken(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, other = pair
    one.sendall(struct.pack(">I", 2**32 - 1))
    with pytest.raises(frames.FrameError, match="4294967295 bytes"):
        frames.receive(other, frames.REQUEST, LATE)


def test_what_is_too_large_is_not_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    with pytest.raises(PayloadTooLargeError):
        frames.send(one, "x" * (MIB + 1), frames.REQUEST, LATE)
    assert not frames.has_left(other)


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x05abc"], ids=repr)
def test_who_is_silent_runs_out_of_time(
    pair: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    one, other = pair
    one.sendall(sent)
    with pytest.raises(frames.FrameError, match="too long"):
        frames.receive(other, frames.REQUEST, SOON)


def test_who_does_not_read_runs_out_of_time(pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair

    def send_much() -> None:
        for _ in range(100):
            frames.send(one, "x" * 500_000, frames.REQUEST, SOON)

    with pytest.raises(frames.FrameError, match="too long"):
        send_much()


def test_an_end_between_frames_is_told_from_one_within(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, other = pair
    one.sendall(b"\0\0")
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(frames.FrameError, match="in the middle"):
        frames.receive(other, frames.REQUEST, LATE)
    with pytest.raises(frames.Closed):
        frames.receive(other, frames.REQUEST, LATE)
    assert frames.has_left(other)


@given(st.binary(max_size=64))
def test_whatever_comes_is_a_value_or_refused(body: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(struct.pack(">I", len(body)) + body)
        with contextlib.suppress(frames.FrameError):
            frames.receive(other, frames.REQUEST, LATE)

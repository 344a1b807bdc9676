"""What the pipe does not take is kept, in order and up to a bound."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandbox_host.ipc.outbox import Outbox


@pytest.fixture
def ends() -> Iterator[list[int]]:
    made = list(os.pipe())
    for end in made:
        os.set_blocking(end, False)
    yield made
    for end in made:
        os.close(end)


def read_all(end: int) -> bytes:
    found = b""
    while True:
        try:
            found += os.read(end, 1 << 20)
        except BlockingIOError:
            return found


def test_what_fits_is_written_at_once(ends: list[int]) -> None:
    outbox = Outbox(ends[1], 100)
    outbox.write(b"hello")
    outbox.write(b"")
    assert not outbox
    assert read_all(ends[0]) == b"hello"


def test_rest_is_kept_and_written_in_order(ends: list[int]) -> None:
    outbox = Outbox(ends[1], 1 << 20)
    pieces = [bytes([number]) * 50_000 for number in range(8)]
    for piece in pieces:
        outbox.write(piece)
    assert outbox
    found = b""
    while len(found) < 400_000:
        found += read_all(ends[0])
        outbox.flush()
    assert found == b"".join(pieces)
    assert not outbox


def test_room(ends: list[int]) -> None:
    outbox = Outbox(ends[1], 1_000)
    assert outbox.has_room(1 << 30)
    outbox.write(bytes((1 << 16) + 500))
    assert outbox.has_room(500)
    assert not outbox.has_room(501)
    read_all(ends[0])
    outbox.flush()
    assert outbox.has_room(1 << 30)


def test_clear(ends: list[int]) -> None:
    outbox = Outbox(ends[1], 1_000)
    outbox.write(bytes(1 << 17))
    outbox.clear()
    assert not outbox
    assert outbox.has_room(1 << 30)


def test_reader_that_is_gone(ends: list[int]) -> None:
    os.close(ends[0])
    ends[0] = os.open(os.devnull, os.O_RDONLY)
    outbox = Outbox(ends[1], 1_000)
    outbox.write(b"to nobody")
    assert not outbox

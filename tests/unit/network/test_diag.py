"""What the kernel tells of connections: its word taken apart, and asked for."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.network import diag, meter
from sandbox_host.network.diag import Passed
from tests.support.traces import eventually

here = pytest.mark.skipif(not meter.is_available(), reason="the kernel does not tell")
INFO, OTHER = 2, 8


def message(cookie: int, *attributes: tuple[int, bytes], kind: int = 20) -> bytes:
    body = bytes(44) + struct.pack("=Q", cookie) + bytes(20)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def info(sent: int, again: int, received: int) -> bytes:
    return bytes(128) + struct.pack("=Q", received) + bytes(64) + struct.pack("=QQ", sent, again)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        with one, other:
            yield one, other


def test_what_was_sent_again_is_counted_once() -> None:
    told = dict(diag.parse(message(7, (OTHER, b"xyz"), (INFO, info(1_500, 500, 9)))))
    assert told == {7: Passed(1_000, 9)}


def test_several_in_one_packet() -> None:
    two = message(1, (INFO, info(1, 0, 2))) + message(2, (INFO, info(3, 0, 4)))
    assert dict(diag.parse(two)) == {1: Passed(1, 2), 2: Passed(3, 4)}


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(16),
        message(7),
        message(7, (OTHER, b"x")),
        message(7, (INFO, b"of an old kernel")),
        message(7, (INFO, info(1, 0, 1)), kind=3),
        message(7, (INFO, info(1, 0, 1)))[:100],
        message(7)[:-1] + b"\1",
    ],
    ids=["nothing", "zeros", "remains", "other", "old", "done", "cut", "odd"],
)
def test_nothing_is_made_of_what_says_nothing(packet: bytes) -> None:
    assert list(diag.parse(packet)) == []


def test_a_refusal_is_raised() -> None:
    packet = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -errno.ENOENT) + bytes(16)
    with pytest.raises(FileNotFoundError):
        list(diag.parse(packet))
    agreed = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, 0) + bytes(16)
    assert list(diag.parse(agreed)) == []


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_apart(packet: bytes) -> None:
    try:
        told = list(diag.parse(packet))
    except OSError:
        return
    assert all(passed.sent >= 0 and passed.received >= 0 for _, passed in told)


@here
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_an_open_connection_is_found(family: socket.AddressFamily) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    asker = diag.Asker()
    with server, socket.create_connection(server.getsockname()[:2]) as made:
        accepted, _ = server.accept()
        with accepted:
            identity = diag.identify(made)
            assert asker.passed(identity) == Passed()
            made.sendall(bytes(1_000))
            accepted.sendall(bytes(2_000))
            assert eventually(lambda: asker.passed(identity) == Passed(1_000, 2_000))
    # Whatever number its descriptor had, and whoever has its port now.
    assert eventually(lambda: asker.passed(identity) is None)
    asker.close()


@here
def test_what_is_no_connection_has_no_identity() -> None:
    with socket.socket() as made, pytest.raises(OSError, match=r"not connected"):
        diag.identify(made)


@here
@pytest.mark.parametrize("others", [0, 3, 254, 300], ids=["alone", "few", "most", "too-many"])
def test_ends_of_those_attended_to_are_told(
    pair: tuple[socket.socket, socket.socket], others: int
) -> None:
    one, other = pair
    mine, theirs = diag.identify(one).cookie, diag.identify(other).cookie
    told: dict[int, Passed] = {}

    def hear() -> bool:
        with contextlib.suppress(BlockingIOError):
            told.update(diag.parse(listener.recv(32_768)))
        return mine in told

    with diag.listen() as listener:
        diag.attend(listener, [mine, *(theirs + 1_000_000 + number for number in range(others))])
        other.sendall(bytes(500))
        one.sendall(bytes(100))
        other.recv(100)
        other.close()
        one.recv(1_000)
        one.close()
        assert eventually(hear)
    assert told[mine].sent == 100
    assert told[mine].received in {500, 501}
    if others <= 255:
        assert theirs not in told

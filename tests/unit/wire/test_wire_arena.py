"""Memory that two processes share: what is put there is taken before anything is put over it."""

from __future__ import annotations

import array
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from plugin_sdk.wire.arena import COUNT_BYTES, Arena, arena_bytes, map_arena
from plugin_sdk.wire.codec import pack_in_parts, unpack
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import ELSEWHERE, FrameReader
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES, PREFIX_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Confine,
    Confined,
    Load,
    Publish,
    Ready,
    Result,
    Yield,
)
from plugin_sdk.wire.payloads import INLINE_BYTES, Parts, parts_of
from sandbox_host.backends.linux.arena import make_arena
from tests.support.wire_attacker import elsewhere

LARGE = bytes(range(256)) * 400
ARENA_BYTES = arena_bytes(MAX_PAYLOAD_BYTES)
HALF_BYTES = ARENA_BYTES // 2


class Both:
    """The two ends of a session in which call 1 is outstanding, and their arena."""

    def __init__(self, host: Arena, plugin: Arena) -> None:
        self.ends = {HOST: Connection(HOST), PLUGIN: Connection(PLUGIN)}
        self.ends[HOST].arena, self.ends[PLUGIN].arena = host, plugin
        for message in (Confine(1, 1), Confined(1, 1), Load(), Ready(), Call(1, "echo", 0)):
            self.carry(message)
        for end in self.ends.values():
            end.lend()

    def frame(self, message: Message) -> bytes:
        end = self.ends[message.sender]
        end.send(message)
        return end.data_to_send()

    def take(self, role: str, data: bytes) -> list[Message]:
        self.ends[role].receive_data(data)
        return self.ends[role].events_received()

    def carry(self, message: Message) -> list[Message]:
        return self.take(PLUGIN if message.sender == HOST else HOST, self.frame(message))


@contextmanager
def shared(limit: int) -> Iterator[tuple[Arena, Arena]]:
    descriptor, host = make_arena(limit)
    plugin = map_arena(descriptor, PLUGIN)
    os.close(descriptor)
    assert host is not None
    assert plugin is not None
    yield host, plugin
    host.close()
    plugin.close()


@pytest.fixture
def views() -> Iterator[tuple[Arena, Arena]]:
    with shared(MAX_PAYLOAD_BYTES) as found:
        yield found


@pytest.fixture
def both(views: tuple[Arena, Arena]) -> Both:
    return Both(*views)


@pytest.fixture
def wide() -> Iterator[Both]:
    """Return the same, where the host allows twice as much."""
    with shared(2 * MAX_PAYLOAD_BYTES) as found:
        both = Both(*found)
        for end in both.ends.values():
            end.allow(2 * MAX_PAYLOAD_BYTES)
        yield both


VALUES = {
    "bytes": LARGE,
    "in a list": [LARGE],
    "arguments": [[1, LARGE, "x"], {"rows": 2}],
    "keywords": [[], {"rows": LARGE, "then": [1.5, None]}],
    "two": [LARGE, LARGE[::-1]],
    "text": "x" * 200_000,
    "numbers": list(range(50_000)),
    "after much": [*range(500), LARGE],
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_pass_either_way_beside_the_pipe(both: Both, value: object) -> None:
    for message in (
        Call(2, "echo", 0, payload=pack_in_parts(value)),
        Result(1, payload=pack_in_parts(value)),
    ):
        frame = both.frame(message)
        assert len(frame) == PREFIX_BYTES + len(message.header())
        (came,) = both.take(PLUGIN if message.sender == HOST else HOST, frame)
        assert came == message
        assert unpack(came.payload) == value


def test_an_array_is_a_view_of_what_was_copied(both: Both) -> None:
    rows = array.array("d", range(10_000))
    (came,) = both.carry(Result(1, payload=pack_in_parts({"rows": memoryview(rows)})))
    parts = parts_of(came.payload)
    assert parts is not None
    value = unpack(came.payload)["rows"]
    assert value.obj is parts.found[2]
    assert (value.tolist(), value.readonly) == (rows.tolist(), True)


def test_bytes_are_the_very_object_that_was_copied(both: Both) -> None:
    (came,) = both.carry(Result(1, payload=pack_in_parts(LARGE)))
    parts = parts_of(came.payload)
    assert parts is not None
    assert unpack(came.payload) is parts.found[2]


def test_what_is_asked_for_comes_in_one_piece(both: Both) -> None:
    (came,) = both.carry(Ask(1, "store", 0, payload=pack_in_parts([["put", LARGE], {}])))
    assert type(came.payload) is bytes
    (came,) = both.carry(Answer(1, True, payload=pack_in_parts(LARGE)))
    assert unpack(came.payload) == LARGE


def test_what_was_not_taken_is_not_written_over(both: Both) -> None:
    first, second, third = (bytes([number]) * 100_000 for number in range(3))
    one = both.frame(Call(2, "echo", 0, payload=pack_in_parts(first)))
    two = both.frame(Call(3, "echo", 0, payload=pack_in_parts(second)))
    assert len(one) < 100
    assert len(two) > len(second), "the second has its payload in the pipe"
    came = both.take(PLUGIN, one + two)
    assert [unpack(message.payload) for message in came] == [first, second]
    three = both.frame(Call(4, "echo", 0, payload=pack_in_parts(third)))
    assert len(three) < 100
    assert unpack(both.take(PLUGIN, three)[0].payload) == third


def test_small_ones_and_those_that_hold_no_value_stay_in_the_pipe(both: Both) -> None:
    size = INLINE_BYTES
    assert len(both.frame(Call(2, "echo", 0, payload=bytes(size)))) > size
    assert len(both.frame(Publish("x", payload=bytes(2 * size)))) > size


def test_who_does_not_lend_takes_all_the_same(both: Both) -> None:
    both.ends[HOST]._lends = False
    frame = both.frame(Call(2, "echo", 0, payload=pack_in_parts(LARGE)))
    assert len(frame) > len(LARGE)
    assert unpack(both.take(PLUGIN, frame)[0].payload) == LARGE
    (came,) = both.carry(Result(1, payload=pack_in_parts(LARGE)))
    assert parts_of(came.payload) is not None


def test_without_an_arena_nothing_is_lent() -> None:
    end = Connection(HOST)
    end.lend()
    assert not end._lends


def test_the_limit_holds_before_anything_is_put(both: Both) -> None:
    with pytest.raises(LocalProtocolError):
        both.frame(Call(2, "echo", 0, payload=bytes(MAX_PAYLOAD_BYTES + 1)))
    with pytest.raises(LocalProtocolError):
        both.frame(Result(7, payload=bytes(100_000)))
    assert len(both.frame(Call(2, "echo", 0, payload=bytes(MAX_PAYLOAD_BYTES)))) < 100
    assert len(both.frame(Result(1, payload=bytes(100_000)))) < 100


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (elsewhere(Result(1), 0), "2147483648"),
        (elsewhere(Result(1), MAX_PAYLOAD_BYTES + 1), str(ELSEWHERE + MAX_PAYLOAD_BYTES + 1)),
        (elsewhere(Publish("x"), 1_000), "outside of its frame"),
        (elsewhere(Yield(2), 1_000), "not outstanding"),
        (elsewhere(Call(2, "x", 0), 1_000), "not for the peer"),
        (struct.pack(">II", 1, 5 | ELSEWHERE) + b"\x90", "outside of its frame"),
        (struct.pack(">II", 4, 5 | ELSEWHERE) + b"\x92\xcc\x07\x01", "outside of its frame"),
    ],
)
def test_breaches(both: Both, data: bytes, told: str) -> None:
    with pytest.raises(RemoteProtocolError, match=told):
        both.take(HOST, data)


def test_a_host_may_allow_more_for_calls_and_not_for_what_it_is_asked(wide: Both) -> None:
    size = MAX_PAYLOAD_BYTES + 1
    for sent in (Call(2, "echo", 0, payload=bytes(size)), Result(1, payload=bytes(2 * size - 2))):
        frame = wide.frame(sent)
        assert len(frame) < 100
        (came,) = wide.take(PLUGIN if sent.sender == HOST else HOST, frame)
        assert came == sent
    with pytest.raises(LocalProtocolError):
        wide.frame(Call(3, "echo", 0, payload=bytes(2 * size)))
    assert wide.carry(Call(3, "echo", 0, payload=b"x"))
    with pytest.raises(RemoteProtocolError, match="asked with more than"):
        wide.take(HOST, elsewhere(Ask(1, "x", 0), size))


def test_what_is_asked_with_in_the_pipe_has_the_same_limit(wide: Both) -> None:
    wide.ends[PLUGIN].arena = None
    with pytest.raises(RemoteProtocolError, match="asked with more than"):
        wide.carry(Ask(1, "x", 0, payload=bytes(MAX_PAYLOAD_BYTES + 1)))


def test_what_does_not_fit_into_the_arena_goes_through_the_pipe(both: Both) -> None:
    for end in both.ends.values():
        end.allow(MAX_PAYLOAD_BYTES + 1)
    sent = Result(1, payload=bytes(MAX_PAYLOAD_BYTES + 1))
    frame = both.frame(sent)
    assert len(frame) > MAX_PAYLOAD_BYTES
    assert both.take(HOST, frame) == [sent]
    with pytest.raises(RemoteProtocolError, match=str(MAX_PAYLOAD_BYTES + 1)):
        both.take(HOST, elsewhere(Yield(2), MAX_PAYLOAD_BYTES + 1))


def test_a_read_has_one_payload_in_the_arena_at_most(both: Both) -> None:
    """Else a few bytes each would have the host copy 8 MiB before it looks at any of them."""
    many = b"".join(elsewhere(Ask(number, "x", 0), MAX_PAYLOAD_BYTES) for number in range(1, 60))
    with pytest.raises(RemoteProtocolError, match="before the last was taken"):
        both.take(HOST, many)
    assert len(both.ends[HOST].events_received()) <= 1


def test_without_an_arena_it_is_a_length_beyond_its_limit() -> None:
    reader = FrameReader(MAX_PAYLOAD_BYTES)
    reader.feed(elsewhere(Result(1), 1))
    with pytest.raises(RemoteProtocolError, match="2147483649"):
        reader.next_frame()


def test_a_frame_in_pieces_takes_its_payload_once(both: Both) -> None:
    frame = both.frame(Result(1, payload=pack_in_parts(LARGE)))
    for byte in frame[:-1]:
        assert both.take(HOST, bytes([byte])) == []
    (came,) = both.take(HOST, frame[-1:])
    assert unpack(came.payload) == LARGE


def test_a_count_that_is_no_count_keeps_the_arena_unused(views: tuple[Arena, Arena]) -> None:
    host, plugin = views
    struct.pack_into("<Q", plugin._memory, HALF_BYTES, 2**64 - 1)
    assert not host.is_free()
    struct.pack_into("<Q", plugin._memory, HALF_BYTES, 0)
    assert host.is_free()


def test_what_changes_after_it_was_taken_does_not_change_what_was(
    views: tuple[Arena, Arena],
) -> None:
    host, plugin = views
    plugin.put(pack_in_parts(LARGE))
    payload = host.take(len(LARGE) + 5)
    plugin._memory[HALF_BYTES + COUNT_BYTES :] = bytes(ARENA_BYTES - HALF_BYTES - COUNT_BYTES)
    assert unpack(payload) == LARGE


@pytest.mark.parametrize("role", [HOST, PLUGIN])
def test_other_descriptors_are_no_arena(role: str) -> None:
    with open("/dev/null", "r+b") as null, open(__file__, "rb") as small:
        assert map_arena(null.fileno(), role) is None
        assert map_arena(small.fileno(), role) is None


def test_parts_are_as_good_as_their_bytes() -> None:
    parts = Parts((b"ab", memoryview(b"cd"), memoryview(array.array("H", [1]))))
    assert (len(parts), bytes(parts), parts) == (6, b"abcd\x01\x00", b"abcd\x01\x00")
    assert hash(parts) == hash(b"abcd\x01\x00")
    assert parts != b"abcd"
    assert parts != 3

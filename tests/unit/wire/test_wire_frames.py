from __future__ import annotations

import struct
import tracemalloc

import pytest

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import FrameReader, build_frame
from plugin_sdk.wire.limits import MAX_HEADER_BYTES

LIMIT = 100


def test_frames_come_out_as_they_went_in() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(build_frame(b"h", b"", LIMIT) + build_frame(b"header", b"payload", LIMIT))
    assert reader.next_frame() == (b"h", b"")
    assert reader.next_frame() == (b"header", b"payload")
    assert reader.next_frame() is None
    assert reader.pending_bytes == 0


def test_a_frame_is_complete_only_with_its_last_byte() -> None:
    reader = FrameReader(LIMIT)
    frame = build_frame(b"header", b"payload", LIMIT)
    for byte in frame[:-1]:
        reader.feed(bytes([byte]))
        assert reader.next_frame() is None
    assert reader.pending_bytes == len(frame) - 1
    reader.feed(frame[-1:])
    assert reader.next_frame() == (b"header", b"payload")


def test_what_was_handed_out_is_not_kept() -> None:
    reader = FrameReader(LIMIT)
    frame = build_frame(b"header", b"payload", LIMIT)
    for _ in range(100):
        reader.feed(frame + frame[:5])
        while reader.next_frame() is not None:
            continue
        reader.feed(frame[5:])
        assert reader.next_frame() is not None
        assert reader.next_frame() is None
        assert len(reader._buffer) == 0


@pytest.mark.parametrize(
    ("header", "payload"),
    [(0, 0), (MAX_HEADER_BYTES + 1, 0), (1, LIMIT + 1), (2**32 - 1, 0), (1, 2**32 - 1)],
)
def test_lengths_are_refused_before_their_bytes_arrive(header: int, payload: int) -> None:
    reader = FrameReader(LIMIT)
    reader.feed(struct.pack(">II", header, payload))
    with pytest.raises(RemoteProtocolError, match="allowed"):
        reader.next_frame()


def test_the_largest_lawful_frame_passes() -> None:
    reader = FrameReader(LIMIT)
    header, payload = b"h" * MAX_HEADER_BYTES, b"p" * LIMIT
    reader.feed(build_frame(header, payload, LIMIT))
    assert reader.next_frame() == (header, payload)


@pytest.mark.parametrize(
    ("header", "payload"),
    [(b"", b""), (b"h" * (MAX_HEADER_BYTES + 1), b""), (b"h", b"p" * (LIMIT + 1))],
)
def test_our_own_frames_keep_the_limits(header: bytes, payload: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        build_frame(header, payload, LIMIT)


LARGE = 1 << 20


@pytest.mark.parametrize("chunk", [1_000, 4_095, 4_096, 65_536, 3 * LARGE], ids=str)
def test_a_large_payload_comes_out_whole_and_what_follows_it_too(chunk: int) -> None:
    payload = bytes(range(256)) * (LARGE >> 8)
    stream = build_frame(b"large", payload, LARGE) + build_frame(b"small", b"x", LARGE)
    reader = FrameReader(LARGE)
    found: list[tuple[bytes, bytes]] = []
    fed = 0
    for start in range(0, len(stream), chunk):
        piece = stream[start : start + chunk]
        reader.feed(piece)
        fed += len(piece)
        assert reader.pending_bytes == fed - sum(8 + len(h) + len(p) for h, p in found)
        while (frame := reader.next_frame()) is not None:
            found.append(frame)
    assert found == [(b"large", payload), (b"small", b"x")]
    assert reader.pending_bytes == 0


def test_a_large_payload_is_copied_once() -> None:
    reader = FrameReader(4 * LARGE)
    stream = build_frame(b"large", bytes(4 * LARGE), 4 * LARGE)
    chunks = [stream[start : start + 65_536] for start in range(0, len(stream), 65_536)]
    tracemalloc.start()
    try:
        for chunk in chunks:
            reader.feed(chunk)
            frame = reader.next_frame()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame is not None
    assert peak < 4.6 * LARGE, "an eighth is set aside; the chunks were there before"


@pytest.mark.parametrize("piece", [1, 7, 4_097], ids=str)
def test_small_pieces_of_a_large_payload_take_no_more_than_their_bytes(piece: int) -> None:
    stream = build_frame(b"large", bytes(60_000), LARGE)[:-1]
    reader = FrameReader(LARGE)
    tracemalloc.start()
    try:
        for start in range(0, len(stream), piece):
            reader.feed(stream[start : start + piece])
            assert reader.next_frame() is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.pending_bytes == len(stream)
    assert held < 2 * len(stream) + 10_000


def test_a_declared_payload_takes_nothing_before_it_comes() -> None:
    reader = FrameReader(8 * LARGE)
    tracemalloc.start()
    try:
        reader.feed(struct.pack(">II", 1, 8 * LARGE) + b"h")
        assert reader.next_frame() is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000


@pytest.mark.parametrize("payload", [b"x" * 50, b"x" * 50_000], ids=["small", "large"])
def test_what_is_cleared_is_gone(payload: bytes) -> None:
    reader = FrameReader(LARGE)
    frame = build_frame(b"header", payload, LARGE)
    reader.feed(frame[:-1])
    assert reader.next_frame() is None
    reader.clear()
    assert reader.pending_bytes == 0
    reader.feed(frame)
    assert reader.next_frame() == (b"header", payload)


def test_a_read_that_is_one_frame_is_not_kept() -> None:
    reader = FrameReader(LIMIT)
    assert reader.only_frame(build_frame(b"header", b"payload", LIMIT)) == (b"header", b"payload")
    assert reader.pending_bytes == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        build_frame(b"h", b"p", LIMIT)[:-1],
        build_frame(b"h", b"p", LIMIT) + b"\x00",
        struct.pack(">II", 1, LIMIT + 1) + bytes(LIMIT + 2),
        struct.pack(">II", MAX_HEADER_BYTES + 1, 0) + bytes(MAX_HEADER_BYTES + 1),
    ],
    ids=["nothing", "no-header", "short", "more", "large-payload", "large-header"],
)
def test_what_is_not_one_lawful_frame_is_to_be_fed(data: bytes) -> None:
    assert FrameReader(LIMIT).only_frame(data) is None


def test_the_rest_of_a_frame_is_no_frame() -> None:
    reader = FrameReader(LIMIT)
    inner = build_frame(b"h", b"", LIMIT)
    frame = build_frame(b"header", inner, LIMIT)
    reader.feed(frame[: -len(inner)])
    assert reader.next_frame() is None
    assert reader.only_frame(inner) is None
    reader.feed(inner)
    assert reader.next_frame() == (b"header", inner)

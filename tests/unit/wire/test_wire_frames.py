from __future__ import annotations

import struct

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

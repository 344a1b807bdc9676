"""Any array comes back the same; any bytes instead are an array of their size, or refused."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import msgpack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plugin_sdk.wire import arrays
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.frames import FrameReader, build_frame

FORMATS = ["?", "b", "@B", "h", "H", "i", "I", "q", "Q", "f", "d"]
KINDS = [b"b1", b"i1", b"u1", b"i2", b"u2", b"i4", b"u4", b"i8", b"u8", b"f4", b"f8"]


@st.composite
def views(draw: st.DrawFn) -> memoryview:
    """Any memoryview with elements, strided ones among them."""
    form = draw(st.sampled_from(FORMATS))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(small))
    if form == "@B" and len(shape) > 1:
        form = "B"  # one row alone has to be told from bytes
    size = math.prod(shape) * struct.calcsize(form.strip("@"))
    data = draw(st.binary(min_size=size, max_size=size))
    if form == "?":
        data = bytes(byte & 1 for byte in data)
    view = memoryview(data).cast(form, shape)  # type: ignore[call-overload]
    step = draw(st.sampled_from([None, 2, -1]))
    return view[::step] if view.ndim == 1 and form != "@B" else view


def small(shape: list[int]) -> bool:
    return math.prod(shape) <= 128


def same(one: Any, other: Any) -> bool:
    if isinstance(one, memoryview):
        alike = (one.format, one.shape) == (other.format, other.shape)
        return alike and one.tobytes() == other.tobytes() and bool(other.readonly)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other and type(one) is type(other))


leaves = views() | st.integers(-5, 5) | st.binary(max_size=4) | st.just(bytes(20_000)) | st.none()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(value=values)
@settings(max_examples=150, deadline=None)
def test_any_array_comes_back_the_same_wherever_it_stands(value: Any) -> None:
    data = pack(value)
    back = unpack(data)
    assert same(value, back)
    assert pack(back) == data


headers = st.builds(
    lambda kind, dimensions, reserved, shape: (
        kind + bytes([dimensions]) + reserved + struct.pack(f"<{len(shape)}Q", *shape)
    ),
    st.sampled_from(KINDS) | st.binary(min_size=2, max_size=2),
    st.integers(0, 10),
    st.just(bytes(5)) | st.binary(min_size=5, max_size=5),
    st.lists(st.integers(0, 4) | st.integers(0, 2**64 - 1), max_size=9),
)
whole = views().map(lambda view: (arrays.header_of(view) or b"") + view.tobytes())
loose = st.builds(lambda head, rest: head + rest, headers, st.binary(max_size=40))
bodies = whole | loose | st.binary(max_size=60)


def checked(data: bytes) -> Any:
    """Return what is in a payload, or None where it is refused; nothing else may come of it."""
    try:
        return unpack(data)
    except PayloadError:
        return None


@given(body=bodies, code=st.sampled_from([1, 1, 1, 0, 2, 127]))
@example(body=b"u1\x03" + bytes(5) + struct.pack("<3Q", 2**63, 2, 1) + b"\0", code=1)
@example(body=b"f8\x02" + bytes(5) + struct.pack("<2Q", 0, 2**64 - 1), code=1)
@settings(max_examples=300, deadline=None)
def test_any_body_is_an_array_of_its_size_or_refused(body: bytes, code: int) -> None:
    found = checked(bytes(msgpack.packb(msgpack.ExtType(code, body))))
    if found is None:
        return
    assert code == arrays.CODE
    assert isinstance(found, memoryview)
    assert found.readonly
    assert found.nbytes == len(body) - arrays.HEAD_BYTES - 8 * body[2]
    assert found.tobytes() == body[len(body) - found.nbytes :]
    assert pack(found)


@given(view=views(), at=st.integers(0, 200), change=st.integers(0, 255), cut=st.integers(-3, 3))
@settings(max_examples=200, deadline=None)
def test_any_change_of_an_array_is_refused_or_an_array_of_its_size(
    view: memoryview, at: int, change: int, cut: int
) -> None:
    data = bytearray(pack([view]))
    data[at % len(data)] = change
    changed = bytes(data[:cut] if cut < 0 else data + bytes(cut))
    found = checked(changed)
    if found is None:
        return
    assert len(pack(found)) <= len(changed) + 8
    for one in found if isinstance(found, list) else ():
        assert getattr(one, "nbytes", 0) <= len(changed)


@given(
    first=st.sampled_from([b"\xc7", b"\xc8", b"\xc9", b"\xd4", b"\xd5", b"\xd6", b"\xd7", b"\xd8"]),
    rest=st.binary(max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_after_an_extension_type_raise_nothing_else(first: bytes, rest: bytes) -> None:
    for data in (first + rest, b"\x92" + first + rest, first + b"\x18\x01" + rest):
        checked(data)


@given(body=bodies, repeat=st.integers(1, 50), size=st.sampled_from([0, 0, 1, 2_000]))
@settings(max_examples=100, deadline=None)
def test_no_array_takes_more_memory_than_its_bytes_allow(
    body: bytes, repeat: int, size: int
) -> None:
    one = bytes(msgpack.packb(msgpack.ExtType(arrays.CODE, body + bytes(size))))
    data = b"\xdc" + struct.pack(">H", repeat) + one * repeat
    tracemalloc.start()
    try:
        checked(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(data) + 700 * repeat + 20_000


frames = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=30),
        st.integers(0, 40) | st.integers(4_000, 20_000),
    ),
    max_size=5,
)


@given(parts=frames, cuts=st.lists(st.integers(1, 9_000), min_size=1, max_size=12))
@settings(max_examples=120, deadline=None)
def test_frames_of_any_size_come_out_of_any_pieces(
    parts: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    sent = [(header, bytes(place % 251 for place in range(size))) for header, size in parts]
    stream = b"".join(build_frame(header, payload, 20_000) for header, payload in sent)
    reader = FrameReader(20_000)
    found: list[tuple[bytes, bytes]] = []
    start = turn = 0
    while start < len(stream):
        piece = stream[start : start + cuts[turn % len(cuts)]]
        start, turn = start + len(piece), turn + 1
        reader.feed(piece)
        while (frame := reader.next_frame()) is not None:
            found.append(frame)
        taken = sum(8 + len(header) + len(payload) for header, payload in found)
        assert reader.pending_bytes == start - taken
    assert found == sent
    assert all(type(part) is bytes for frame in found for part in frame)

"""Arrays on the wire, without numpy: this process has none. With it: `test_wire_numpy`."""

from __future__ import annotations

import array
import ctypes
import mmap
import struct
import sys
import tracemalloc
from typing import Any

import msgpack
import pytest

from plugin_sdk.wire import arrays
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import (
    EVENT,
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_DIMENSIONS,
    MAX_PAYLOAD_BYTES,
    METADATA,
    REPORT,
    Bounds,
)

MIB = 1024 * 1024
FORMATS = "?bBhHiIqQfd"
SMALL = Bounds(max_bytes=300, depth=4, containers=10, elements=50)


def view(form: str, shape: tuple[int, ...], data: bytes | None = None) -> memoryview:
    count = 1
    for length in shape:
        count *= length
    size = struct.calcsize(form.strip("@"))
    filled = bytes(place % 2 for place in range(count * size)) if data is None else data
    return memoryview(filled).cast(form, shape)  # type: ignore[call-overload]


def body(kind: bytes, shape: tuple[int, ...], data: bytes, reserved: bytes = bytes(5)) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return kind + bytes([len(shape)]) + reserved + sizes + data


def extension(content: bytes, code: int = 1) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(code, content)))


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1,), (3, 1, 2)], ids=str)
@pytest.mark.parametrize("form", FORMATS)
def test_a_view_comes_back_equal_and_read_only(form: str, shape: tuple[int, ...]) -> None:
    sent = view(form, shape) if (form, len(shape)) != ("B", 1) else view("@B", shape)
    back = unpack(pack({"deep": [sent]}))["deep"][0]
    assert isinstance(back, memoryview)
    assert (back.format, back.shape, back.readonly) == (sent.format, shape, True)
    assert back.tobytes() == sent.tobytes()
    assert pack(back) == pack(sent)


def test_an_array_is_written_as_documented() -> None:
    sent = array.array("h", [1, -2])
    written = "c7 14 01 69 32 01 00 00 00 00 00 02 00 00 00 00 00 00 00 01 00 fe ff"
    assert pack(sent) == bytes.fromhex(written)


@pytest.mark.parametrize(
    ("sent", "format_", "listed"),
    [
        (array.array("d", [1.5, -2.0]), "d", [1.5, -2.0]),
        (array.array("B", b"ab"), "@B", [97, 98]),
        (array.array("l", [-1]), "q", [-1]),
        ((ctypes.c_float * 2 * 2)((1, 2), (3, 4)), "f", [[1.0, 2.0], [3.0, 4.0]]),
        ((ctypes.c_uint16.__ctype_be__ * 2)(1, 515), "H", [1, 515]),
        (memoryview(array.array("i", range(6)))[::-2], "i", [5, 3, 1]),
    ],
    ids=["floats", "octets", "long", "ctypes", "big-endian", "strided"],
)
def test_whatever_has_a_buffer_of_numbers(sent: Any, format_: str, listed: list[Any]) -> None:
    back = unpack(pack(sent))
    assert (back.format, back.tolist()) == (format_, listed)


def test_a_map_of_memory_is_an_array_of_octets() -> None:
    with mmap.mmap(-1, 4096) as mapped:
        assert unpack(pack(mapped)).nbytes == 4096


@pytest.mark.parametrize(
    "sent",
    [
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abc"),
        memoryview(b"abc").cast("c"),
        memoryview(b"a-b-c")[::2],
    ],
    ids=["bytes", "bytearray", "view", "characters", "strided"],
)
def test_a_row_of_octets_is_bytes(sent: Any) -> None:
    assert unpack(pack(sent)) == b"abc"
    assert unpack(pack([sent, {"a": sent}])) == [b"abc", {"a": b"abc"}]


@pytest.mark.parametrize("size", [255, 256, 16_383, 16_384, 65_535, 65_536])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_length_are_written_as_msgpack_does(kind: Any, size: int) -> None:
    sent = kind(bytes(size))
    assert pack([sent, 1]) == msgpack.packb([bytes(size), 1])


@pytest.mark.parametrize(
    "shape",
    [(0,), (0, 3), (0, 2, 5), (0, 500)],
    ids=str,
)
def test_without_elements(shape: tuple[int, ...]) -> None:
    content = body(b"f8", shape, b"")
    back = unpack(extension(content))
    assert (back.format, back.shape, back.nbytes) == ("d", shape, 0)
    assert pack(back) == pack(unpack(pack(back)))


@pytest.mark.parametrize("shape", [(3, 0), (0, 3, 0), (0, 1_000_000)], ids=str)
def test_a_shape_that_a_memoryview_cannot_have_is_a_row(shape: tuple[int, ...]) -> None:
    back = unpack(extension(body(b"f8", shape, b"")))
    assert (back.format, back.shape) == ("d", (0,))


ONE = struct.pack("<d", 1.0)
MALFORMED = {
    "nothing": b"",
    "cut in the header": body(b"f8", (1,), b"")[:7],
    "cut in the dimensions": body(b"f8", (1, 1), b"")[:20],
    "no dimension": body(b"f8", (), ONE),
    "too many dimensions": body(b"f8", (1,) * (MAX_DIMENSIONS + 1), ONE),
    "unknown kind": body(b"c8", (1,), ONE),
    "objects": body(b"O8", (1,), ONE),
    "unknown size": body(b"f2", (4,), ONE),
    "reserved": body(b"f8", (1,), ONE, b"\0\0\0\0\1"),
    "too short": body(b"f8", (2,), ONE),
    "too long": body(b"f8", (1,), ONE + b"\0"),
    "one byte short": body(b"f8", (1,), ONE[:-1]),
    "elements for none": body(b"f8", (0,), ONE),
    "overflow of 64 bits": body(b"f8", (2**32, 2**32), b""),
    "overflow to one": body(b"u1", (2**63, 2, 1), b"\0"),
    "immense and empty": body(b"f8", (0, 2**60, 2**60), b""),
    "no boolean": body(b"b1", (2,), b"\1\2"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_header_that_is_not_exact_is_refused(name: str) -> None:
    for data in (extension(MALFORMED[name]), b"\x91" + extension(MALFORMED[name])):
        tracemalloc.start()
        try:
            with pytest.raises(PayloadError):
                unpack(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100_000


@pytest.mark.parametrize("code", [-128, -1, 0, 2, 127])
def test_no_other_extension_is_an_array(code: int) -> None:
    good = body(b"f8", (1,), ONE)
    data = extension(good)
    assert unpack(data).tolist() == [1.0]
    assert data[2] == 1
    with pytest.raises(PayloadError, match="extension"):
        unpack(data[:2] + bytes([code % 256]) + data[3:])


def test_an_array_may_not_be_cut_short_nor_be_a_key() -> None:
    data = pack(array.array("d", [1.0, 2.0]))
    for end in range(len(data)):
        with pytest.raises(PayloadError):
            unpack(data[:end])
    with pytest.raises(PayloadError):
        unpack(b"\x81" + data + b"\x01")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (memoryview(b"\2").cast("?"), "neither 0 nor 1"),
        (memoryview((ctypes.c_longdouble * 1)()), "memoryview of the format"),
        ((ctypes.c_longdouble * 2)(), "cannot carry a c_longdouble_Array_2"),
        ([1j], "cannot carry a complex"),
    ],
    ids=["boolean", "long double", "array of long doubles", "complex"],
)
def test_what_is_no_array_is_told_at_the_sender(sent: Any, told: str) -> None:
    with pytest.raises(PayloadError, match=told):
        pack(sent)


def test_too_large_is_told_before_anything_is_copied() -> None:
    large = memoryview(bytearray(3 * MAX_PAYLOAD_BYTES)).cast("d")
    for sent in (large, large[::2], [1, {"a": large}], memoryview(large.obj)[::2]):
        tracemalloc.start()
        try:
            with pytest.raises(PayloadTooLargeError) as caught:
                pack(sent)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert caught.value.limit == MAX_PAYLOAD_BYTES < caught.value.size
        assert peak < 500_000


def test_the_bytes_of_all_arrays_count() -> None:
    half = array.array("d", bytes(MAX_PAYLOAD_BYTES // 2))
    assert len(unpack(pack([half, 1]))) == 2
    with pytest.raises(PayloadTooLargeError):
        pack([half, half])


def test_an_array_counts_as_a_list() -> None:
    one = array.array("b", [1])
    assert len(unpack(pack([one] * 9, SMALL), SMALL)) == 9
    with pytest.raises(PayloadTooLargeError, match="containers"):
        pack([one] * 10, SMALL)
    with pytest.raises(PayloadTooLargeError, match="containers"):
        unpack(pack([one] * 10), SMALL)
    deep: Any = one
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert pack(unpack(pack(deep))) == pack(deep)
    with pytest.raises(PayloadError, match="nested deeper"):
        pack([deep])
    with pytest.raises(PayloadError, match="nesting"):
        unpack(b"\x91" + pack(deep))


def test_the_smallest_arrays_stay_near_a_hundred_mebibytes() -> None:
    count = MAX_CONTAINERS // 20
    data = b"\xdd" + struct.pack(">I", count) + extension(body(b"u1", (1,), b"\0")) * count
    tracemalloc.start()
    try:
        kept = unpack(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == count
    assert peak < 120 * MIB / 20, "as many as there may be take twenty times as much"


@pytest.mark.parametrize("bounds", [METADATA, REPORT], ids=["metadata", "report"])
def test_where_no_array_is_allowed_it_goes_as_a_list(bounds: Bounds) -> None:
    sent = {"rows": array.array("i", [1, 2])}
    assert unpack(pack(sent, bounds), bounds) == {"rows": [1, 2]}
    with pytest.raises(PayloadError, match="array"):
        unpack(pack(sent), bounds)
    assert unpack(pack(sent, EVENT), EVENT)["rows"].tolist() == [1, 2]


@pytest.mark.parametrize("size", [1, 65_536, 2 * MIB], ids=str)
@pytest.mark.parametrize("kind", ["bytes", "array"])
def test_one_copy_to_pack_and_one_to_unpack(kind: str, size: int) -> None:
    sent: Any = bytes(size) if kind == "bytes" else array.array("b", bytes(size))
    value = [[sent, "rows"], {"more": 1}]
    data = pack(value)
    for run in (lambda: pack(value), lambda: unpack(data)):
        tracemalloc.start()
        try:
            kept = run()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < size + 300_000, "what msgpack's packer sets aside for each value"
        assert kept


def test_the_bytes_of_each_element_the_other_way_round() -> None:
    data = struct.pack("<3d", 1.0, -2.5, 1e300)
    assert struct.unpack(">3d", arrays.swapped(data, 8)) == (1.0, -2.5, 1e300)
    assert arrays.swapped(arrays.swapped(data, 4), 4) == data


def test_a_machine_of_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one writes the other reads; the elements themselves are this machine's."""
    native = array.array("i", [1, 2])
    monkeypatch.setattr(arrays, "_IS_LITTLE", sys.byteorder != "little")
    other = array.array("i", native)
    other.byteswap()
    assert arrays.content_of(memoryview(native)) == other.tobytes()
    content = arrays.header_of(memoryview(native)) + other.tobytes()  # type: ignore[operator]
    assert arrays.read_array(content).tolist() == [1, 2]

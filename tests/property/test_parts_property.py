"""A payload that is split around its body is read as the same payload in one piece."""

from __future__ import annotations

import mmap
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.wire.arena import Arena, arena_bytes
from plugin_sdk.wire.codec import pack_in_parts, unpack
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import ARGUMENTS, MAX_PAYLOAD_BYTES, REPORT, VALUE, Bounds
from plugin_sdk.wire.message import HOST, PLUGIN

MEMORY = mmap.mmap(-1, arena_bytes(MAX_PAYLOAD_BYTES))
BODY = bytes(20_000)
ROWS = memoryview(bytes(24_000)).cast("i", (3, 2_000))

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40)
values = st.recursive(
    leaves | st.builds(lambda: BODY) | st.builds(lambda: ROWS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
# What opens a large body, among what is near to it.
LONG, SHORT = b"\xc6\x00\x00\x4e\x20", b"\xc5\x4e\x20"
ARRAY, OTHER, LYING = b"\xc9\x00\x00\x4e\x20\x01", b"\xc8\x4e\x20\x02", b"\xc6\xff\xff\xff\xff"
WHOLE = b"\xc9\x00\x00\x4e\x20\x01u1\x01" + bytes(5) + (19_984).to_bytes(8, "little") + BODY[16:]
SMALL = [
    b"\x92",
    b"\x91",
    b"\x81",
    b"\xa1x",
    b"\xd4\x7f\x00",
    b"\xc6\x00\x01",
    b"\xc1",
    b"\x01",
    b"\xc0",
]
TOKENS = [LONG + BODY, SHORT + BODY, ARRAY + BODY, OTHER + BODY, ARRAY, WHOLE, LYING, BODY, *SMALL]
places = st.lists(st.integers(0, len(TOKENS) - 1), max_size=6)
streams = places.map(lambda found: b"".join([TOKENS[place] for place in found]))
bounds = st.sampled_from([VALUE, ARGUMENTS, REPORT, Bounds(50_000, 1, 2, 5)])


def passed(payload: bytes) -> bytes:
    """Return it as it comes out of an arena."""
    Arena(MEMORY, PLUGIN).put(payload)
    return Arena(MEMORY, HOST).take(len(payload))


def outcome(payload: bytes, within: Bounds) -> Any:
    try:
        value = unpack(payload, within)
    except PayloadError as error:
        return type(error)
    return repr(plain(value))


def plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return ["array", value.format, value.shape, value.tobytes()]
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@given(values)
def test_values(value: Any) -> None:
    payload = pack_in_parts(value)
    came = passed(payload)
    assert bytes(came) == bytes(payload)
    assert outcome(came, VALUE) == repr(plain(value))


@given(streams, bounds)
def test_any_bytes(data: bytes, within: Bounds) -> None:
    assert outcome(passed(data), within) == outcome(data, within)


@given(st.lists(leaves, max_size=20), st.sampled_from([16_000, 20_000, 40_000, 70_000]))
def test_one_large_body_after_small_arguments_is_packed_as_ever(
    few: list[object], size: int
) -> None:
    for value in ([[*few, bytes(size)], {}], bytes(size), [[bytes(size), *few], {}]):
        packed = bytes(pack_in_parts(value))
        assert packed == msgpack.packb(value)
        assert unpack(packed) == value


def test_a_body_of_another_kind_or_beside_keywords_is_packed_as_ever() -> None:
    body = bytes(40_000)
    for value in (
        [[bytearray(body)], {}],
        [[body], {"a": 1}],
        [[], {}],
        [[body], []],
        [[body], {}, []],
        [[[1] * 40, body], {}],
        [[body] * 3, {}],
    ):
        assert unpack(bytes(pack_in_parts(value))) == value
        assert bytes(pack_in_parts(value)) == msgpack.packb(value)


def test_the_limit_of_bytes_holds_for_one_body_and_for_many_small_ones() -> None:
    bounds = Bounds(100_000, 32, 1_000, 10_000)
    for value in (bytes(100_000), [[bytes(99_995)], {}], [bytes(10_000)] * 10):
        with pytest.raises(PayloadTooLargeError):
            pack_in_parts(value, bounds)
    assert len(pack_in_parts([[bytes(99_992)], {}], bounds)) == 100_000

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest

from plugin_sdk.wire import codec
from plugin_sdk.wire.codec import pack, pack_call, unpack
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_PAYLOAD_BYTES,
    Bounds,
)
from plugin_sdk.wire.payloads import Parts

MIB = 1024 * 1024


class Array:
    """What numpy's arrays and scalars look like to the codec."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain

    def tolist(self) -> Any:
        return self._plain


def array_of(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


def repr_of(value: Any) -> str:
    return type(value).__name__


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        float("inf"),
        "",
        "Zürich ☃ 🌦",
        b"",
        bytes(range(256)),
        [],
        {},
        [[1, 2], {"a": {"b": [None]}}],
        {"": 1, "ключ": 2},
        "x" * 70_000,
        b"\x90" * 70_000,
        list(range(70_000)),
        {str(number): number for number in range(70_000)},
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}",
)
def test_a_value_comes_back_equal(value: Any) -> None:
    back = unpack(pack(value))
    assert back == value
    assert type(back) is type(value)


def test_tuples_arrays_and_buffers_become_plain() -> None:
    value = {"tuple": (1, 2), "array": Array([[1.0], [2.0]]), "buffer": bytearray(b"x")}
    assert unpack(pack(value)) == {"tuple": [1, 2], "array": [[1.0], [2.0]], "buffer": b"x"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1, 2}, "cannot carry a set"),
        (object(), "cannot carry a object"),
        ({1: "a"}, "key 1; keys must be str"),
        ([{"a": {b"k": 1}}], "keys must be str"),
        (2**64, "cannot carry an int outside"),
        ("\ud800", "cannot carry this value"),
        (nested(MAX_DEPTH + 2), "nested deeper"),
        ((item for item in ()), "cannot carry a generator"),
    ],
    ids=["set", "object", "key", "bytes key", "int", "surrogate", "depth", "generator"],
)
def test_what_cannot_be_carried_is_told_at_the_sender(value: Any, told: str) -> None:
    with pytest.raises(PayloadError, match=told):
        pack(value)


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(PayloadError, match="nested deeper"):
        pack(cycle)


SMALL = Bounds(max_bytes=100, depth=4, containers=10, elements=50)


def test_a_value_that_is_too_large_says_how_large() -> None:
    with pytest.raises(PayloadTooLargeError) as caught:
        pack(b"x" * 200, SMALL)
    assert (caught.value.size, caught.value.limit) == (202, 100)
    with pytest.raises(PayloadTooLargeError):
        unpack(b"\xc0" * 101, SMALL)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\xa5abc",
        b"\xc4\x05ab",
        b"\xda\x01",
        b"\xdd\x00",
        b"\x01\x01",
        b"\xa2\xff\xfe",
        b"\xcb\x00",
        b"\x81\xa1a",
        array_of(2**32 - 1),
        b"\xdf\xff\xff\xff\xff",
    ],
    ids=lambda data: data.hex() or "empty",
)
def test_malformed_payloads_are_refused(data: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(msgpack.Timestamp(2**62, 0)),
        msgpack.packb(msgpack.ExtType(5, b"x")),
        b"\xd6\xff\xff\xff\xff\xff",
        b"\xc7\x00\x01",
        b"\xd4\x01\x00",
        b"\xd5\x01\x00\x00",
        b"\xc7\x01",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
    ids=lambda data: data.hex(),
)
def test_extension_types_are_refused(data: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x82\xa1a\x01\xa1a\x02", "same key twice"),
        (b"\x81\xc4\x01a\x01", "not a str"),
        (b"\x81\x01\x01", "map key"),
        (b"\x81\x90\x01", "map key"),
    ],
    ids=["twice", "bytes", "int", "list"],
)
def test_keys_are_distinct_text(data: bytes, told: str) -> None:
    with pytest.raises(PayloadError, match=told):
        unpack(data)


def test_the_deepest_lawful_value_travels_and_one_more_does_not() -> None:
    deepest = nested(MAX_DEPTH + 1)
    assert unpack(pack(deepest)) == deepest
    with pytest.raises(PayloadError):
        unpack(msgpack.packb(nested(MAX_DEPTH + 2)))


BOMBS = {
    "empty containers": array_of(MAX_PAYLOAD_BYTES - 5) + b"\x80" * (MAX_PAYLOAD_BYTES - 5),
    "too many containers": array_of(MAX_CONTAINERS) + b"\x90" * MAX_CONTAINERS,
    "small negative numbers": array_of(MAX_PAYLOAD_BYTES - 5) + b"\xe0" * (MAX_PAYLOAD_BYTES - 5),
    "one element too many": array_of(MAX_ELEMENTS) + b"\x01" * MAX_ELEMENTS,
    "declared, never sent": array_of(900_000) * 31 + b"\x01" * 900_000,
    "depth": b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_payload_that_would_grow_is_refused_before_it_does(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            unpack(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The fast test for suspicious bytes makes one copy at most; nothing is built.
    assert peak < len(data) + 16 * MIB


@pytest.mark.parametrize(
    "data",
    [
        array_of(MAX_CONTAINERS // 10) + b"\x80" * (MAX_CONTAINERS // 10),
        array_of(MAX_ELEMENTS // 10) + b"\xe0" * (MAX_ELEMENTS // 10),
    ],
    ids=["containers", "numbers"],
)
def test_the_worst_lawful_payload_stays_near_a_hundred_mebibytes(data: bytes) -> None:
    tracemalloc.start()
    try:
        unpack(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 110 * MIB / 10, "as much as there may be takes ten times as much"


@pytest.mark.parametrize(
    "value",
    [
        msgpack.ExtType(5, b"x"),
        msgpack.Timestamp(1, 2),
        [msgpack.Timestamp(1, 2)],
        {"a": [msgpack.ExtType(5, b"x")]},
        Array({1: 2}),
        Array([[msgpack.Timestamp(1, 2)]]),
    ],
    ids=["extension", "timestamp", "in a list", "in a dict", "converted key", "converted"],
)
def test_what_no_reader_accepts_is_refused_where_it_is_sent(value: Any) -> None:
    """An honest plugin must not be ended for what its own side let through."""
    with pytest.raises(PayloadError):
        pack(value)


def test_few_large_elements_are_not_searched_byte_by_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = [[b"\x90\xc1" * 30_000, "\u00c1" * 30_000], {"a": 1}]
    data = pack(value)
    monkeypatch.setattr("plugin_sdk.wire.codec._openings", None)
    assert pack(value) == data
    assert unpack(data) == value


def test_what_leads_to_something_large_is_written_as_msgpack_does() -> None:
    large = bytes(20_000)
    value: dict[str, Any] = {
        "a": [1, (None, large, True)],
        "b": {"c": [], "d": 1.5, "e": "x"},
        "f": large,
    }
    assert pack(value) == msgpack.packb(value)
    value["g"] = value["a"]
    assert pack(value) == msgpack.packb(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([bytes(20_000), {1: 2}], "keys must be str"),
        ([bytes(20_000), 2**64], "cannot carry an int outside"),
        ([bytes(20_000), "\ud800"], "cannot carry this value"),
        ({"\ud800": bytes(20_000)}, "cannot carry this value"),
        ([bytes(20_000), {1, 2}], "cannot carry a set"),
    ],
    ids=["key", "int", "surrogate", "surrogate as key", "set"],
)
def test_beside_something_large_the_same_is_refused(value: Any, told: str) -> None:
    with pytest.raises(PayloadError, match=told):
        pack(value)


def test_what_becomes_itself_for_ever_is_refused() -> None:
    class Endless:
        def tolist(self) -> Any:
            return [self]

    with pytest.raises(PayloadError, match=r"nested deeper|cannot carry this value"):
        pack(Endless())


def test_depth_behind_a_conversion_counts() -> None:
    inner: Any = 0
    for _ in range(MAX_DEPTH):
        inner = [inner]
    assert unpack(pack([Array(inner)])) == [inner]
    with pytest.raises(PayloadError):
        pack([[Array(inner)]])


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {}),
        ((None, True, -1, 2**64 - 1, 1.5, "ä", b"x" * 500), {}),
        ((b"x" * 5_000,), {}),
        ((1, [2, {"a": ()}]), {}),
        ((1,), {"rows": 2}),
    ],
    ids=["none", "flat", "large", "nested", "keywords"],
)
def test_a_call_is_packed_as_a_list_of_both(
    arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    assert bytes(pack_call(arguments, keywords)) == pack([list(arguments), keywords])


@pytest.mark.parametrize("bad", ["\ud800", 2**64, -(2**63) - 1, {1: 2}, object()], ids=repr_of)
def test_what_cannot_be_packed_leaves_nothing_behind(bad: Any) -> None:
    for value in (bad, [1, bad]):
        with pytest.raises(PayloadError):
            pack(value)
    with pytest.raises(PayloadError):
        pack_call((b"before", bad), {})
    assert pack_call((7,), {}) == b"\x92\x91\x07\x80"
    assert pack("x") == b"\xa1x"


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 400, 5_000, 100_000])
def test_few_bytes_that_nest_too_deep_are_refused(levels: int) -> None:
    for opening, end in ((b"\x91", b"\x01"), (b"\x81\xa1a", b"\x01")):
        with pytest.raises(PayloadError, match=r"levels of nesting|not acceptable"):
            unpack(opening * levels + end)
    assert unpack(b"\x91" * (MAX_DEPTH + 1) + b"\x01") == nested(MAX_DEPTH + 1)


def test_many_small_lists_and_timestamps_among_them() -> None:
    rows = [[number, b"\x91\xd6\xc7" * 3, {"a": [None]}] for number in range(1_000)]
    assert unpack(pack(rows)) == rows
    stamp = bytes(msgpack.packb(msgpack.Timestamp(1, 0)))
    for data in (stamp, b"\xdc\x00\x02\xc0" + stamp, b"\x81\xa1a" + stamp):
        with pytest.raises(PayloadError, match="extension"):
            unpack(data)


def test_long_bytes_are_not_looked_at_byte_by_byte(monkeypatch):
    """What any of them could mean, were it the first of an element, does not matter."""
    value = [b"\x91" * 12_000, {"key": b"\xdc" * 12_000}]
    data = pack(value)
    monkeypatch.setattr(codec, "_openings", None)
    assert unpack(data) == value


@pytest.mark.parametrize(
    ("value", "quick"),
    [
        (list(range(100)), True),
        (b"\x91" * 20_000, True),
        ({"name": "x" * 500_000}, True),
        ([b"x" * 1_000] * 300, True),
        ([1] * 20_000, False),
        ([b"x" * 100] * 300, False),
        (b"x" * 2 * MIB, False),
    ],
)
def test_what_is_quick_to_unpack(value, quick):
    assert codec.is_quick(pack(value)) == quick


def test_what_is_malformed_is_not_quick():
    assert not codec.is_quick(array_of(MAX_ELEMENTS + 1) + bytes(20_000))
    assert not codec.is_quick(b"\xd7" * 20_000)


def test_what_is_split_is_quick_where_little_is_around_it():
    body = bytes(40_000)
    opening = b"\xc6" + struct.pack(">I", len(body))
    assert codec.is_quick(Parts([b"\x92\x01", opening, body, b""], is_split=True))
    assert not codec.is_quick(
        Parts([array_of(20_001), opening, body, b"\x01" * 20_000], is_split=True)
    )
    assert not codec.is_quick(Parts([b"\x91", opening, bytes(2 * MIB), b""], is_split=True))
    assert not codec.is_quick(Parts([array_of(20_000), bytes(20_000)]))

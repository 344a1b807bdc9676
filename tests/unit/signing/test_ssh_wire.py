from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.signing.ssh_wire import Reader, WireError, string, u32


def test_the_examples_of_the_specification() -> None:
    # RFC 4251, section 5.
    assert u32(699921578) == bytes.fromhex("29b7f4aa")
    assert string(b"testing") == bytes.fromhex("00000007") + b"testing"


def test_values_come_back() -> None:
    reader = Reader(b"\x07" + u32(9) + string(b"") + string(b"abc"))
    assert (reader.byte(), reader.u32(), reader.string(), reader.string()) == (7, 9, b"", b"abc")
    reader.end()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends 4 bytes too early"),
        (b"\0\0\0", "ends 1 bytes too early"),
        (u32(1), "ends 1 bytes too early"),
        (b"\xff\xff\xff\xff" + b"x" * 10, "too early"),
    ],
)
def test_what_ends_too_early(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        Reader(data).string()


def test_what_is_left_over() -> None:
    reader = Reader(string(b"a") + b"bc")
    reader.string()
    with pytest.raises(WireError, match="2 bytes too many"):
        reader.end()


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_strings_come_back(values: list[bytes]) -> None:
    reader = Reader(b"".join(map(string, values)))
    assert [reader.string() for _ in values] == values
    reader.end()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    reader = Reader(data)
    taken = b""
    try:
        while True:
            taken += string(reader.string())
    except WireError:
        assert data.startswith(taken)

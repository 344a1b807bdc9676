from __future__ import annotations

import pytest
from sandbox_host.bundle.strict_json import JsonFaultError, parse_strict, text_fault


def parse(data: bytes, max_bytes: int = 1_000, max_depth: int = 4) -> object:
    return parse_strict(data, max_bytes=max_bytes, max_depth=max_depth)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, -2, true, null, "\\u00e9"]} ', {"a": [1, -2, True, None, "\u00e9"]}),
        (b"9223372036854775807", 2**63 - 1),
        (b"[[[[]]]]", [[[[]]]]),
        (b'"[[[[[[{{{{{\\"[[["', '[[[[[[{{{{{"[[['),
        (b"[[],[],[],[],[],[]]", [[]] * 6),
    ],
)
def test_what_is_one_thing_only_is_read(data: bytes, value: object) -> None:
    assert parse(data) == value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} x", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "'a' appears twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1.0", "not an integer"),
        (b"1e3", "not an integer"),
        (b"9223372036854775808", "64 bits"),
        (b"-" + b"9" * 900, "64 bits"),
        (b"[[[[[]]]]]", "deeper than 4"),
        (b'{"a":{"a":{"a":{"a":{}}}}}', "deeper than 4"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'"\xff"', "not UTF-8"),
        (b'"a\nb"', "not JSON"),
        (b" " * 1_001, "more than the 1000"),
    ],
)
def test_everything_else_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(JsonFaultError) as caught:
        parse(data)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b'"' + b'\\"' * 500_000, b'""[' * 300_000],
    ids=["arrays", "objects", "one endless string", "strings and brackets"],
)
def test_hostile_nesting_costs_neither_stack_nor_time(data: bytes) -> None:
    with pytest.raises(JsonFaultError):
        parse(data, max_bytes=len(data))


def test_text_that_no_encoding_carries() -> None:
    assert not text_fault("plain é", 10)
    assert "surrogate" in text_fault("\ud800", 10)
    assert "longer" in text_fault("x" * 11, 10)

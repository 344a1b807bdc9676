"""JSON from a stranger has one reading, or none."""

from __future__ import annotations

import pytest

from sandbox_host.bundle.document import parse_document
from sandbox_host.reading import BadValueError


def parse(text):
    data = text if isinstance(text, bytes) else text.encode()
    return parse_document(data, max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5, true, null, "x"]}', {"a": [1, -2.5, True, None, "x"]}),
        ('"[[[[\\"[[["', '[[[["[[['),
        ("9223372036854775807", 2**63 - 1),
        ('"' + "," * 50_000 + '"', "," * 50_000),
        ("[" + "1," * 19_998 + "1]", [1] * 19_999),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_read(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ('{"a": {"b": 1, "b": 2}}', "a.b", "given twice"),
        ('{"a": [{"b": 1}, {"b": 1, "\\u0062": 2}]}', "a[1].b", "given twice"),
        ('{"a": NaN}', "a", "finite"),
        ("[-Infinity]", "[0]", "finite"),
        ('{"a": 1e999}', "a", "finite"),
        ('{"a": 9223372036854775808}', "a", "64 bits"),
        ("1" * 5_000, "", "at most 64 characters"),
        ('{"a": "\\ud800"}', "a", "surrogate"),
        ('{"\\udfff": 1}', '"\\udfff"', "surrogate"),
        ("[" * 33 + "]" * 33, "", "32 nested levels"),
        ("[" * 500_000, "", "32 nested levels"),
        ('{"a":' * 40, "", "32 nested levels"),
        ("[" + "[]," * 20_000 + "[]]", "", "20000 values"),
        ("[" + "1," * 20_001 + "1]", "", "20000 values"),
        ("{" + ",".join(f'"{n}":{n}' for n in range(30_000)) + "}", "", "20000 values"),
        ("\ufeff{}", "", "byte order mark"),
        (b'{"a": "\xff"}', "", "UTF-8"),
        ("{'a': 1}", "", "line 1 column 2"),
        ("{} {}", "", "Extra data"),
        ("", "", "expected JSON"),
        ('"\t"', "", "Invalid control character"),
    ],
)
def test_refused(text, path, problem):
    with pytest.raises(BadValueError) as caught:
        parse(text)
    assert caught.value.path == path
    assert problem in caught.value.problem


@pytest.mark.parametrize("text", ['"' + '\\"' * 400_000, '"' + "\\" * 800_001, '{"a' * 200_000])
def test_unterminated_strings_take_linear_time(text):
    # Quadratic here would be hours; the suite's own timeout is what fails.
    with pytest.raises(BadValueError):
        parse(text)


def test_size_is_checked_before_anything_else():
    with pytest.raises(BadValueError, match="expected at most 3 bytes, got 4"):
        parse_document(b"\xff\xff\xff\xff", max_bytes=3)


@pytest.mark.parametrize(
    "data",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b'"' + b'\\"' * 500_000, b'""[' * 300_000],
    ids=["arrays", "objects", "one endless string", "strings and brackets"],
)
def test_hostile_nesting_costs_neither_stack_nor_time(data: bytes) -> None:
    with pytest.raises(BadValueError):
        parse_document(data, max_bytes=len(data))

"""Readers of single values: nothing is coerced, and the error names path, wish and value."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    describe,
    escaped,
    parse_bytes,
    parse_seconds,
    quoted,
    read_list,
    read_text,
    read_whole,
    sentence,
    shown_amount,
    shown_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("0 B", 0),
        ("256 MB", 256_000_000),
        ("256MiB", 268_435_456),
        ("1.5 GiB", 1_610_612_736),
        ("0.1 KiB", 102),
        ("1 kB", 1_000),
        ("1 KB", 1_000),
        ("2 TiB", 2 * 2**40),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "value",
    [
        True,
        -1,
        1.0,
        None,
        "",
        "1",
        "MiB",
        "-1 MiB",
        "1  MiB",
        "1e3 MB",
        "1 mb",
        "\u0661 MB",
        "9" * 99,
    ],
)
def test_no_size(value):
    with pytest.raises(BadValueError, match="expected bytes as a whole number"):
        parse_bytes(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(3, 3.0), (0.5, 0.5), ("60 s", 60.0), ("500 ms", 0.5), ("2 min", 120.0), ("1.5h", 5400.0)],
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "value", [True, -1, float("nan"), float("inf"), 10**400, "3", "3 days", "s", None, []]
)
def test_no_duration(value):
    with pytest.raises(BadValueError, match="expected seconds as a number"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (2**70, "a very large number"),
        (1.5, "1.5"),
        ({}, "an object"),
        ([], "a list"),
        (SimpleNamespace(), "a SimpleNamespace"),
        ("a\n\u202e", '"a\\n\\u202e"'),
        ("x" * 61, '"' + "x" * 60 + '"...'),
    ],
)
def test_described(value, text):
    assert describe(value) == text


@pytest.mark.parametrize(
    ("text", "options", "shown"),
    [
        ("plain \u00e9 \u6f22", {}, "plain \u00e9 \u6f22"),
        ("\x1b[2J\n\u202e\ud800", {}, r"\x1b[2J\n\u202e\ud800"),
        ("a\u200b\u200db\u2060\ufeff", {}, r"a\u200b\u200db\u2060\ufeff"),
        ("\ue000\U000e0041", {}, r"\ue000\U000e0041"),
        ("a\n\tb\x07", {"keep": "\n\t"}, "a\n\tb\\x07"),
        ("x" * 30, {}, "x" * 30),
        ("b" + "x" * 29 + "e", {}, "b" + "x" * 26 + "..."),
        ("b" + "x" * 29 + "e", {"keep_end": True}, "..." + "x" * 26 + "e"),
        ("\x1b" * 29 + "e", {}, r"\x1b" * 6 + r"\x1" + "..."),
        ("\x1b" * 29 + "e", {"keep_end": True}, "..." + "1b" + r"\x1b" * 6 + "e"),
        ("", {"keep_end": True}, ""),
    ],
)
def test_hostile_text_as_it_is_shown(text, options, shown):
    assert escaped(text, 30, **options) == shown


def test_no_room_for_text():
    assert escaped("abc", 0) == escaped("abc", 0, keep_end=True) == "..."


def test_paths():
    assert at(at(at("", "a"), 2), "b c") == 'a[2]."b c"'
    assert at("a", "x" * 100) == "a." + quoted("x" * 100)


def test_unknown_key_far_from_all():
    with pytest.raises(BadValueError, match=r"^a\.zzz: unknown key; expected one of memory, cpu$"):
        check_keys({"zzz": 1}, "a", ("memory", "cpu"))


def test_text_keeps_what_a_person_writes():
    assert (
        read_text("Jos\u00e9 \U0001f600 \u6f22", "author", limit=20)
        == "Jos\u00e9 \U0001f600 \u6f22"
    )


@pytest.mark.parametrize("text", ["a\x00", "a\n", "\x7f", "\x85", "\u2028", "\u2066", "\ud800"])
def test_text_refuses_what_hides(text):
    with pytest.raises(BadValueError, match="control characters"):
        read_text(text, "author", limit=20)


def test_whole_number_range():
    assert read_whole(5, "n", 5, 5) == 5
    with pytest.raises(BadValueError, match="n: expected a whole number from 5 to 6, got 7"):
        read_whole(7, "n", 5, 6)


def test_list_names_the_index_of_a_bad_entry():
    with pytest.raises(BadValueError, match=r"^n\[1\]: expected a whole number, got true$"):
        read_list([1, True], "n", lambda v, p: read_whole(v, p, 0, 9))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1_500, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        ((64 << 20) + 4096, "64.0 MiB"),
        (1025 << 20, "1025 MiB"),
        (1 << 30, "1 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_bytes_for_people(count, text):
    assert shown_bytes(count) == text
    assert shown_amount(count, "bytes") == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.5, "seconds", "500 ms"),
        (0, "seconds", "0 s"),
        (1.23456, "seconds", "1.235 s"),
        (60, "seconds", "60 s"),
        (120, "seconds", "2 min"),
        (86_400, "seconds", "24 h"),
        (9, "threads", "9 threads"),
        (9, "", "9"),
    ],
)
def test_amounts_for_people(value, unit, text):
    assert shown_amount(value, unit) == text


def test_a_sentence_ends_once():
    assert [sentence(text) for text in ("a", "a.", "a?", "a ...")] == ["a.", "a.", "a?", "a ..."]

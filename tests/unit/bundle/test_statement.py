from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_host.bundle.statement import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    FileEntry,
    Statement,
    build_statement,
    compact_json,
    format_time,
    list_files,
    parse_statement,
    root_digest_of,
)
from sandbox_host.errors import VerificationError
from tests.support.bundles import NOW
from tests.support.forgeries import set_at

FILES = {"__init__.py": b"", "données.csv": b"1,2\n", "plugin.json": b"{}"}
ENTRIES = list_files(FILES)
STATEMENT = Statement(
    name="WeatherModel",
    version="1.0.0",
    plugin_api="1.0.0",
    created=NOW,
    expires=NOW + dt.timedelta(days=1),
    files=ENTRIES,
    root_digest=root_digest_of(ENTRIES),
)
PAYLOAD = build_statement(STATEMENT)


def test_a_statement_comes_back() -> None:
    assert parse_statement(PAYLOAD) == STATEMENT


def test_the_statement_is_one_of_in_toto() -> None:
    value = json.loads(PAYLOAD)
    assert value["_type"] == STATEMENT_TYPE == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == PREDICATE_TYPE
    assert value["subject"] == [
        {"name": "weather_model", "digest": {"sha256": STATEMENT.root_digest}}
    ]
    assert value["predicate"]["files"][0] == {
        "path": "__init__.py",
        "sha256": hashlib.sha256(b"").hexdigest(),
        "size": 0,
    }


def test_the_root_digest_is_what_its_docstring_says() -> None:
    def u64(number: int) -> bytes:
        return number.to_bytes(8, "big")

    expected = hashlib.sha256(b"sandbox-host plugin-bundle root v1\n" + u64(2))
    for path, data in ((b"a", b"1"), (b"b/c", b"2")):
        expected.update(u64(len(path)) + path + u64(32) + hashlib.sha256(data).digest())
    assert root_digest_of(list_files({"b/c": b"2", "a": b"1"})) == expected.hexdigest()


def test_a_known_root_digest() -> None:
    """If this changes, every signed bundle in the world becomes invalid."""
    files = list_files({"__init__.py": b"", "plugin.json": b"{}"})
    assert (
        root_digest_of(files) == "bf7429c88a1d28b9ca57ee82a7eba08ae2551a97005f5292fe6da9aa72552f71"
    )


def test_names_are_part_of_the_root_digest() -> None:
    assert root_digest_of(list_files({"a": b"1", "b": b"2"})) != root_digest_of(
        list_files({"a": b"2", "b": b"1"})
    )
    assert root_digest_of(list_files({"ab": b""})) != root_digest_of(list_files({"a": b"b"}))


def test_times_are_in_utc_and_whole_seconds() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    assert format_time(dt.datetime(2026, 1, 1, 1, 0, 0, 999_999, zone)) == "2025-12-31T23:00:00Z"
    assert format_time(dt.datetime(999, 1, 1, tzinfo=dt.UTC)) == "0999-01-01T00:00:00Z"


FILE = {"path": "a.py", "sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_at("extra", 1), "statement: unknown key 'extra'"),
        (set_at("_type", "https://in-toto.io/Statement/v0.1"), "statement: _type: expected"),
        (set_at("predicateType", "urn:other"), "statement: predicateType: expected"),
        (set_at("subject", []), "subject: expected exactly one, got 0"),
        (set_at("subject.0.name", "other"), "subject[0].name: expected 'weather_model'"),
        (set_at("subject.0.name", None), "expected text, got null"),
        (set_at("subject.0.uri", "x"), "unknown key 'uri'"),
        (set_at("subject.0.digest", {"sha512": "0" * 64}), "unknown key 'sha512'"),
        (set_at("subject.0.digest.sha256", "0" * 64), "not the root digest"),
        (set_at("subject.0.digest.sha256", "0" * 63), "64 lower-case"),
        (set_at("predicate", []), "expected an object, got an array"),
        (set_at("predicate.builder", "x"), "unknown key 'builder'"),
        (set_at("predicate.schema", True), "predicate.schema: expected 1, got 'True'"),
        (set_at("predicate.schema", 2), "predicate.schema: expected 1, got '2'"),
        (set_at("predicate.name", ""), "predicate.name: expected 1 to 64 characters, got 0"),
        (set_at("predicate.name", "x" * 65), "1 to 64 characters, got 65"),
        (set_at("predicate.name", "../weather"), "not an ASCII identifier"),
        (set_at("predicate.name", "\u212aelvin"), "not an ASCII identifier"),
        (set_at("predicate.version", 1), "predicate.version: expected text"),
        (set_at("predicate.version", "\ud800"), "surrogate pair"),
        (set_at("predicate.plugin_api", ...), "missing key 'plugin_api'"),
        (set_at("predicate.created", "2026-01-31"), "predicate.created: expected a time"),
        (set_at("predicate.created", "2026-02-31T00:00:00Z"), "expected a time"),
        (set_at("predicate.created", "2026-01-31T12:00:00+00:00"), "expected a time"),
        (set_at("predicate.created", 1), "expected a time"),
        (set_at("predicate.expires", None), "predicate.expires: expected a time"),
        (set_at("predicate.expires", "2026-01-31T12:00:00Z"), "not after created"),
        (set_at("predicate.files", {}), "expected an array"),
        (set_at("predicate.files", [FILE, FILE]), "not sorted and unique"),
        (set_at("predicate.files", [FILE, {**FILE, "path": "A.py"}]), "not sorted"),
        (set_at("predicate.files", [{**FILE, "path": "A.py"}, FILE]), "one name"),
        (set_at("predicate.files", [{**FILE, "path": "a"}, {**FILE, "path": "a/b"}]), "both a"),
        (set_at("predicate.files", [{**FILE, "path": str(i)} for i in range(2_001)]), "at most"),
        (
            set_at(
                "predicate.files",
                [{**FILE, "path": f"f{i}", "size": 16 << 20} for i in range(5)],
            ),
            "add up to more than",
        ),
        (set_at("predicate.files.0", "x"), "files[0]: expected an object"),
        (set_at("predicate.files.0.mode", 7), "unknown key 'mode'"),
        (set_at("predicate.files.0.path", "../../etc/passwd"), "files[0].path: the name"),
        (set_at("predicate.files.0.path", "/etc/passwd"), "files[0].path: the name"),
        (set_at("predicate.files.0.path", "main.pyc"), "byte-code cache"),
        (set_at("predicate.files.0.path", "x\ud800"), "surrogate pair"),
        (set_at("predicate.files.0.path", 1), "expected text"),
        (set_at("predicate.files.0.sha256", "A" * 64), "64 lower-case"),
        (set_at("predicate.files.0.size", True), "files[0].size: expected an integer"),
        (set_at("predicate.files.0.size", -1), "files[0].size: expected an integer"),
        (set_at("predicate.files.0.size", (16 << 20) + 1), "files[0].size: expected an integer"),
        (set_at("predicate.files.0.size", "1"), "files[0].size: expected an integer"),
    ],
)
def test_statements_of_another_shape(edit: Callable[[dict[str, Any]], None], words: str) -> None:
    value = json.loads(PAYLOAD)
    edit(value)
    with pytest.raises(VerificationError) as caught:
        parse_statement(json.dumps(value, separators=(",", ":")).encode())
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"size":0', b'"size":0,"size":0', "given twice"),
        (b'"schema":1', b'"schema":1.0', "schema: expected 1"),
        (b'"size":0', b'"size":NaN', "NaN"),
        (b'"size":0', b'"size":99999999999999999999', "64 bits"),
        (b'"schema":1', b'"schema":[[[[[[]]]]]]', "nested levels"),
    ],
)
def test_statements_in_json_with_two_readings(old: bytes, new: bytes, words: str) -> None:
    assert old in PAYLOAD
    with pytest.raises(VerificationError) as caught:
        parse_statement(PAYLOAD.replace(old, new, 1))
    assert words in caught.value.message


def test_a_statement_without_expiry() -> None:
    value = json.loads(PAYLOAD)
    del value["predicate"]["expires"]
    assert parse_statement(compact_json(value)).expires is None


def test_the_files_are_listed_by_path() -> None:
    assert list_files({"b": b"xy", "a": b""}) == (
        FileEntry("a", hashlib.sha256(b"").hexdigest(), 0),
        FileEntry("b", hashlib.sha256(b"xy").hexdigest(), 2),
    )

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_host.bundle.envelope import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Envelope,
    FileEntry,
    Statement,
    build_envelope,
    build_statement,
    format_time,
    list_files,
    parse_envelope,
    parse_statement,
    pre_authentication_encoding,
    root_digest_of,
)
from sandbox_host.errors import VerificationError
from tests.support.bundles import NOW, make_key

KEY = make_key()
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
ENVELOPE = build_envelope(PAYLOAD, KEY.public, bytes(range(64)))


def test_a_statement_comes_back() -> None:
    assert parse_statement(PAYLOAD) == STATEMENT


def test_an_envelope_comes_back() -> None:
    assert parse_envelope(ENVELOPE) == Envelope(PAYLOAD, KEY.key_id, bytes(range(64)))


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


def test_the_pre_authentication_encoding_counts_bytes() -> None:
    # The example of DSSE's protocol.md, and one where characters and bytes differ.
    assert (
        pre_authentication_encoding(b"hello world", "http://example.com/HelloWorld")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pre_authentication_encoding("é".encode(), "é") == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


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


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _edit(path: str, new: Any) -> Callable[[dict[str, Any]], None]:
    """Return an edit that sets the value at a dotted path, or removes it where `new` is ``...``."""

    def edit(value: Any) -> None:
        *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in above:
            value = value[part]
        if new is ...:
            del value[last]
        else:
            value[last] = new

    return edit


SIGNATURE = {"keyid": KEY.key_id, "sig": base64.b64encode(bytes(64)).decode()}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_edit("extra", 1), "envelope: unknown key 'extra'"),
        (_edit("payload", ...), "envelope: missing key 'payload'"),
        (_edit("payloadType", "application/json"), "envelope: payloadType: expected"),
        (_edit("payloadType", 7), "expected text, got an integer"),
        (_edit("signatures", []), "expected exactly one, got 0"),
        (_edit("signatures", [SIGNATURE, SIGNATURE]), "expected exactly one, got 2"),
        (_edit("signatures", {}), "expected an array, got an object"),
        (_edit("signatures.0", "x"), "expected an object, got text"),
        (_edit("signatures.0.cert", "x"), "unknown key 'cert'"),
        (_edit("signatures.0.keyid", ...), "missing key 'keyid'"),
        (_edit("signatures.0.keyid", KEY.key_id.upper()), "64 lower-case"),
        (_edit("signatures.0.keyid", "../../trust"), "64 lower-case"),
        (_edit("signatures.0.keyid", None), "64 lower-case"),
        (_edit("signatures.0.sig", base64.b64encode(bytes(63)).decode()), "expected 64 bytes"),
        (_edit("signatures.0.sig", "!" * 88), "not base64"),
        (_edit("signatures.0.sig", "A" * 400), "at most"),
        (_edit("signatures.0.sig", "A" * 85 + "B=="), "not canonical base64"),
        (_edit("payload", "AAB="), "not canonical base64"),
        (_edit("payload", "AAA"), "not base64"),
        (_edit("payload", "AA-_"), "not base64"),
        (_edit("payload", "AA\nAA"), "not base64"),
        (_edit("payload", "é"), "not base64"),
        (_edit("payload", True), "expected base64 text"),
    ],
)
def test_envelopes_of_another_shape(edit: Callable[[dict[str, Any]], None], words: str) -> None:
    value = json.loads(ENVELOPE)
    assert compact(value) + b"\n" == ENVELOPE
    edit(value)
    with pytest.raises(VerificationError) as caught:
        parse_envelope(compact(value) + b"\n")
    assert words in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected JSON"),
        (b"[]", "expected an object, got an array"),
        (ENVELOPE.rstrip(), "one form"),
        (b" " + ENVELOPE, "one form"),
        (ENVELOPE + b"\n", "one form"),
        (ENVELOPE.replace(b":", b": ", 1), "one form"),
        (ENVELOPE.replace(b"payloadType", b"payload\\u0054ype"), "one form"),
        (ENVELOPE.replace(b"{", b'{"payload":"",', 1), "given twice"),
        (ENVELOPE.replace(b'"keyid"', b'"keyid":"","keyid"'), "given twice"),
        (b"\xef\xbb\xbf" + ENVELOPE, "byte order mark"),
        (b"[" * 100_000, "nested levels"),
        (b" " * (4 * 1024 * 1024 + 1), "expected at most"),
    ],
)
def test_envelopes_in_another_form(data: bytes, words: str) -> None:
    with pytest.raises(VerificationError) as caught:
        parse_envelope(data)
    assert words in caught.value.message


FILE = {"path": "a.py", "sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_edit("extra", 1), "statement: unknown key 'extra'"),
        (_edit("_type", "https://in-toto.io/Statement/v0.1"), "statement: _type: expected"),
        (_edit("predicateType", "urn:other"), "statement: predicateType: expected"),
        (_edit("subject", []), "subject: expected exactly one, got 0"),
        (_edit("subject.0.name", "other"), "subject[0].name: expected 'weather_model'"),
        (_edit("subject.0.name", None), "expected text, got null"),
        (_edit("subject.0.uri", "x"), "unknown key 'uri'"),
        (_edit("subject.0.digest", {"sha512": "0" * 64}), "unknown key 'sha512'"),
        (_edit("subject.0.digest.sha256", "0" * 64), "not the root digest"),
        (_edit("subject.0.digest.sha256", "0" * 63), "64 lower-case"),
        (_edit("predicate", []), "expected an object, got an array"),
        (_edit("predicate.builder", "x"), "unknown key 'builder'"),
        (_edit("predicate.schema", True), "predicate.schema: expected 1, got 'True'"),
        (_edit("predicate.schema", 2), "predicate.schema: expected 1, got '2'"),
        (_edit("predicate.name", ""), "predicate.name: expected 1 to 64 characters, got 0"),
        (_edit("predicate.name", "x" * 65), "1 to 64 characters, got 65"),
        (_edit("predicate.name", "../weather"), "not an ASCII identifier"),
        (_edit("predicate.name", "\u212aelvin"), "not an ASCII identifier"),
        (_edit("predicate.version", 1), "predicate.version: expected text"),
        (_edit("predicate.version", "\ud800"), "surrogate pair"),
        (_edit("predicate.plugin_api", ...), "missing key 'plugin_api'"),
        (_edit("predicate.created", "2026-01-31"), "predicate.created: expected a time"),
        (_edit("predicate.created", "2026-02-31T00:00:00Z"), "expected a time"),
        (_edit("predicate.created", "2026-01-31T12:00:00+00:00"), "expected a time"),
        (_edit("predicate.created", 1), "expected a time"),
        (_edit("predicate.expires", None), "predicate.expires: expected a time"),
        (_edit("predicate.expires", "2026-01-31T12:00:00Z"), "not after created"),
        (_edit("predicate.files", {}), "expected an array"),
        (_edit("predicate.files", [FILE, FILE]), "not sorted and unique"),
        (_edit("predicate.files", [FILE, {**FILE, "path": "A.py"}]), "not sorted"),
        (_edit("predicate.files", [{**FILE, "path": "A.py"}, FILE]), "one name"),
        (_edit("predicate.files", [{**FILE, "path": "a"}, {**FILE, "path": "a/b"}]), "both a"),
        (_edit("predicate.files", [{**FILE, "path": str(i)} for i in range(2_001)]), "at most"),
        (
            _edit(
                "predicate.files",
                [{**FILE, "path": f"f{i}", "size": 16 << 20} for i in range(5)],
            ),
            "add up to more than",
        ),
        (_edit("predicate.files.0", "x"), "files[0]: expected an object"),
        (_edit("predicate.files.0.mode", 7), "unknown key 'mode'"),
        (_edit("predicate.files.0.path", "../../etc/passwd"), "files[0].path: the name"),
        (_edit("predicate.files.0.path", "/etc/passwd"), "files[0].path: the name"),
        (_edit("predicate.files.0.path", "main.pyc"), "byte-code cache"),
        (_edit("predicate.files.0.path", "x\ud800"), "surrogate pair"),
        (_edit("predicate.files.0.path", 1), "expected text"),
        (_edit("predicate.files.0.sha256", "A" * 64), "64 lower-case"),
        (_edit("predicate.files.0.size", True), "files[0].size: expected an integer"),
        (_edit("predicate.files.0.size", -1), "files[0].size: expected an integer"),
        (_edit("predicate.files.0.size", (16 << 20) + 1), "files[0].size: expected an integer"),
        (_edit("predicate.files.0.size", "1"), "files[0].size: expected an integer"),
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
    assert parse_statement(compact(value)).expires is None


def test_the_files_are_listed_by_path() -> None:
    assert list_files({"b": b"xy", "a": b""}) == (
        FileEntry("a", hashlib.sha256(b"").hexdigest(), 0),
        FileEntry("b", hashlib.sha256(b"xy").hexdigest(), 2),
    )

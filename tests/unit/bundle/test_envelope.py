from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_host.bundle.envelope import (
    MAX_KEY_ID_CHARACTERS,
    MAX_SIGNATURES,
    Envelope,
    Signature,
    build_envelope,
    parse_envelope,
    pre_authentication_encoding,
    render_envelope,
)
from sandbox_host.bundle.statement import compact_json
from sandbox_host.errors import VerificationError
from tests.support.bundles import make_key
from tests.support.forgeries import set_at

KEY = make_key()
PAYLOAD = b'{"any": "bytes"}'
ENVELOPE = build_envelope(PAYLOAD, KEY.public, bytes(range(64)))
PARSED = Envelope(PAYLOAD, (Signature(KEY.key_id, bytes(range(64))),))


def test_an_envelope_comes_back() -> None:
    assert parse_envelope(ENVELOPE) == PARSED
    assert render_envelope(PARSED) == ENVELOPE
    assert PARSED.key_id == KEY.key_id


def test_several_signatures_come_back_in_their_order() -> None:
    many = tuple(Signature(f"key {i}", bytes([i]) * 64) for i in reversed(range(MAX_SIGNATURES)))
    envelope = Envelope(PAYLOAD, many)
    assert parse_envelope(render_envelope(envelope)) == envelope
    assert envelope.key_id == "key 15"


def test_the_pre_authentication_encoding_counts_bytes() -> None:
    # The example of DSSE's protocol.md, and one where characters and bytes differ.
    assert (
        pre_authentication_encoding(b"hello world", "http://example.com/HelloWorld")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pre_authentication_encoding("é".encode(), "é") == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


def _signature(hint: Any = KEY.key_id, value: bytes = bytes(64)) -> dict[str, Any]:
    return {"keyid": hint, "sig": base64.b64encode(value).decode()}


TOO_MANY = [_signature(str(i)) for i in range(MAX_SIGNATURES + 1)]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_at("extra", 1), "envelope: unknown key 'extra'"),
        (set_at("payload", ...), "envelope: missing key 'payload'"),
        (set_at("payloadType", "application/json"), "envelope: payloadType: expected"),
        (set_at("payloadType", 7), "expected text, got an integer"),
        (set_at("signatures", []), "expected 1 to 16, got 0"),
        (set_at("signatures", TOO_MANY), "expected 1 to 16, got 17"),
        (set_at("signatures", [_signature(), _signature()]), "two of them claim the same key"),
        (set_at("signatures", {}), "expected an array, got an object"),
        (set_at("signatures.0", "x"), "expected an object, got text"),
        (set_at("signatures.0.cert", "x"), "unknown key 'cert'"),
        (set_at("signatures.0.keyid", None), "signatures[0].keyid: expected text, got null"),
        (set_at("signatures.0.keyid", 7), "expected text, got an integer"),
        (set_at("signatures.0.keyid", "x" * 129), "at most 128 printable"),
        (set_at("signatures.0.keyid", "a\nb"), "at most 128 printable"),
        (set_at("signatures.0.keyid", "\u202e"), "at most 128 printable"),
        (set_at("signatures.0.sig", ...), "missing key 'sig'"),
        (set_at("signatures.0.sig", base64.b64encode(bytes(63)).decode()), "expected 64 bytes"),
        (set_at("signatures.0.sig", "!" * 88), "not base64"),
        (set_at("signatures.0.sig", "A" * 400), "at most"),
        (set_at("signatures.0.sig", "A" * 85 + "B=="), "not canonical base64"),
        (set_at("payload", "AAB="), "not canonical base64"),
        (set_at("payload", "AAA"), "not base64"),
        (set_at("payload", "AA-_"), "not base64"),
        (set_at("payload", "AA\nAA"), "not base64"),
        (set_at("payload", "é"), "not base64"),
        (set_at("payload", True), "expected base64 text"),
    ],
)
def test_envelopes_of_another_shape(edit: Callable[[dict[str, Any]], None], words: str) -> None:
    value = json.loads(ENVELOPE)
    assert compact_json(value) + b"\n" == ENVELOPE
    edit(value)
    with pytest.raises(VerificationError) as caught:
        parse_envelope(compact_json(value) + b"\n")
    assert words in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ENVELOPE.rstrip(), id="without a line feed"),
        pytest.param(b" \t\r\n" + ENVELOPE + b"\n\n", id="white space around it"),
        pytest.param(ENVELOPE.replace(b":", b" : "), id="white space in it"),
        pytest.param(
            json.dumps(json.loads(ENVELOPE), indent=1, sort_keys=False).encode(), id="indented"
        ),
        pytest.param(
            json.dumps(dict(reversed(json.loads(ENVELOPE).items()))).encode(), id="another order"
        ),
        pytest.param(ENVELOPE.replace(b"payloadType", b"payload\\u0054ype"), id="an escape"),
    ],
)
def test_other_spellings_are_the_same_envelope(data: bytes) -> None:
    assert data != ENVELOPE
    assert parse_envelope(data) == PARSED


@pytest.mark.parametrize(
    "hint", ["", "SHA256:nThbg6kX", KEY.key_id.upper(), "é", "x" * MAX_KEY_ID_CHARACTERS]
)
def test_a_key_id_may_be_anything_printable(hint: str) -> None:
    value = json.loads(ENVELOPE)
    set_at("signatures.0.keyid", hint)(value)
    assert parse_envelope(compact_json(value)).signatures[0].key_id == hint


def test_a_key_id_may_be_missing_and_more_than_one_may_be() -> None:
    value = json.loads(ENVELOPE)
    del value["signatures"][0]["keyid"]
    value["signatures"] *= 2
    assert [one.key_id for one in parse_envelope(compact_json(value)).signatures] == ["", ""]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected JSON"),
        (ENVELOPE + b"{}", "expected JSON"),
        (ENVELOPE + b"\0", "expected JSON"),
        (b"[]", "expected an object, got an array"),
        (ENVELOPE.replace(b"{", b'{"payload":"",', 1), "given twice"),
        (ENVELOPE.replace(b'"keyid"', b'"keyid":"","keyid"'), "given twice"),
        (b"\xef\xbb\xbf" + ENVELOPE, "byte order mark"),
        (b"[" * 100_000, "nested levels"),
        (b" " * (4 * 1024 * 1024 + 1), "expected at most"),
    ],
)
def test_envelopes_that_could_be_read_in_two_ways(data: bytes, words: str) -> None:
    with pytest.raises(VerificationError) as caught:
        parse_envelope(data)
    assert words in caught.value.message

"""Envelopes and statements: no byte that counts may be another, no spelling may mean two things."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.curve import FIELD_PRIME, GROUP_ORDER
from sandbox_host.bundle.envelope import build_envelope, parse_envelope, pre_authentication_encoding
from sandbox_host.errors import UntrustedError, VerificationError
from tests.support.bundles import NOW, make_key, signed_contents
from tests.support.forgeries import (
    KEY,
    OTHER_KEY,
    claim,
    compact,
    resigned,
    set_at,
    signatures_of,
    signed_as,
    signed_by,
    with_signatures,
)
from tests.support.tampering import (
    EVIL,
    FILES,
    GOOD,
    Bench,
    Case,
    Tamper,
    as_contents,
    named,
    sampled,
    with_envelope,
)

pytestmark = pytest.mark.timeout(60)

assert GOOD.envelope is not None
ENVELOPE: Final = GOOD.envelope
PAYLOAD: Final = parse_envelope(ENVELOPE).payload
EVIL_PAYLOAD: Final = PAYLOAD.replace(b'"size":0', b'"size":1').replace(b'"1.0.0"', b'"1.0.1"')
(MINE,) = signatures_of(GOOD)
(THEIRS,) = signatures_of(signed_contents(OTHER_KEY, FILES))
(OLD,) = signatures_of(signed_contents(KEY, {**FILES, "helper.py": EVIL}))


def edited(path: str, new: Any) -> Tamper:
    """Set a value of the envelope at a dotted path; ``...`` removes it."""

    def change(data: bytes) -> bytes:
        value = json.loads(data)
        set_at(path, new)(value)
        return compact(value) + b"\n"

    return with_envelope(change)


def stated(path: str, new: Any) -> Tamper:
    """Have the trusted key sign the statement with another value at a dotted path."""
    return as_contents(lambda good: resigned(good, set_at(path, new)))


def stated_so(change: Callable[[bytes], bytes]) -> Tamper:
    """Have the trusted key sign a payload of other bytes."""

    def make(good: Contents) -> Contents:
        payload = change(PAYLOAD)
        signature = KEY.sign(pre_authentication_encoding(payload))
        envelope = build_envelope(payload, KEY.public, signature)
        return dataclasses.replace(good, envelope=envelope)

    return as_contents(make)


def with_signature(value: bytes) -> Tamper:
    return edited("signatures.0.sig", base64.b64encode(value).decode())


def signatures(*entries: dict[str, Any]) -> Tamper:
    return as_contents(lambda good: with_signatures(good, list(entries)))


def sig() -> bytes:
    return base64.b64decode(MINE["sig"])


def flipped(place: int) -> bytes:
    value = bytearray(sig())
    value[place] ^= 1
    return bytes(value)


def greater(times: int) -> bytes:
    """Return the signature with so many group orders added to S, which RFC 8032 forbids."""
    s = int.from_bytes(sig()[32:], "little") + times * GROUP_ORDER
    return sig()[:32] + s.to_bytes(32, "little")


def over(message: bytes) -> str:
    return base64.b64encode(KEY.sign(message)).decode()


def forged_payload(data: bytes) -> bytes:
    assert EVIL_PAYLOAD != PAYLOAD
    return data.replace(base64.b64encode(PAYLOAD), base64.b64encode(EVIL_PAYLOAD))


def signed_with_itself(good: Contents) -> Contents:
    """Sign a statement that lists the envelope as a file."""
    files = {**good.files, "plugin.dsse.json": b"{}"}
    return dataclasses.replace(good, envelope=signed_as(files).envelope)


FILE: Final = json.loads(PAYLOAD)["predicate"]["files"][0]
MANY: Final = [{"keyid": str(number), "sig": MINE["sig"]} for number in range(17)]
BAD = VerificationError

FORM: Final = [
    Case("empty", with_envelope(lambda _: b""), BAD, "expected JSON"),
    Case("cut", with_envelope(lambda data: data[:-10]), BAD, "expected JSON"),
    Case("no JSON", with_envelope(lambda _: b"signed: yes\n"), BAD, "expected JSON"),
    Case("two documents", with_envelope(lambda data: data + data), BAD, "expected JSON"),
    Case("a null byte", with_envelope(lambda data: data + b"\0"), BAD, "expected JSON"),
    Case("a byte order mark", with_envelope(lambda d: b"\xef\xbb\xbf" + d), BAD, "byte order mark"),
    Case("UTF-16", with_envelope(lambda d: d.decode().encode("utf-16")), BAD, "expected UTF-8"),
    Case("a list", with_envelope(lambda data: b"[" + data + b"]"), BAD, "expected an object"),
    Case("deep", with_envelope(lambda _: b"[" * 100_000), BAD, "at most 6 nested levels"),
    Case(
        "wide",
        with_envelope(lambda _: b"[" + b"[]," * 30_000 + b"[]]"),
        BAD,
        "at most 20000 values",
    ),
    Case(
        "the payload twice",
        with_envelope(lambda d: d.replace(b"{", b'{"payload":"e30=",', 1)),
        BAD,
        "payload: this key is given twice",
    ),
    Case(
        "signatures twice",
        with_envelope(lambda d: d.replace(b"{", b'{"signatures":[],', 1)),
        BAD,
        "signatures: this key is given twice",
    ),
    Case("another key", edited("extra", 1), BAD, "unknown key 'extra'"),
    Case("no payload", edited("payload", ...), BAD, "missing key 'payload'"),
    Case("no type", edited("payloadType", ...), BAD, "missing key 'payloadType'"),
    Case("another type", edited("payloadType", "text/plain"), BAD, "payloadType: expected"),
    Case("a type in capitals", edited("payloadType", "Application/vnd.in-toto+json"), BAD, "got"),
    Case("no signatures", edited("signatures", []), BAD, "expected 1 to 16, got 0"),
    Case("17 signatures", edited("signatures", MANY), BAD, "expected 1 to 16, got 17"),
    Case("a certificate", edited("signatures.0.cert", "x"), BAD, "unknown key 'cert'"),
    Case("a key id that is none", edited("signatures.0.keyid", 7), BAD, "expected text"),
    Case("a key id that forges", edited("signatures.0.keyid", "\n::error"), BAD, "printable"),
    Case("a long key id", edited("signatures.0.keyid", "x" * 129), BAD, "at most 128"),
    Case("no base64", edited("payload", "{}"), BAD, "payload: not base64"),
    Case("URL-safe base64", edited("payload", "-_-_"), BAD, "payload: not base64"),
    Case("base64 with line feeds", edited("payload", "AA\nAA"), BAD, "payload: not base64"),
    Case("base64 with spare bits", edited("payload", "AAB="), BAD, "not canonical base64"),
]

SIGNATURES: Final = [
    Case("R changed", with_signature(flipped(3)), BAD, "the signature of"),
    Case("S changed", with_signature(flipped(40)), BAD, "does not match the signed bytes"),
    Case("zeros", with_signature(bytes(64)), BAD, "its R is a point of small order"),
    Case("short", with_signature(sig()[:63]), BAD, "expected 64 bytes, got 63"),
    Case("long", with_signature(sig() + b"\0"), BAD, "expected 64 bytes, got 65"),
    Case("S and the group order", with_signature(greater(1)), BAD, "its S is not smaller"),
    Case("S and much more", with_signature(greater(7)), BAD, "its S is not smaller"),
    Case(
        "R of small order",
        with_signature((1).to_bytes(32, "little") + sig()[32:]),
        BAD,
        "its R is a point of small order",
    ),
    Case(
        "R not canonical",
        with_signature((FIELD_PRIME + 5).to_bytes(32, "little") + sig()[32:]),
        BAD,
        "its R is not encoded canonically",
    ),
    Case("of another payload", signatures(OLD), BAD, "does not match"),
    Case("the payload changed", with_envelope(forged_payload), BAD, "does not match"),
    Case("of the bare payload", edited("signatures.0.sig", over(PAYLOAD)), BAD, "does not match"),
    Case(
        "of another type",
        edited("signatures.0.sig", over(pre_authentication_encoding(PAYLOAD, "text/plain"))),
        BAD,
        "does not match",
    ),
    Case(
        "in another's name",
        as_contents(lambda _: claim(signed_contents(OTHER_KEY, FILES), KEY.key_id)),
        BAD,
        "is not good for test key",
    ),
    Case("of a stranger", signatures(THEIRS), UntrustedError, OTHER_KEY.key_id),
    Case("of a stranger, unnamed", signatures({"sig": THEIRS["sig"]}), UntrustedError, "not name"),
    Case("bad, of nobody", signatures({**OLD, "keyid": "x"}), UntrustedError, "is not in"),
    Case("twice", signatures(MINE, MINE), BAD, "two of them claim the same key"),
    Case("good and bad", signatures({"sig": MINE["sig"]}, OLD), BAD, "does not match"),
    Case(
        "of strangers only",
        as_contents(lambda good: signed_by(good, *(make_key(seed) for seed in range(5, 21)))),
        UntrustedError,
        "has 0 signatures that count",
    ),
]

STATEMENTS: Final = [
    Case("no statement", stated_so(lambda _: b"trust me"), BAD, "statement: expected JSON"),
    Case("an empty one", stated_so(lambda _: b""), BAD, "statement: expected JSON"),
    Case("another format", stated("_type", "https://in-toto.io/Statement/v0.1"), BAD, "_type"),
    Case("another predicate", stated("predicateType", "urn:x"), BAD, "predicateType: expected"),
    Case("another schema", stated("predicate.schema", 2), BAD, "schema: expected 1"),
    Case("true for 1", stated("predicate.schema", True), BAD, "schema: expected 1"),
    Case("an exemption", stated("predicate.exempt", ["x.py"]), BAD, "unknown key 'exempt'"),
    Case("two subjects", stated("subject", [{}, {}]), BAD, "expected exactly one, got 2"),
    Case("another subject", stated("subject.0.name", "other"), BAD, "expected 'sample'"),
    Case("another root", stated("subject.0.digest.sha256", "0" * 64), BAD, "not the root digest"),
    Case("no digest", stated("subject.0.digest", {}), BAD, "missing key 'sha256'"),
    Case("a path that climbs", stated("predicate.files.0.path", "../../x"), BAD, "files[0].path"),
    Case("an absolute path", stated("predicate.files.0.path", "/etc/x"), BAD, "files[0].path"),
    Case("the same file twice", stated("predicate.files", [FILE, FILE]), BAD, "sorted and unique"),
    Case("no files", stated("predicate.files", []), BAD, "not the root digest"),
    Case("a mode", stated("predicate.files.0.mode", 493), BAD, "unknown key 'mode'"),
    Case("another size", stated("predicate.files.0.size", 7), BAD, "does not have the 7 bytes"),
    Case("a negative size", stated("predicate.files.0.size", -1), BAD, "expected an integer"),
    Case("capitals", stated("predicate.files.0.sha256", "A" * 64), BAD, "64 lower-case"),
    Case("another time", stated("predicate.created", "yesterday"), BAD, "created: expected a time"),
    Case("expired at birth", stated("predicate.expires", "2020-01-01T00:00:00Z"), BAD, "not after"),
    Case("the envelope listed", as_contents(signed_with_itself), BAD, "was removed"),
    Case(
        "a key twice",
        stated_so(lambda data: data.replace(b'"schema":1', b'"schema":1,"schema":1')),
        BAD,
        "given twice",
    ),
    Case(
        "expired",
        as_contents(lambda _: signed_contents(KEY, FILES, expires=NOW + dt.timedelta(seconds=1))),
        UntrustedError,
        "expired at 2026-01-31T12:00:01Z",
    ),
]

CONTROLS: Final = [
    Case("untouched", with_envelope(bytes)),
    Case("without a line feed", with_envelope(bytes.rstrip)),
    Case("white space around it", with_envelope(lambda data: b" \r\n\t" + data + b"\n")),
    Case("indented", with_envelope(lambda data: json.dumps(json.loads(data), indent=2).encode())),
    Case(
        "another order",
        with_envelope(lambda data: json.dumps(dict(reversed(json.loads(data).items()))).encode()),
    ),
    Case("an escape", with_envelope(lambda d: d.replace(b"payloadType", b"payload\\u0054ype"))),
    Case("no key id", edited("signatures.0.keyid", ...)),
    Case("another tool's key id", edited("signatures.0.keyid", "SHA256:nThbg6kX")),
    Case("a stranger beside", as_contents(lambda good: signed_by(good, OTHER_KEY, KEY))),
    Case("a stranger's nonsense beside", signatures({**OLD, "keyid": "x"}, MINE)),
    Case("the same signature twice, unnamed", signatures({"sig": MINE["sig"]}, MINE)),
    Case("signed without checks", as_contents(lambda good: signed_as(dict(good.files)))),
    Case("valid for long", stated("predicate.expires", "2126-01-31T12:00:00Z")),
]

CASES = named([*FORM, *SIGNATURES, *STATEMENTS, *CONTROLS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_verify(bench: Bench, case: Case) -> None:
    bench.check_by_verify(case)


@pytest.mark.needs("landlock", "seccomp")
@pytest.mark.parametrize("case", sampled(CASES), ids=str)
def test_load(bench: Bench, case: Case) -> None:
    bench.check_by_host(case)

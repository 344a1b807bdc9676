from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from sandbox_host.bundle import Contents
from sandbox_host.bundle.envelope import (
    MAX_SIGNATURES,
    Signature,
    build_envelope,
    parse_envelope,
    pre_authentication_encoding,
)
from sandbox_host.bundle.sign import complete, draft_more, sign
from sandbox_host.bundle.signature import signature_fault
from sandbox_host.bundle.statement import parse_statement
from sandbox_host.errors import (
    BundleError,
    ManifestError,
    SignerError,
    UnsignedError,
    UsageError,
    VerificationError,
)
from tests.support.bundles import NOW, make_key, plugin_files

KEY = make_key()


def contents(**options: object) -> Contents:
    return Contents(plugin_files(**options), None, "memory")  # type: ignore[arg-type]


def test_what_is_signed_says_what_it_is() -> None:
    envelope = sign(contents(name="WeatherModel", version="2.1.0"), KEY, NOW)
    statement = parse_statement(parse_envelope(envelope).payload)
    assert (statement.name, statement.identity, statement.version) == (
        "WeatherModel",
        "weather_model",
        "2.1.0",
    )
    assert statement.created == NOW
    assert statement.expires is None
    assert [f.path for f in statement.files] == ["__init__.py", "plugin.json"]


def test_signing_is_deterministic() -> None:
    assert sign(contents(), KEY, NOW) == sign(contents(), KEY, NOW)


def test_an_old_envelope_is_ignored() -> None:
    plain = contents()
    assert sign(Contents(plain.files, b"old", "x"), KEY, NOW) == sign(plain, KEY, NOW)


def test_times() -> None:
    zone = dt.timezone(dt.timedelta(hours=-5))
    now = dt.datetime(2026, 1, 31, 7, 0, 0, 123_456, zone)
    later = now + dt.timedelta(days=1, microseconds=5)
    statement = parse_statement(parse_envelope(sign(contents(), KEY, now, later)).payload)
    assert statement.created == NOW
    assert statement.expires == NOW + dt.timedelta(days=1)


@pytest.mark.parametrize("expires", [NOW, NOW - dt.timedelta(days=1)])
def test_what_expires_before_it_begins(expires: dt.datetime) -> None:
    with pytest.raises(UsageError, match="expire before"):
        sign(contents(), KEY, NOW, expires)


def test_times_need_their_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        sign(contents(), KEY, NOW.replace(tzinfo=None))
    with pytest.raises(UsageError, match="time zone"):
        sign(contents(), KEY, NOW, NOW.replace(year=2030, tzinfo=None))


def test_nobody_can_sign_what_every_host_refuses() -> None:
    with pytest.raises(ManifestError, match="version"):
        sign(contents(version=None), KEY, NOW)
    with pytest.raises(ManifestError, match="name"):
        sign(contents(name="json"), KEY, NOW)
    with pytest.raises(BundleError, match="native_code"):
        sign(contents(files={"x.so": b""}), KEY, NOW)
    with pytest.raises(BundleError, match="__pycache__"):
        sign(contents(files={"__pycache__/x.pyc": b""}), KEY, NOW)
    with pytest.raises(BundleError, match=r"no plugin\.json"):
        sign(Contents({"__init__.py": b""}, None, "x"), KEY, NOW)


# -- signers that are not to be believed -------------------------------------------------------


class _Wrong:
    """Says that it has `public`, and returns what it was given."""

    def __init__(self, public: bytes, answer: bytes) -> None:
        self.public = public
        self.answer = answer

    def sign(self, message: bytes) -> bytes:
        return self.answer


NEUTRAL = (1).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("signer", "words"),
    [
        (_Wrong(KEY.public, make_key(2).sign(b"x")), "does not match"),
        (_Wrong(KEY.public, KEY.sign(b"something else")), "does not match"),
        (_Wrong(KEY.public, b""), "0 bytes instead of 64"),
        (_Wrong(KEY.public, bytes(65)), "65 bytes instead of 64"),
        (_Wrong(KEY.public, NEUTRAL + bytes(32)), "small order"),
        (_Wrong(NEUTRAL, NEUTRAL + bytes(32)), "public key is a point of small order"),
        (_Wrong(b"short", bytes(64)), "5 bytes instead of 32"),
    ],
    ids=["foreign", "of another message", "empty", "long", "small R", "weak key", "no key"],
)
def test_what_a_signer_returns_is_verified_before_it_is_written(signer: _Wrong, words: str) -> None:
    with pytest.raises(SignerError, match=words):
        sign(contents(), signer, NOW)


# -- a second signature ------------------------------------------------------------------------

OTHER = make_key(2)


def signed(**options: object) -> Contents:
    plain = contents(**options)
    return dataclasses.replace(plain, envelope=sign(plain, KEY, NOW))


def test_a_second_person_signs_the_same_payload() -> None:
    first = signed(files={"main.py": "x = 1"})
    assert first.envelope is not None
    what = draft_more(first)
    assert [one.key_id for one in what.signatures] == [KEY.key_id]
    assert what.statement.created == NOW
    both = parse_envelope(complete(what, OTHER))
    assert both.payload == parse_envelope(first.envelope).payload
    assert [one.key_id for one in both.signatures] == [KEY.key_id, OTHER.key_id]
    message = pre_authentication_encoding(both.payload)
    for key, one in zip((KEY, OTHER), both.signatures, strict=True):
        assert not signature_fault(key.public, one.value, message)


def test_expiry_is_kept_by_who_signs_second() -> None:
    plain = contents()
    until = NOW + dt.timedelta(days=1)
    first = dataclasses.replace(plain, envelope=sign(plain, KEY, NOW, until))
    assert draft_more(first).statement.expires == until


def test_nothing_is_added_to_an_unsigned_plugin() -> None:
    with pytest.raises(UnsignedError, match="nothing to add to"):
        draft_more(contents())


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"files": {"main.py": "x = 2"}}, id="a file changed"),
        pytest.param({"files": {"main.py": "x = 1", "more.py": ""}}, id="a file more"),
        pytest.param({}, id="a file fewer"),
        pytest.param({"files": {"main.py": "x = 1"}, "version": "1.0.1"}, id="plugin.json changed"),
    ],
)
def test_nothing_is_added_to_what_the_first_one_did_not_sign(changed: dict[str, Any]) -> None:
    first = signed(files={"main.py": "x = 1"})
    assert draft_more(first)
    now = dataclasses.replace(contents(**changed), envelope=first.envelope)
    with pytest.raises(VerificationError, match="is not what it is"):
        draft_more(now)


def test_nothing_is_added_to_a_statement_in_another_form() -> None:
    """It could hold what this version does not show."""
    first = signed()
    assert first.envelope is not None
    payload = parse_envelope(first.envelope).payload.replace(b":", b": ", 1)
    envelope = build_envelope(payload, KEY.public, KEY.sign(pre_authentication_encoding(payload)))
    with pytest.raises(VerificationError, match="is not what it is"):
        draft_more(dataclasses.replace(first, envelope=envelope))


def test_a_key_signs_once_under_whatever_id() -> None:
    what = draft_more(signed())
    with pytest.raises(UsageError, match="has signed this already"):
        complete(what, KEY)
    renamed = dataclasses.replace(what.signatures[0], key_id="another name")
    with pytest.raises(UsageError, match="has signed this already"):
        complete(dataclasses.replace(what, signatures=(renamed,)), KEY)


def test_there_is_room_for_sixteen() -> None:
    what = draft_more(signed())
    many = tuple(Signature(str(i), bytes(64)) for i in range(MAX_SIGNATURES))
    complete(dataclasses.replace(what, signatures=many[1:]), KEY)
    with pytest.raises(UsageError, match="the most that one may have"):
        complete(dataclasses.replace(what, signatures=many), KEY)

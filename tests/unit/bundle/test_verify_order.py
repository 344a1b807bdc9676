"""The order in which verify decides, and the proof that it returns."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
from typing import Any

import pytest

from sandbox_host.bundle import verify as verify_module
from sandbox_host.bundle.envelope import (
    build_envelope,
    parse_envelope,
    pre_authentication_encoding,
)
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import VerifiedBundle, verify
from sandbox_host.errors import (
    UntrustedError,
    UsageError,
    VerificationError,
)
from tests.support.bundles import (
    NOW,
    signed_contents,
    store_of,
    store_text,
)
from tests.support.forgeries import (
    KEY,
    OTHER_KEY,
    REVOKED_KEY,
    TRUST,
    claim,
    compact,
    refused,
    signed_as,
)

FILES = {"main.py": "x = 1\n", "helper.py": "y = 2\n", "data/table.csv": "a,b\n1,2\n"}
# -- the order --------------------------------------------------------------------------------


def test_nothing_of_the_payload_is_parsed_before_the_key_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parsed(payload: bytes) -> None:
        raise AssertionError("the payload was parsed")

    monkeypatch.setattr(verify_module, "parse_statement", parsed)
    good = signed_contents(KEY, FILES)
    with pytest.raises(AssertionError, match="was parsed"):
        verify(good, TRUST, NOW)
    expired = TrustStore.parse(store_text(KEY, lines="not_after = 2026-01-01T00:00:00Z").encode())
    refused(good, UntrustedError, store_of(OTHER_KEY))
    refused(good, UntrustedError, store_of(KEY, more=REVOKED_KEY))
    refused(good, UntrustedError, expired)
    refused(claim(good, OTHER_KEY.key_id), VerificationError, store_of(KEY, OTHER_KEY))


def test_the_manifest_is_not_read_before_its_bytes_are_known_to_be_signed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(files: object) -> None:
        raise AssertionError("plugin.json was read")

    monkeypatch.setattr(verify_module, "check_contents", read)
    good = signed_contents(KEY, FILES)
    with pytest.raises(AssertionError, match="was read"):
        verify(good, TRUST, NOW)
    refused(
        dataclasses.replace(good, files={**good.files, "plugin.json": b"{}"}), VerificationError
    )


def test_the_signature_covers_the_payload_type() -> None:
    good = signed_contents(KEY, FILES)
    assert good.envelope is not None
    envelope = parse_envelope(good.envelope)
    other = KEY.sign(pre_authentication_encoding(envelope.payload, "text/plain"))
    contents = dataclasses.replace(
        good, envelope=build_envelope(envelope.payload, KEY.public, other)
    )
    assert "does not match" in refused(contents, VerificationError)


def test_a_signature_of_the_bare_payload_does_not_count() -> None:
    good = signed_contents(KEY, FILES)
    assert good.envelope is not None
    payload = parse_envelope(good.envelope).payload
    bare = build_envelope(payload, KEY.public, KEY.sign(payload))
    refused(dataclasses.replace(good, envelope=bare), VerificationError)


def test_a_signature_with_a_bit_flipped() -> None:
    good = signed_contents(KEY, FILES)
    assert good.envelope is not None
    value = json.loads(good.envelope)
    signature = bytearray(base64.b64decode(value["signatures"][0]["sig"]))
    signature[40] ^= 1
    value["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    contents = dataclasses.replace(good, envelope=compact(value) + b"\n")
    assert "the signature of" in refused(contents, VerificationError)


# -- the proof --------------------------------------------------------------------------------


def test_only_verify_makes_a_verified_bundle() -> None:
    bundle = verify(signed_contents(KEY, FILES), TRUST, NOW)
    fields = {f.name: getattr(bundle, f.name) for f in dataclasses.fields(bundle)}
    with pytest.raises(UsageError, match=r"made by sandbox_host\.bundle\.verify"):
        VerifiedBundle(**fields, token=object())
    with pytest.raises(TypeError):
        VerifiedBundle(**fields)  # type: ignore[call-arg]
    with pytest.raises((ValueError, TypeError, UsageError)):
        dataclasses.replace(bundle, files={})


def test_a_verified_bundle_cannot_be_changed() -> None:
    files = dict(signed_contents(KEY, FILES).files)
    contents = signed_as(files)
    bundle = verify(contents, TRUST, NOW)
    before = dict(bundle.files)
    files["main.py"] = b"swapped after verification"
    assert dict(bundle.files) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.origin = "elsewhere"  # type: ignore[misc]
    with pytest.raises(TypeError):
        bundle.files["main.py"] = b""  # type: ignore[index]
    assert all(type(data) is bytes for data in bundle.files.values())


def test_mutable_bytes_are_copied_before_they_are_checked() -> None:
    files: dict[str, Any] = dict(signed_contents(KEY, FILES).files)
    contents = signed_as(files)
    mutable = {path: bytearray(data) for path, data in files.items()}
    bundle = verify(dataclasses.replace(contents, files=mutable), TRUST, NOW)  # type: ignore[arg-type]
    mutable["__init__.py"][:] = b"evil"
    assert bundle.files["__init__.py"] == files["__init__.py"]


def test_a_moment_needs_its_time_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        verify(signed_contents(KEY, FILES), TRUST, NOW.replace(tzinfo=None))


def test_verifying_is_repeatable_and_leaves_its_input_alone() -> None:
    contents = signed_contents(KEY, FILES)
    before = copy.deepcopy(dict(contents.files))
    first, second = verify(contents, TRUST, NOW), verify(contents, TRUST, NOW)
    assert first == second
    assert dict(contents.files) == before

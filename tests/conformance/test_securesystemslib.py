"""DSSE as the library behind in-toto and TUF has it: each side verifies what the other made."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.envelope import PAYLOAD_TYPE, parse_envelope
from sandbox_host.bundle.sign import complete, draft, draft_more
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import UntrustedError, VerificationError
from tests.support.bundles import NOW, make_key, plugin_files, signed_contents, store_of
from tests.support.foreign_tools import needs_package
from tests.support.forgeries import refused

pytestmark = needs_package("securesystemslib")

A, B = make_key(1), make_key(2)
PLAIN = Contents(plugin_files({"main.py": "x = 'é'\n"}), None, "memory")


def theirs(key: PrivateKey, name: str | None = None) -> Any:
    """Return a public key as their library has it; `name` is its id."""
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(key.library_key().public_key(), name)


def their_envelope(payload: bytes, *keys: PrivateKey, payload_type: str = PAYLOAD_TYPE) -> Any:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    envelope = Envelope(payload, payload_type, {})
    for key in keys:
        envelope.sign(CryptoSigner(key.library_key()))
    return envelope


def contents_of(envelope: Any, indent: int | None = None) -> Contents:
    data = json.dumps(envelope.to_dict(), indent=indent).encode()
    return dataclasses.replace(PLAIN, envelope=data)


# -- ours, verified by them --------------------------------------------------------------------


def test_they_verify_what_we_sign() -> None:
    from securesystemslib.dsse import Envelope

    contents = signed_contents(A, {"main.py": "x = 'é'\n"})
    both = complete(draft_more(contents), B)
    read = Envelope.from_dict(json.loads(both))
    assert read.pae().startswith(b"DSSEv1 28 application/vnd.in-toto+json ")
    accepted = read.verify([theirs(A, A.key_id), theirs(B, B.key_id)], 2)
    assert set(accepted) == {A.key_id, B.key_id}


def test_they_refuse_what_was_changed() -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError as TheirError

    contents = signed_contents(A)
    assert contents.envelope is not None
    read = Envelope.from_dict(json.loads(contents.envelope))
    assert read.verify([theirs(A, A.key_id)], 1)
    read.payload = read.payload.replace(b"sample", b"simple")
    with pytest.raises(TheirError):
        read.verify([theirs(A, A.key_id)], 1)


# -- theirs, verified by us --------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_we_verify_what_they_sign(indent: int | None) -> None:
    envelope = their_envelope(draft(PLAIN, NOW).payload, A)
    contents = contents_of(envelope, indent)
    assert contents.envelope is not None
    # Their id of the same key is another one; ours is found all the same.
    assert parse_envelope(contents.envelope).key_id == theirs(A).keyid != A.key_id
    bundle = verify(contents, store_of(B, A), NOW)
    assert bundle.key_id == A.key_id


def test_we_count_two_of_theirs() -> None:
    two = store_of(A, B, more="[policy]\nthreshold = 2\n")
    payload = draft(PLAIN, NOW).payload
    bundle = verify(contents_of(their_envelope(payload, A, B)), two, NOW)
    assert {key.id for key in bundle.signers} == {A.key_id, B.key_id}
    refused(contents_of(their_envelope(payload, A)), UntrustedError, two)


def test_we_refuse_theirs_when_it_was_changed() -> None:
    envelope = their_envelope(draft(PLAIN, NOW).payload, A)
    envelope.payload = envelope.payload.replace(b"1.0.0", b"1.0.1")
    refused(contents_of(envelope), UntrustedError, store_of(A))
    other = their_envelope(draft(PLAIN, NOW).payload, A, payload_type="application/json")
    refused(contents_of(other), VerificationError, store_of(A))


def test_a_second_signature_of_ours_beside_theirs() -> None:
    first = contents_of(their_envelope(draft(PLAIN, NOW).payload, A), indent=2)
    both = dataclasses.replace(first, envelope=complete(draft_more(first), B))
    bundle = verify(both, store_of(A, B, more="[policy]\nthreshold = 2\n"), NOW)
    assert [key.id for key in bundle.signers] == [A.key_id, B.key_id]

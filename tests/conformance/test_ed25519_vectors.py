"""Ed25519 as its authors have it: the 1,024 vectors of ``sign.input``, and key files of others.

Both are what the package ``cryptography-vectors`` ships.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import parse_private_key
from sandbox_host.bundle.public_keys import format_public_key, parse_public_key
from sandbox_host.bundle.signature import PrivateKey, public_key_fault, signature_fault
from sandbox_host.errors import TrustStoreError
from tests.support.foreign_tools import needs_package

pytestmark = needs_package("cryptography_vectors")


@pytest.fixture(scope="module")
def directory() -> Path:
    import cryptography_vectors

    return Path(cryptography_vectors.__file__).parent / "asymmetric" / "Ed25519"


@pytest.fixture(scope="module")
def vectors(directory: Path) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Seed, public key, message and signature of each."""

    def read() -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
        for line in (directory / "sign.input").read_text().splitlines():
            secret, public, message, signed = map(bytes.fromhex, line.split(":")[:4])
            yield secret[:32], public, message, signed[:64]

    found = list(read())
    assert len(found) == 1_024
    return found


def test_every_vector_is_signed_and_verified(
    vectors: list[tuple[bytes, bytes, bytes, bytes]],
) -> None:
    for seed, public, message, signature in vectors:
        key = PrivateKey.from_seed(seed)
        assert key.public == public
        assert key.sign(message) == signature
        assert not signature_fault(public, signature, message)


def test_no_vector_is_verified_after_any_change(
    vectors: list[tuple[bytes, bytes, bytes, bytes]],
) -> None:
    """One bit of each, in another place each time, and the message of the neighbour."""
    for index, (_, public, message, signature) in enumerate(vectors):
        for length, pick in ((64, "signature"), (32, "public"), (len(message), "message")):
            if not length:
                continue
            bit = index * 7 % (length * 8)
            whole = {"signature": signature, "public": public, "message": message}
            changed = bytearray(whole[pick])
            changed[bit // 8] ^= 1 << bit % 8
            whole[pick] = bytes(changed)
            assert signature_fault(whole["public"], whole["signature"], whole["message"])
        assert signature_fault(public, signature, message + b"\0")


def test_every_key_of_the_vectors_may_be_trusted(
    vectors: list[tuple[bytes, bytes, bytes, bytes]],
) -> None:
    for _, public, _, _ in vectors[::16]:  # 2 ms each
        assert not public_key_fault(public)


def test_keys_in_files_that_others_wrote(directory: Path) -> None:
    public = parse_public_key((directory / "ed25519-pub.pem").read_bytes())
    key = parse_private_key((directory / "ed25519-pkcs8.pem").read_bytes())
    assert key.public == public
    locked = (directory / "ed25519-pkcs8-enc.pem").read_bytes()
    assert parse_private_key(locked, b"password").public == public
    assert parse_public_key(format_public_key(public).encode()) == public


def test_a_frame_with_unused_bits_set_is_no_public_key(directory: Path) -> None:
    def pem(name: str) -> bytes:
        body = base64.b64encode((directory / name).read_bytes())
        return b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n"

    assert parse_public_key(pem("ed25519-pub.der"))
    with pytest.raises(TrustStoreError, match="cannot be read"):
        parse_public_key(pem("ed25519-pub-non-zero-unused-bits.der"))

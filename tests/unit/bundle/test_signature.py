from __future__ import annotations

import copy

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sandbox_host.bundle.curve import FIELD_PRIME, GROUP_ORDER, add, decode_point
from sandbox_host.bundle.signature import (
    SMALL_ORDER_Y,
    PrivateKey,
    key_id,
    public_key_fault,
    signature_fault,
)
from tests.support.bundles import make_key

# RFC 8032, section 7.1, tests 1 to 3: secret, public, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
NEUTRAL = (1).to_bytes(32, "little")
SMALL_ENCODINGS = sorted(
    y[:31] + bytes([y[31] | sign]) for y in SMALL_ORDER_Y for sign in (0x00, 0x80)
)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_known_answers(secret: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey.from_seed(bytes.fromhex(secret))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert not signature_fault(key.public, bytes.fromhex(signature), bytes.fromhex(message))
    assert signature_fault(key.public, bytes.fromhex(signature), bytes.fromhex(message) + b"x")


def test_there_are_fourteen_small_order_encodings() -> None:
    assert len(SMALL_ENCODINGS) == 14


@pytest.mark.parametrize("encoded", SMALL_ENCODINGS, ids=bytes.hex)
def test_a_small_order_key_is_refused_which_the_library_loads(encoded: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(encoded)
    assert "small order" in public_key_fault(encoded)
    assert "small order" in signature_fault(encoded, NEUTRAL + bytes(32), b"anything")


def test_the_attack_works_on_the_library_alone() -> None:
    forged = NEUTRAL + bytes(32)
    for message in (b"one", b"two", b"three"):
        Ed25519PublicKey.from_public_bytes(NEUTRAL).verify(forged, message)
        assert signature_fault(NEUTRAL, forged, message)


@pytest.mark.parametrize("encoded", SMALL_ENCODINGS, ids=bytes.hex)
def test_a_small_order_r_is_refused(encoded: bytes) -> None:
    key = make_key()
    signature = encoded + key.sign(b"message")[32:]
    assert "its R is a point of small order" in signature_fault(key.public, signature, b"message")


def test_s_plus_the_group_order_is_refused() -> None:
    key = make_key()
    good = key.sign(b"message")
    s = int.from_bytes(good[32:], "little") + GROUP_ORDER
    malleable = good[:32] + s.to_bytes(32, "little")
    assert not signature_fault(key.public, good, b"message")
    assert "S is not smaller" in signature_fault(key.public, malleable, b"message")


@pytest.mark.parametrize("y", range(FIELD_PRIME + 2, 2**255))
def test_non_canonical_coordinates_are_refused(y: int) -> None:
    encoded = y.to_bytes(32, "little")
    key = make_key()
    assert "y >= p" in public_key_fault(encoded)
    assert "y >= p" in signature_fault(encoded, key.sign(b"m"), b"m")
    assert "its R is not" in signature_fault(key.public, encoded + key.sign(b"m")[32:], b"m")


def test_a_key_of_mixed_order_is_refused() -> None:
    point, small = decode_point(make_key().public), decode_point(SMALL_ENCODINGS[0])
    assert point is not None
    assert small is not None
    x, y, z, _ = add(point, small)
    inverse = pow(z, -1, FIELD_PRIME)
    value = y * inverse % FIELD_PRIME | (x * inverse % FIELD_PRIME & 1) << 255
    mixed = value.to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(mixed)
    assert "not of prime order" in public_key_fault(mixed)
    assert not public_key_fault(make_key().public)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_wrong_lengths_of_keys(length: int) -> None:
    assert "bytes instead of 32" in public_key_fault(bytes(length))
    assert "bytes instead of 32" in signature_fault(bytes(length), bytes(64), b"")
    if length:
        with pytest.raises(ValueError, match="32 bytes"):
            PrivateKey.from_seed(bytes(length))


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_wrong_lengths_of_signatures(length: int) -> None:
    assert "bytes instead of 64" in signature_fault(make_key().public, bytes(length), b"")


def test_a_public_key_that_is_no_point() -> None:
    assert "not a point" in public_key_fault((2).to_bytes(32, "little"))
    assert signature_fault((2).to_bytes(32, "little"), make_key().sign(b""), b"")


def test_somebody_elses_signature() -> None:
    assert "does not match" in signature_fault(make_key(1).public, make_key(2).sign(b"m"), b"m")


def test_a_private_key_does_not_show_or_copy_itself() -> None:
    key = make_key(7)
    assert repr(key) == f"PrivateKey(key_id={key_id(key.public)!r})"
    assert (bytes([7]) * 32).hex() not in repr(key)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="written by"):
            duplicate(key)

"""A vector for every rule that is stricter than the library underneath, made on the curve itself.

Where somebody can make one, it is a signature that the library accepts: then it is our rule that
refuses it, and nothing else. After "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020)
and "It's 255:19AM. Do you know what your validation criteria are?" (de Valence, 2020).
"""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sandbox_host.bundle.curve import (
    FIELD_PRIME,
    GROUP_ORDER,
    Point,
    add,
    decode_point,
    multiply,
)
from sandbox_host.bundle.public_keys import format_public_key, parse_public_key
from sandbox_host.bundle.signature import (
    SMALL_ORDER_Y,
    key_id,
    public_key_fault,
    signature_fault,
)
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.errors import TrustStoreError
from tests.support.bundles import make_key

SIGN_BIT = 1 << 255
SEED = bytes([1]) * 32
KEY = make_key(1)


def encode(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, FIELD_PRIME)
    value = y * inverse % FIELD_PRIME | (x * inverse % FIELD_PRIME & 1) << 255
    return value.to_bytes(32, "little")


def decoded(encoded: bytes) -> Point:
    point = decode_point(encoded)
    assert point is not None
    return point


BASE = decoded(bytes.fromhex("58" + "66" * 31))


def torsion() -> list[Point]:
    """The eight points whose order divides 8; the neutral one first."""
    point = next(
        small
        for y in itertools.count(2)
        if (found := decode_point(y.to_bytes(32, "little"))) is not None
        and len({encode(multiply(i, small := multiply(GROUP_ORDER, found))) for i in range(8)}) == 8
    )
    return [multiply(i, point) for i in range(8)]


TORSION = torsion()
Y_OF_SMALL = {int.from_bytes(encode(point), "little") % SIGN_BIT for point in TORSION}
# Each y with either sign bit, be that a point or not; and y + p where it fits into 255 bits.
SMALL = sorted(
    (y + extra | sign).to_bytes(32, "little")
    for y in Y_OF_SMALL
    for extra in (0, FIELD_PRIME)
    for sign in (0, SIGN_BIT)
    if y + extra < SIGN_BIT
)
NON_CANONICAL = [
    (y | sign).to_bytes(32, "little")
    for y in range(FIELD_PRIME, SIGN_BIT)
    for sign in (0, SIGN_BIT)
]


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % GROUP_ORDER


def secret_scalar() -> int:
    """The scalar of `KEY` (RFC 8032, section 5.1.5)."""
    digest = bytearray(hashlib.sha512(SEED).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return int.from_bytes(digest, "little")


def library_accepts(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_these_are_all_fourteen_encodings() -> None:
    assert len(SMALL) == 14
    assert len(NON_CANONICAL) == 38


def test_the_table_of_small_orders_is_that_of_the_curve() -> None:
    """One wrong digit in it went unnoticed for long, because every test had taken it as given."""
    assert {encoded[:31] + bytes((encoded[31] & 127,)) for encoded in SMALL} == SMALL_ORDER_Y


def test_a_good_signature_made_by_hand_passes() -> None:
    """The control: what the others have in common is not what refuses them."""
    r = 123_456_789
    encoded = encode(multiply(r, BASE))
    s = (r + challenge(encoded, KEY.public, b"message") * secret_scalar()) % GROUP_ORDER
    signature = encoded + scalar(s)
    assert library_accepts(KEY.public, signature, b"message")
    assert not signature_fault(KEY.public, signature, b"message")


# -- A of small order --------------------------------------------------------------------------


@pytest.mark.parametrize("public", SMALL, ids=bytes.hex)
def test_a_key_of_small_order_for_which_anyone_signs(public: bytes) -> None:
    """R = [S]B holds whenever the challenge times A is neutral: one message in eight at least."""
    s = 987_654_321
    forged = encode(multiply(s, BASE)) + scalar(s)
    messages = [f"message {i}".encode() for i in range(200)]
    accepted = [message for message in messages if library_accepts(public, forged, message)]
    assert accepted
    for message in accepted:
        assert "the public key is a point of small order" in signature_fault(
            public, forged, message
        )
    assert "small order" in public_key_fault(public)


@pytest.mark.parametrize("public", [*SMALL, *NON_CANONICAL], ids=bytes.hex)
def test_no_form_of_it_enters_a_trust_store(public: bytes) -> None:
    text = base64.b64encode(public).decode()
    store = (
        f'[[key]]\nid = "{key_id(public)}"\npublic = "{text}"\nlabel = "x"\n'
        'roles = ["publisher"]\nplugins = ["*"]\n'
    )
    with pytest.raises(TrustStoreError, match="anyone could sign for it"):
        TrustStore.parse(store.encode())
    for form in (public, text.encode(), format_public_key(public).encode()):
        with pytest.raises(TrustStoreError, match="anyone could sign for it"):
            parse_public_key(form)


# -- R of small order --------------------------------------------------------------------------


@pytest.mark.parametrize("r", SMALL, ids=bytes.hex)
def test_an_r_of_small_order(r: bytes) -> None:
    s = challenge(r, KEY.public, b"message") * secret_scalar() % GROUP_ORDER
    signature = r + scalar(s)
    # Only the neutral one can hold without the cofactor; the others hold with it.
    assert library_accepts(KEY.public, signature, b"message") is (r == encode(TORSION[0]))
    assert "its R is a point of small order" in signature_fault(KEY.public, signature, b"message")


# -- y >= p ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoded", NON_CANONICAL, ids=bytes.hex)
def test_coordinates_that_are_not_reduced(encoded: bytes) -> None:
    good = KEY.sign(b"message")
    words = "small order" if encoded in SMALL else "not encoded canonically"
    assert words in public_key_fault(encoded)
    assert f"the public key is {'a point of ' if encoded in SMALL else ''}{words}" in (
        signature_fault(encoded, good, b"message")
    )
    assert words in signature_fault(KEY.public, encoded + good[32:], b"message")


# -- S >= L ------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", range(1, 16))
def test_a_scalar_that_is_not_reduced(times: int) -> None:
    good = KEY.sign(b"message")
    s = int.from_bytes(good[32:], "little") + times * GROUP_ORDER
    assert "S is not smaller" in signature_fault(KEY.public, good[:32] + scalar(s), b"message")


@pytest.mark.parametrize("s", [GROUP_ORDER, GROUP_ORDER + 1, (1 << 253) - 1, (1 << 256) - 1])
def test_the_smallest_and_the_largest_that_are_too_large(s: int) -> None:
    good = KEY.sign(b"message")
    assert "S is not smaller" in signature_fault(KEY.public, good[:32] + scalar(s), b"message")
    below = signature_fault(KEY.public, good[:32] + scalar(GROUP_ORDER - 1), b"message")
    assert below == "it does not match the signed bytes"


# -- keys of mixed order -----------------------------------------------------------------------


@pytest.mark.parametrize("index", range(1, 8))
def test_a_key_of_mixed_order_signs_but_is_not_trusted(index: int) -> None:
    """Verifiers disagree on its signatures: with the cofactor all are good, without it some."""
    public = encode(add(decoded(KEY.public), TORSION[index]))
    verdicts = set()
    for number in range(60):
        message = f"message {number}".encode()
        r = encode(multiply(number + 1, BASE))
        s = (number + 1 + challenge(r, public, message) * secret_scalar()) % GROUP_ORDER
        verdicts.add(library_accepts(public, r + scalar(s), message))
    assert verdicts == {True, False}
    assert public_key_fault(public) == "is not of prime order"
    assert public_key_fault(KEY.public) == ""


def test_a_key_that_is_no_point() -> None:
    outside = [y for y in range(2, 40) if decode_point(y.to_bytes(32, "little")) is None]
    assert outside
    for y in outside:
        encoded = y.to_bytes(32, "little")
        assert public_key_fault(encoded) == "is not a point of the curve"
        assert signature_fault(encoded, KEY.sign(b"message"), b"message")

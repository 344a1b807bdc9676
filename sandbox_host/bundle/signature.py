"""Ed25519, strictly: what RFC 8032 allows a verifier to let pass is refused here.

The library underneath is correct on ordinary input but loads all fourteen small-order encodings
as public keys, and with such a key one constant signature verifies almost any message. So, in
this order and before the library is asked: lengths; A and R canonical (y < p) and not of small
order in any encoding; S < L. See "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020).
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from sandbox_host.bundle.curve import (
    FIELD_PRIME,
    GROUP_ORDER,
    decode_point,
    has_prime_order,
)

PUBLIC_KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_ORDER_8_Y: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7

SMALL_ORDER_Y: Final = frozenset(
    y.to_bytes(32, "little")
    for y in (
        0,
        1,
        _ORDER_8_Y,
        FIELD_PRIME - _ORDER_8_Y,
        FIELD_PRIME - 1,
        FIELD_PRIME,
        FIELD_PRIME + 1,
    )
)
"""Every encoding of a point whose order divides 8, with the sign bit cleared: 7 of them, 14 with
either sign. The last two are the non-canonical forms of 0 and 1."""


class PrivateKey:
    """An Ed25519 private key that cannot be printed, compared or serialised by accident."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: Final = key.public_key().public_bytes_raw()

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Make a key of the 32 secret bytes of RFC 8032.

        Raises:
            ValueError: `seed` has another length.
        """
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 private key has {SEED_BYTES} bytes, not {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def key_id(self) -> str:
        """The id of the public half; see `key_id`."""
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._key.sign(message)

    def library_key(self) -> Ed25519PrivateKey:
        """Return the library's object, for `sandbox_host.bundle.keys` to serialise."""
        return self._key

    def __repr__(self) -> str:
        return f"PrivateKey(key_id={self.key_id!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a private key is written by sandbox_host.bundle.keys only")


def key_id(public: bytes) -> str:
    """Return the id of a raw public key: its SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(public).hexdigest()


def point_fault(encoded: bytes) -> str:
    """Return why 32 bytes may not serve as A or R, or "" where they may.

    Cheap (under a microsecond): it does not compute on the curve.
    """
    y = encoded[:31] + bytes((encoded[31] & 0x7F,))
    if y in SMALL_ORDER_Y:
        return "is a point of small order"
    if int.from_bytes(y, "little") >= FIELD_PRIME:
        return "is not encoded canonically (y >= p)"
    return ""


@functools.lru_cache(maxsize=1_024)
def public_key_fault(public: bytes) -> str:
    """Return why a raw public key must not be trusted, or "" where it may be.

    The full check, with arithmetic on the curve, which takes milliseconds: whenever a trust store
    is read, for the same keys mostly. It depends on nothing but the bytes.
    """
    if len(public) != PUBLIC_KEY_BYTES:
        return f"has {len(public)} bytes instead of {PUBLIC_KEY_BYTES}"
    fault = point_fault(public)
    if fault:
        return fault
    point = decode_point(public)
    if point is None:
        return "is not a point of the curve"
    return "" if has_prime_order(point) else "is not of prime order"


def signature_fault(public: bytes, signature: bytes, message: bytes) -> str:
    """Return why `signature` does not prove that `public`'s owner signed `message`, or "".

    A reason in words, never an exception, whatever the bytes are: callers turn it into their own
    typed error.
    """
    if len(public) != PUBLIC_KEY_BYTES:
        return f"the public key has {len(public)} bytes instead of {PUBLIC_KEY_BYTES}"
    if len(signature) != SIGNATURE_BYTES:
        return f"it has {len(signature)} bytes instead of {SIGNATURE_BYTES}"
    for what, encoded in (("the public key", public), ("its R", signature[:32])):
        fault = point_fault(encoded)
        if fault:
            return f"{what} {fault}"
    if int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        return "its S is not smaller than the group order"
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return "it does not match the signed bytes"
    return ""

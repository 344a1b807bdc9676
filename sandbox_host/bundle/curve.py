"""Arithmetic on edwards25519, for one question only: does a point have the prime order L?

A public key with a small-order component verifies messages that its owner never signed, and the
underlying library loads such keys without a word. This code sees public values only, so it needs
no constant time. It runs once when a key enters a trust store (about 2 ms), never per signature.

Formulas: RFC 8032, section 5.1 (extended coordinates of section 5.1.4).
"""

from __future__ import annotations

from typing import Final

FIELD_PRIME: Final = 2**255 - 19
"""p: coordinates are integers modulo this."""

GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""L: the prime order of the base point; a signature's S must be smaller."""

_P: Final = FIELD_PRIME
_ENCODED_BYTES: Final = 32
_D: Final = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)

Point = tuple[int, int, int, int]
"""(X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z."""

_NEUTRAL: Final[Point] = (0, 1, 1, 0)


def decode_point(encoded: bytes) -> Point | None:
    """Return the point that 32 bytes encode, or None where they encode none canonically.

    RFC 8032, section 5.1.3, with both of its refusals: y >= p, and the sign bit set on x = 0.
    """
    value = int.from_bytes(encoded, "little")
    sign, y = value >> 255, value & ((1 << 255) - 1)
    if len(encoded) != _ENCODED_BYTES or y >= _P:
        return None
    x = _recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % _P)


def _recover_x(y: int, sign: int) -> int | None:
    numerator, denominator = (y * y - 1) % _P, (_D * y * y + 1) % _P
    square = numerator * pow(denominator, -1, _P) % _P
    if square == 0:
        return None if sign else 0
    root = pow(square, (_P + 3) // 8, _P)
    if root * root % _P != square:
        root = root * _SQRT_MINUS_ONE % _P
    if root * root % _P != square:
        return None
    return root if root & 1 == sign else _P - root


def add(first: Point, second: Point) -> Point:
    """Return the sum of two points (complete: it holds for equal and neutral ones too)."""
    x1, y1, z1, t1 = first
    x2, y2, z2, t2 = second
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = 2 * t1 * t2 * _D % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def multiply(scalar: int, point: Point) -> Point:
    """Return `scalar` times `point`. Not in constant time: for public values only."""
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def is_neutral(point: Point) -> bool:
    """Say whether `point` is the group's neutral element."""
    x, y, z, _ = point
    return x == 0 and y == z


def has_prime_order(point: Point) -> bool:
    """Say whether `point` generates the group of order L: not neutral, and without cofactor."""
    return not is_neutral(point) and is_neutral(multiply(GROUP_ORDER, point))

from __future__ import annotations

import pytest

from sandbox_host.bundle.curve import (
    FIELD_PRIME,
    GROUP_ORDER,
    Point,
    add,
    decode_point,
    has_prime_order,
    is_neutral,
    multiply,
)
from tests.support.bundles import make_key

BASE_POINT = bytes.fromhex("58" + "66" * 31)  # y = 4/5, RFC 8032 section 5.1


def encode(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, FIELD_PRIME)
    affine_x, affine_y = x * inverse % FIELD_PRIME, y * inverse % FIELD_PRIME
    return (affine_y | (affine_x & 1) << 255).to_bytes(32, "little")


def base() -> Point:
    point = decode_point(BASE_POINT)
    assert point is not None
    return point


def torsion_points() -> set[bytes]:
    """The eight points whose order divides 8, from any point that is not in the subgroup."""
    found: set[bytes] = set()
    for y in range(2, 60):
        point = decode_point(y.to_bytes(32, "little"))
        if point is not None:
            small = multiply(GROUP_ORDER, point)
            found |= {encode(multiply(k, small)) for k in range(8)}
    return found


def test_the_base_point_has_the_prime_order() -> None:
    assert has_prime_order(base())
    assert is_neutral(multiply(GROUP_ORDER, base()))
    assert not is_neutral(multiply(GROUP_ORDER - 1, base()))


def test_the_known_coordinates_of_the_base_point() -> None:
    x, y, z, t = base()
    assert x == 15112221349535400772501151409588531511454012693041857206046113283949847762202
    assert y == 46316835694926478169428394003475163141307993866256225615783033603165251855960
    assert (z, t) == (1, x * y % FIELD_PRIME)


@pytest.mark.parametrize("scalar", [1, 2, 3, 7, 2**200 + 9])
def test_multiplication_agrees_with_repeated_addition(scalar: int) -> None:
    double = add(multiply(scalar, base()), base())
    assert encode(double) == encode(multiply(scalar + 1, base()))


def test_public_keys_of_the_library_have_the_prime_order() -> None:
    for seed in range(5):
        point = decode_point(make_key(seed).public)
        assert point is not None
        assert encode(point) == make_key(seed).public
        assert has_prime_order(point)


def test_there_are_eight_small_points_and_none_has_the_prime_order() -> None:
    points = torsion_points()
    assert len(points) == 8
    for encoded in points:
        point = decode_point(encoded)
        assert point is not None
        assert is_neutral(multiply(8, point))
        assert not has_prime_order(point)


def test_a_key_with_a_small_component_is_not_of_prime_order() -> None:
    for encoded in torsion_points():
        small = decode_point(encoded)
        assert small is not None
        mixed = add(base(), small)
        assert has_prime_order(mixed) is is_neutral(small)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(FIELD_PRIME.to_bytes(32, "little"), id="y is p"),
        pytest.param((FIELD_PRIME + 1).to_bytes(32, "little"), id="y is p + 1"),
        pytest.param((1 | 1 << 255).to_bytes(32, "little"), id="x is 0 with its sign bit set"),
        pytest.param((2).to_bytes(32, "little"), id="not on the curve"),
        pytest.param(bytes(31), id="31 bytes"),
        pytest.param(bytes(33), id="33 bytes"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_encodes_no_point(encoded: bytes) -> None:
    assert decode_point(encoded) is None

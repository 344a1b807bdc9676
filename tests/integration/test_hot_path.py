"""What a call costs, in figures that do not depend on the machine's mood: they are the budget.

Whoever makes the path of a call longer meets this test, and raises a figure on purpose or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hot_path import (
    BothSides,
    blocks_kept,
    both_sides,
    functions_called,
    reads_and_writes,
)

SMALL = b"x" * 32
CALLS = 200


@pytest.fixture
def sides() -> Iterator[BothSides]:
    with both_sides() as made:
        for _ in range(CALLS):
            assert made.call(SMALL) == SMALL
        yield made


def test_functions_called_for_a_call(sides: BothSides) -> None:
    assert functions_called(lambda: sides.call(SMALL)) <= 260


def test_two_reads_and_two_writes(sides: BothSides) -> None:
    assert reads_and_writes(lambda: sides.call(SMALL)) == (2, 2)


def test_nothing_is_kept_of_a_call(sides: BothSides) -> None:
    def many() -> None:
        for _ in range(10 * CALLS):
            sides.call(SMALL)

    many()  # whatever grows to its bound has
    assert blocks_kept(many) < CALLS

"""The first difference of two values, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_host.runtime.compared import Comparison

NAN = float("nan")


def array(*values: float, kind: str = "d", shape: tuple[int, ...] = ()) -> memoryview:
    view = memoryview(bytearray(8 * len(values))).cast(kind)  # type: ignore[call-overload]
    for index, value in enumerate(values):
        view[index] = value
    return view.cast("B").cast(kind, shape or (len(values),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (NAN, NAN),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([NAN], [NAN]),
        (array(1.0, NAN), array(1.0, NAN)),
        ([1.0, {"a": 100.0}], [1.05, {"a": 109.0}]),
        (array(1.0), array(1.05)),
        ({"skip": 1}, {}),
        ([{"SKIP": 1}], [{"skip": 2}]),
    ],
)
def test_the_same(one: Any, other: Any) -> None:
    assert Comparison(0.1, frozenset(["skip"])).first("result", one, other) is None


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (1, 2, "result: 1 != 2"),
        (1, True, "result: 1 != True"),
        (None, 0, "result: None != 0"),
        ("1", 1, 'result: "1" != 1'),
        (b"1", "1", 'result: 1 bytes (31) != "1"'),
        (b"x" * 20, b"", "result: 20 bytes (7878787878787878...) != 0 bytes ()"),
        (NAN, 1.0, "result: nan != 1.0"),
        ([1, 2], [1], "result[1]: 2 != nothing"),
        ([], [[1]], "result[0]: nothing != a list of 1"),
        ([], {}, "result: a list of 0 != an object of 0"),
        ({"a": {}}, {}, "result.a: an object of 0 != nothing"),
        ({}, {"b": 1, "a": 1}, "result.a: nothing != 1"),
        ({"rows": [{"t": 20.5}]}, {"rows": [{"t": 21.0}]}, "result.rows[0].t: 20.5 != 21.0"),
        ({"\x1b[2J": 1}, {}, 'result."\\u001b[2J": 1 != nothing'),
        ("\x1b", "\u202e", 'result: "\\u001b" != "\\u202e"'),
        (array(1.0, 2.0), array(1.0, 3.0), "result[1]: 2.0 != 3.0"),
        (
            array(1, 2, 3, 4, shape=(2, 2)),
            array(1, 2, 9, 4, shape=(2, 2)),
            "result[1][0]: 3.0 != 9.0",
        ),
        (array(1.0), array(1, kind="q"), "result: an array d[1] != an array q[1]"),
        (array(1.0), [1.0], "result: an array d[1] != a list of 1"),
    ],
)
def test_the_first_difference(one: Any, other: Any, told: str) -> None:
    assert str(Comparison().first("result", one, other)) == told


def test_a_tolerance_is_of_the_difference_or_of_a_part() -> None:
    near = Comparison(1e-9)
    assert near.first("x", 1e12, 1e12 + 1) is None
    assert near.first("x", 0.0, 1e-10) is None
    assert near.first("x", 0.0, 1e-8) is not None
    assert near.first("x", 0.0, NAN) is not None

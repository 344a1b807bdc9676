from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

Bench = Callable[[str], ModuleType]
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def frame(bench: Bench) -> ModuleType:
    return bench("frame")


def test_first_turn_warms_up_and_another_way_begins_each_round(frame: ModuleType) -> None:
    order: list[str] = []

    def way(name: str) -> Callable[[], list[float]]:
        def turn() -> list[float]:
            order.append(name)
            return [float(len(order))]

        return turn

    table = frame.Table("work", "ms", "a")
    frame.take_turns(table, {name: way(name) for name in "abc"}, 2)
    assert "".join(order) == "abcbcacab"
    assert table.turns == {"a": [[6.0], [8.0]], "b": [[4.0], [9.0]], "c": [[5.0], [7.0]]}
    assert list(table.turns) == ["a", "b", "c"]


def test_a_way_that_fails_is_told_and_takes_no_more_turns(frame: ModuleType) -> None:
    turns = 0

    def breaks() -> list[float]:
        nonlocal turns
        turns += 1
        if turns == 2:
            raise ConnectionError("the other end\nis gone from /var/run/there")
        return [1.0]

    table = frame.Table("work", "ms", "a")
    frame.take_turns(table, {"a": lambda: [1.0], "b": breaks}, 4)
    assert turns == 2
    assert len(table.turns["a"]) == 4
    assert table.rows()[-1] == {
        "name": "b",
        "missing": "ConnectionError: the other end is gone from …",
    }
    assert "not there: ConnectionError" in frame.text_of(table.as_dict())


def test_a_ratio_compares_what_was_measured_in_the_same_round(frame: ModuleType) -> None:
    table = frame.Table("work", "ms", "a")
    for mood in (1.0, 10.0, 100.0):
        table.add("a", [mood, mood, mood])
        table.add("b", [2 * mood, 3 * mood, 90 * mood])
    assert table.ratio("b") == pytest.approx(3.0)
    assert table.ratio("a") == 1.0


@pytest.mark.parametrize("base", [[], [[0.0]], [[-1.0]]], ids=["missing", "zero", "negative"])
def test_no_ratio_to_what_is_no_measure(frame: ModuleType, base: list[list[float]]) -> None:
    table = frame.Table("work", "ms", "a")
    for turn in base:
        table.add("a", turn)
    table.add("b", [1.0])
    assert table.ratio("b") is None
    assert frame.text_of(table.as_dict()).splitlines()[-1].split()[:2] == ["-", "b"]


def test_p99_needs_a_hundred_values_and_is_of_no_rate(frame: ModuleType) -> None:
    few, many = frame.Table("work", "ms", "a"), frame.Table("work", "ms", "a")
    rate = frame.Table("work", "per s", "a", rate=True)
    few.add("a", [1.0] * 99)
    many.add("a", [*[1.0] * 99, 7.0])
    rate.add("a", [1.0] * 200)
    assert "p99" not in few.rows()[0]
    assert many.rows()[0]["p99"] == 7.0
    assert "p99" not in rate.rows()[0]


def test_spread_is_of_the_medians_of_turns(frame: ModuleType) -> None:
    table = frame.Table("work", "ms", "a")
    table.add("a", [1.0, 2.0, 900.0])
    table.add("a", [4.0, 5.0, 6.0])
    row = table.rows()[0]
    assert (row["least"], row["most"], row["turns"], row["values"]) == (2.0, 5.0, 2, 6)


@given(values=st.lists(st.floats(0, 1e9), min_size=1, max_size=300), share=st.floats(0.0, 1.0))
def test_percentile(values: list[float], share: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        frame = importlib.import_module("frame")
    found = frame.percentile(values, share)
    assert found in values
    below = sum(value <= found for value in values)
    assert below >= math.floor(share * len(values))


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (None, 1, "-"),
        (0.0, 1, "0.0"),
        (0.0042, 2, "0.0042"),
        (1234.56, 1, "1,234.6"),
        (-3, 0, "-3"),
    ],
)
def test_number(frame: ModuleType, value: float | None, places: int, text: str) -> None:
    assert frame.number(value, places) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no file '/home/me/x' here", "OSError: no file … here"),
        ("", "OSError: it says no more"),
        ("a\n b\tc", "OSError: a b c"),
    ],
)
def test_a_reason_is_one_line_without_paths(frame: ModuleType, text: str, told: str) -> None:
    assert frame.reason(OSError(text)) == told


def test_a_reason_is_short(frame: ModuleType) -> None:
    assert len(frame.reason(ValueError("x" * 10_000))) == frame.REASON_LENGTH
    assert frame.reason(frame.NotThereError("no C compiler")) == "no C compiler"


def test_results_survive_json(
    frame: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = frame.Results("What does it cost?")
    results.table("work", "work", "ms", "a").add("a", [1.5])
    results.line("growth", "Growth", "n", "ms")["a"] = [[1, 2.0]]
    results.facts["alive"] = 3.0
    results.remarks.append("18 layers")
    path = tmp_path / "out.json"
    results.tell(path)
    assert json.loads(path.read_text()) == results.as_dict()
    printed = capsys.readouterr().out
    assert "alive: 3.00" in printed
    assert "18 layers" in printed


def test_the_machine_is_told_without_its_name(frame: ModuleType) -> None:
    facts = frame.machine()
    assert {"cpu", "cores", "kernel", "python"} <= facts.keys()
    assert not any(os.uname().nodename in value.split() for value in facts.values())

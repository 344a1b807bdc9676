from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
POSITIVE = st.floats(1e-6, 1e12)


def _plot() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("plot")


@given(POSITIVE, POSITIVE)
def test_decades_hold_what_they_are_made_for(one: float, other: float) -> None:
    least, most = sorted((one, other))
    ticks = _plot().decades(least, most)
    assert len(ticks) >= 2
    assert ticks == sorted(ticks)
    assert ticks[0] <= least * (1 + 1e-9)
    assert most <= ticks[-1] * (1 + 1e-9)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20),
        st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=8),
        min_size=1,
        max_size=12,
    )
)
def test_every_point_is_inside_and_the_document_is_well_formed(
    lines: dict[str, list[tuple[float, float]]],
) -> None:
    plot = _plot()
    root = ET.fromstring(plot.line_plot("<title> & more", "x", "y", lines))
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == sum(map(len, lines.values()))
    for circle in circles:
        assert plot.LEFT - 1 <= float(circle.attrib["cx"]) <= plot.WIDTH - plot.RIGHT + 1
        assert plot.TOP - 1 <= float(circle.attrib["cy"]) <= plot.HEIGHT - plot.BOTTOM + 1


def test_more_is_higher_and_further_right(bench: Callable[[str], ModuleType]) -> None:
    text = bench("plot").line_plot("t", "x", "y", {"a": [[1_000, 50], [1, 2]]})
    circles = [e for e in ET.fromstring(text).iter() if e.tag.endswith("circle")]
    (first, second) = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles]
    assert first[0] < second[0]
    assert first[1] > second[1]


def test_what_a_logarithm_cannot_show_is_left_out(bench: Callable[[str], ModuleType]) -> None:
    text = bench("plot").line_plot("t", "x", "y", {"a": [[0, 1], [1, -1], [2, 2]], "b": [[0, 0]]})
    assert text.count("<circle") == 1
    assert ">b<" not in text


def test_nothing_to_plot(bench: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ValueError, match="nothing to plot"):
        bench("plot").line_plot("t", "x", "y", {"a": [[0, 0]]})


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.01, "0.01"), (1_000.0, "1k"), (1e7, "10M"), (1e9, "1G")]
)
def test_short(bench: Callable[[str], ModuleType], value: float, text: str) -> None:
    assert bench("plot").short(value) == text

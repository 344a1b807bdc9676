"""weather_features/stages.py: each stage by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.example_plugins import import_example

stages = import_example("weather_features.stages")


def day(date: str, **changes: Any) -> dict[str, Any]:
    usual = {"precipitation": 0.0, "temp_max": 10.0, "temp_min": 4.0, "wind": 3.0, "weather": "sun"}
    return {"date": date, **usual, **changes}


def derived(*days: dict[str, Any]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = stages.derive(list(days))
    return result


def test_clean_sorts_and_keeps_the_first_of_two() -> None:
    days = [day("2012-01-02"), day("2012-01-01", wind=1.0), day("2012-01-01", wind=2.0)]
    kept = stages.clean(days)
    assert [(d["date"], d["wind"]) for d in kept] == [("2012-01-01", 1.0), ("2012-01-02", 3.0)]


@pytest.mark.parametrize(
    "impossible",
    [
        {"precipitation": -0.1},
        {"wind": -1.0},
        {"temp_max": 3.0},
        {"temp_max": None},
        {"temp_max": True},
        {"wind": "3"},
        {"wind": math.nan},
        {"precipitation": math.inf},
    ],
)
def test_clean_leaves_out_what_cannot_be(impossible: dict[str, Any]) -> None:
    kept = stages.clean([day("2012-01-01"), day("2012-01-02", **impossible)])
    assert [d["date"] for d in kept] == ["2012-01-01"]


def test_clean_names_a_missing_column() -> None:
    broken = day("2012-01-01")
    del broken["wind"]
    with pytest.raises(ValueError, match="wind"):
        stages.clean([broken])


@pytest.mark.parametrize("days", [[], [day("2012-01-01", wind=-1)]])
def test_clean_refuses_an_empty_result(days: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="no "):
        stages.clean(days)


def test_derive_looks_at_the_day_before() -> None:
    _, second = derived(
        day("2012-02-28", temp_max=5.0, precipitation=math.e - 1), day("2012-02-29", temp_max=9.0)
    )
    assert second["values"]["previous_temp_max"] == 5.0
    assert second["values"]["temp_change"] == 4.0
    assert second["values"]["previous_precipitation_log"] == pytest.approx(1.0)


def test_derive_does_not_look_over_a_gap() -> None:
    _, later = derived(day("2012-01-01", temp_max=5.0), day("2012-01-03", temp_max=9.0))
    assert later["values"]["previous_temp_max"] == 9.0


def test_derive_closes_the_year_to_a_circle() -> None:
    june, december, january = (
        one["values"] for one in derived(day("2012-06-30"), day("2012-12-31"), day("2013-01-01"))
    )
    angle = [(v["season_sin"], v["season_cos"]) for v in (june, december, january)]
    assert math.dist(angle[1], angle[2]) < 0.05
    assert math.dist(angle[0], angle[1]) > 1.9


def test_rolling_week_looks_back_seven_days() -> None:
    days = [day(f"2012-01-{n:02}", precipitation=float(n)) for n in range(1, 10)]
    weekly = stages.rolling_week(stages.derive(days))
    assert weekly[0]["values"]["week_precipitation"] == 1.0
    assert weekly[8]["values"]["week_precipitation"] == 6.0


def test_scale_remembers_what_it_was_fitted_on() -> None:
    scaler = stages.Scaler()
    fitted = scaler(derived(day("2012-01-01", wind=2.0), day("2012-01-02", wind=4.0)), fit=True)
    assert [d["values"]["wind"] for d in fitted] == [-1.0, 1.0]
    later = scaler(derived(day("2013-01-01", wind=7.0)))
    assert later[0]["values"]["wind"] == 4.0


def test_scale_survives_what_never_varies() -> None:
    scaled = stages.Scaler()(derived(day("2012-01-01"), day("2012-01-02")), fit=True)
    assert [d["values"]["temp_min"] for d in scaled] == [0.0, 0.0]


def test_scale_refuses_to_guess() -> None:
    with pytest.raises(ValueError, match="fit first"):
        stages.Scaler()(derived(day("2012-01-01")))


def test_scale_notices_other_stages() -> None:
    scaler = stages.Scaler()
    days = derived(day("2012-01-01"), day("2012-01-02"))
    scaler(days, fit=True)
    with pytest.raises(ValueError, match="stages that are selected"):
        scaler(stages.rolling_week(days))


def test_encode_gives_the_index_and_keeps_the_unknown() -> None:
    coded = stages.encode([day("2012-01-01", weather="rain"), day("2012-01-02", weather=None)])
    assert [d["class"] for d in coded] == [stages.LABELS.index("rain"), None]


def test_encode_names_a_strange_label() -> None:
    with pytest.raises(ValueError, match="frogs"):
        stages.encode([day("2012-01-01", weather="frogs")])

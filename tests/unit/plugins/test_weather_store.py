"""weather_source/store.py: the shipped data, queries and additions."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.example_plugins import PLUGINS, import_example

store_module = import_example("weather_source.store")
DATA = PLUGINS / "weather_source" / "seattle-weather.csv"
A_DAY = {
    "date": "2016-01-01",
    "precipitation": 0,
    "temp_max": 7.5,
    "temp_min": 1.25,
    "wind": 2,
    "weather": "sun",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    opened = store_module.WeatherStore(tmp_path / "weather.sqlite")
    opened.load_once(DATA)
    yield opened
    opened.close()


def test_the_data_is_the_published_file() -> None:
    digest = hashlib.sha256(DATA.read_bytes()).hexdigest()
    assert digest in (DATA.parent / "DATA.md").read_text()


def test_loads_every_day_and_only_once(store: Any) -> None:
    assert store.count() == 1461
    store.load_once(DATA)
    assert store.count() == 1461


def test_outlives_the_connection(store: Any, tmp_path: Path) -> None:
    store.insert([A_DAY])
    store.close()
    again = store_module.WeatherStore(tmp_path / "weather.sqlite")
    try:
        again.load_once(DATA)
        assert again.count() == 1462
    finally:
        again.close()


def test_a_bad_file_leaves_nothing_behind(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    good_row = "2012/01/01,0.0,12.8,5.0,4.7,drizzle"
    bad.write_text(
        f"date,precipitation,temp_max,temp_min,wind,weather\n{good_row}\n{good_row}\n",
        encoding="ascii",
    )
    opened = store_module.WeatherStore(tmp_path / "weather.sqlite")
    try:
        with pytest.raises(ValueError, match="twice"):
            opened.load_once(bad)
        assert opened.count() == 0
    finally:
        opened.close()


def test_reads_a_year_in_order(store: Any) -> None:
    answer = store.select({"from": "2012-01-01", "to": "2012-12-31"}, max_rows=5000)
    dates = [row[0] for row in answer["rows"]]
    assert len(dates) == 366
    assert dates == sorted(dates)
    assert answer["columns"] == list(store_module.COLUMNS)
    assert answer["rows"][0] == ["2012-01-01", 0.0, 12.8, 5.0, 4.7, "drizzle"]


def test_reads_chosen_columns_in_the_callers_order(store: Any) -> None:
    query = {"columns": ["weather", "date"], "limit": 1}
    assert store.select(query, max_rows=5000) == {
        "columns": ["weather", "date"],
        "rows": [["drizzle", "2012-01-01"]],
    }


def test_one_answer_is_bounded(store: Any) -> None:
    assert len(store.select({}, max_rows=10)["rows"]) == 10


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"form": "2012-01-01"}, "'form'"),
        ({"from": "01.01.2012"}, "from"),
        ({"to": 20120101}, "to"),
        ({"to": "2012-02-30"}, "to"),
        ({"columns": []}, "columns"),
        ({"columns": "date"}, "columns"),
        ({"columns": ["date", "rowid; DROP TABLE weather"]}, "columns"),
        ({"columns": [["date"]]}, "columns"),
        ({"limit": 0}, "limit"),
        ({"limit": 5001}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "5"}, "limit"),
    ],
)
def test_refuses_a_bad_query_by_its_key(store: Any, query: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        store.select(query, max_rows=5000)


def test_adds_days(store: Any) -> None:
    assert store.insert([A_DAY, {**A_DAY, "date": "2016-01-02"}]) == 2
    rows = store.select({"from": "2016-01-01"}, max_rows=5)["rows"]
    assert rows == [
        ["2016-01-01", 0.0, 7.5, 1.25, 2.0, "sun"],
        ["2016-01-02", 0.0, 7.5, 1.25, 2.0, "sun"],
    ]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"date": "2015-12-31"}, "nothing was added"),
        ({"date": "soon"}, r"rows\[1\].date"),
        ({"wind": -1}, "wind"),
        ({"precipitation": float("nan")}, r"rows\[1\].precipitation"),
        ({"temp_max": True}, r"rows\[1\].temp_max"),
        ({"temp_max": 0}, "temp_min"),
        ({"weather": "frogs"}, r"rows\[1\].weather"),
        ({"extra": 1}, r"rows\[1\]"),
    ],
)
def test_adds_all_days_or_none(store: Any, change: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        store.insert([A_DAY, {**A_DAY, "date": "2016-01-02", **change}])
    assert store.count() == 1461


def test_the_database_is_an_ordinary_one(store: Any, tmp_path: Path) -> None:
    store.close()
    other = sqlite3.connect(tmp_path / "weather.sqlite")
    try:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        other.close()

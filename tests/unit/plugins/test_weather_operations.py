"""The operations of weather_source and weather_features, in process, with a context of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.context import Context, install_context
from plugin_sdk.wire.codec import unpack
from tests.support.example_plugins import import_example

source_main = import_example("weather_source.main")
features_main = import_example("weather_features.main")


@pytest.fixture
def published(tmp_path: Path) -> Iterator[list[tuple[str, Any]]]:
    events: list[tuple[str, Any]] = []
    mine = Context(
        "weather_test",
        config={"max_rows": 500},
        data_dir=str(tmp_path),
        scratch_dir=str(tmp_path),
        publishable=("data_processed",),
        send=lambda kind, payload: events.append((kind, unpack(payload))),
    )
    before = install_context(mine)
    yield events
    install_context(before)


@pytest.fixture
def source(published: list[tuple[str, Any]]) -> Iterator[Any]:
    del published
    one = source_main.WeatherSource()
    one.connect()
    yield one
    one.disconnect()


def test_connect_twice_is_one_connection(source: Any) -> None:
    assert source.connect() == {"rows": 1461}
    assert source.disconnect() is True
    assert source.disconnect() is False


def test_nothing_is_read_before_connect(published: list[tuple[str, Any]]) -> None:
    with pytest.raises(RuntimeError, match="connect"):
        source_main.WeatherSource().read({})


def test_the_configuration_bounds_an_answer(source: Any) -> None:
    assert len(source.read()["rows"]) == 500


def test_write_tells_the_new_total(source: Any) -> None:
    columns, (first, *_) = source.read({"limit": 1}).values()
    new = {**dict(zip(columns, first, strict=True)), "date": "2016-01-01"}
    assert source.write([new]) == {"written": 1, "rows": 1462}


def test_process_publishes_what_it_did(source: Any, published: list[tuple[str, Any]]) -> None:
    pipeline = features_main.WeatherFeatures()
    table = source.read({"from": "2012-01-01", "to": "2012-12-31"})
    table["rows"].append(table["rows"][0])
    answer = pipeline.process(table, fit=True)
    assert published == [("data_processed", {"rows": 366, "dropped": 1, "fit": True})]
    assert len(answer["features"]) == len(answer["labels"]) == len(answer["dates"]) == 366
    assert {len(row) for row in answer["features"]} == {len(answer["feature_names"])}
    assert answer["classes"][answer["labels"][0]] == "drizzle"


def test_the_evaluated_year_does_not_move_the_scale(source: Any) -> None:
    pipeline = features_main.WeatherFeatures()
    pipeline.process(source.read({"to": "2012-12-31"}), fit=True)
    whole = pipeline.process(source.read({"from": "2013-01-01", "to": "2013-12-31"}))
    part = pipeline.process(source.read({"from": "2013-01-01", "to": "2013-01-31"}))
    assert part["features"] == whole["features"][:31]


def test_an_extra_stage_runs_before_the_scale(source: Any) -> None:
    pipeline = features_main.WeatherFeatures()
    order = pipeline.add_stage("rolling_week")
    assert order == ["clean", "derive", "rolling_week", "scale", "encode"]
    answer = pipeline.process(source.read({"limit": 30}), fit=True)
    assert "week_precipitation" in answer["feature_names"]


@pytest.mark.parametrize(("name", "says"), [("derive", "already"), ("mine", "built in")])
def test_only_unused_built_in_stages_can_be_added(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        features_main.WeatherFeatures().add_stage(name)


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values"):
        features_main.WeatherFeatures().process({"columns": ["date", "wind"], "rows": [["x"]]})

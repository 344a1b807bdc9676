"""The plugin's interface: a `Pipeline` over `stages`, and what the host asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugin_sdk import Pipeline, context

from .stages import LABELS, Day, Scaler, clean, derive, encode, rolling_week

Stage = Callable[..., list[Day]]


class WeatherFeatures(Pipeline):
    """Applies its stages in order; what a stage learns, it learns when ``fit`` is true."""

    def __init__(self) -> None:
        self._built_in: dict[str, Stage] = {
            "clean": clean,
            "derive": derive,
            "rolling_week": rolling_week,
            "scale": Scaler(),
            "encode": encode,
        }
        self._order = ["clean", "derive", "scale", "encode"]
        self.rows_processed = 0

    def stages(self) -> list[str]:
        """Return the names of the stages, in the order in which they run."""
        return list(self._order)

    def add_stage(self, name: str) -> list[str]:
        """Select one more of the built-in stages by name; it runs just before ``scale``.

        A stage of the caller's own cannot be sent: no function crosses the pipe.

        Args:
            name: ``rolling_week`` is the only one that is not selected from the start.

        Returns:
            The new order.

        Raises:
            ValueError: there is no such stage, or it is selected already.
        """
        if name not in self._built_in:
            raise ValueError(f"no stage {name!r}; built in are {', '.join(self._built_in)}")
        if name in self._order:
            raise ValueError(f"stage {name!r} is selected already")
        self._order.insert(self._order.index("scale"), name)
        return self.stages()

    def process(self, table: dict[str, Any], fit: bool = False) -> dict[str, Any]:
        """Run the stages over a table and publish ``data_processed``.

        Args:
            table: ``{"columns": [...], "rows": [[...], ...]}`` as `weather_source` answers it. The
                label may be None: that day is to be predicted.
            fit: learn the scale from these rows (the training rows) instead of using the one
                learnt before.

        Returns:
            ``features`` (a list of numbers per day), ``labels`` (an index into ``classes``, or
            None), ``dates``, ``feature_names``, ``classes``.

        Raises:
            ValueError: the table is malformed, holds no usable day, or nothing was fitted yet.
        """
        days = _days_of(table)
        received = len(days)
        for name in self._order:
            days = self._built_in[name](days, fit=fit)
        self.rows_processed += len(days)
        counts = {"rows": len(days), "dropped": received - len(days), "fit": fit}
        context().publish("data_processed", counts)
        names = list(days[0]["values"])
        return {
            "features": [[day["values"][name] for name in names] for day in days],
            "labels": [day["class"] for day in days],
            "dates": [day["date"] for day in days],
            "feature_names": names,
            "classes": list(LABELS),
        }


def _days_of(table: dict[str, Any]) -> list[Day]:
    """Turn the table's rows into one dictionary per day, by column name."""
    columns, rows = table["columns"], table["rows"]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"table: expected {len(columns)} values in each row")
    return [dict(zip(columns, row, strict=True)) for row in rows]


pipeline = WeatherFeatures()


def init_plugin() -> bool:
    """Nothing to prepare: the pipeline learns from the first fit."""
    return True


def get_metadata() -> dict[str, Any]:
    """Describe the plugin in the words of its plugin.json."""
    return {
        "name": "weather_features",
        "version": "1.0.0",
        "description": (
            "Turns days of weather into numbers that a model can learn from, in named stages."
        ),
        "author": "sandbox-host maintainers",
        "dependencies": ["core_framework >= 1.0.0"],
        "capabilities": ["pipeline"],
    }


def health_check() -> dict[str, Any]:
    """Report how many rows went through."""
    rows = pipeline.rows_processed
    return {
        "status": "healthy",
        "message": f"{rows} rows processed",
        "metrics": {"rows_processed": rows, "stages": len(pipeline.stages())},
    }

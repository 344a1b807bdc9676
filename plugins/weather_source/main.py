"""The plugin's interface: a `DataSource` over `WeatherStore`, and what the host asks."""

from __future__ import annotations

import pathlib
from typing import Any

from plugin_sdk import DataSource, context

from .store import WeatherStore

SHIPPED_DATA = pathlib.Path(__file__).parent / "seattle-weather.csv"
"""Part of the signed bundle: what is loaded is what was signed."""


class WeatherSource(DataSource):
    """Answers queries about the weather of one day or many."""

    def __init__(self) -> None:
        self._store: WeatherStore | None = None

    def connect(self) -> dict[str, Any]:
        """Open the database, filling it from the shipped file the first time.

        Returns:
            ``{"rows": n}``, the number of days it holds.
        """
        if self._store is None:
            # The data directory is the only place this plugin may write to.
            store = WeatherStore(pathlib.Path(context().data_dir) / "weather.sqlite")
            store.load_once(SHIPPED_DATA)
            self._store = store
        return {"rows": self._store.count()}

    def disconnect(self) -> bool:
        """Close the database; return whether it was open."""
        was_open = self._store is not None
        if self._store is not None:
            self._store.close()
            self._store = None
        return was_open

    def read(self, query: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer a query.

        Args:
            query: any of ``from`` and ``to`` (ISO dates, both included), ``columns`` (a list of
                names) and ``limit`` (rows, at most the configured ``max_rows``).

        Returns:
            ``{"columns": [...], "rows": [[...], ...]}``, in order of date.

        Raises:
            ValueError: the query has an unknown key or a value that makes no sense.
        """
        return self._opened().select(query or {}, max_rows=int(context().config["max_rows"]))

    def write(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Add days; all of them, or none when one is not acceptable.

        Args:
            rows: one object per day with exactly the columns of `read`.

        Returns:
            ``{"written": n, "rows": total}``.

        Raises:
            ValueError: a row is malformed, or its day is there already.
        """
        store = self._opened()
        return {"written": store.insert(rows), "rows": store.count()}

    def row_count(self) -> int | None:
        """Return the number of days held, or None before `connect`."""
        return None if self._store is None else self._store.count()

    def _opened(self) -> WeatherStore:
        if self._store is None:
            raise RuntimeError("not connected: call connect() first")
        return self._store


source = WeatherSource()


def init_plugin() -> bool:
    """Say that the plugin can work: the data it ships is there."""
    return SHIPPED_DATA.is_file()


def get_metadata() -> dict[str, Any]:
    """Describe the plugin in the words of its plugin.json."""
    return {
        "name": "weather_source",
        "version": "1.0.0",
        "description": "Daily weather of Seattle, 2012 to 2015, answered from SQLite.",
        "author": "sandbox-host maintainers",
        "dependencies": ["core_framework >= 1.0.0"],
        "capabilities": ["data_source"],
    }


def health_check() -> dict[str, Any]:
    """Report the number of rows, or that nobody has connected yet."""
    rows = source.row_count()
    if rows is None:
        return {"status": "warning", "message": "not connected", "metrics": {}}
    return {"status": "healthy", "message": f"{rows} rows", "metrics": {"rows": rows}}


def cleanup() -> bool:
    """Close the database."""
    source.disconnect()
    return True

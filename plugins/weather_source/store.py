"""Days of weather in one SQLite file: loading, queries, additions. Knows nothing of plugins.

Every statement is a constant; what a caller sends travels only as a parameter.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
import pathlib
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = ("date", "precipitation", "temp_max", "temp_min", "wind", "weather")
"""In millimetres, degrees Celsius and metres per second; ``date`` is ISO 8601."""

LABELS = ("drizzle", "fog", "rain", "snow", "sun")

_CREATE = """
CREATE TABLE IF NOT EXISTS weather (
    date TEXT PRIMARY KEY,
    precipitation REAL NOT NULL,
    temp_max REAL NOT NULL,
    temp_min REAL NOT NULL,
    wind REAL NOT NULL,
    weather TEXT NOT NULL
) WITHOUT ROWID
"""
_INSERT = "INSERT INTO weather VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = """
SELECT date, precipitation, temp_max, temp_min, wind, weather FROM weather
WHERE date BETWEEN ? AND ? ORDER BY date LIMIT ?
"""
_QUERY_KEYS = frozenset({"from", "to", "columns", "limit"})


class WeatherStore:
    """The database.

    Args:
        path: the file; it is made when it is not there.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._db = sqlite3.connect(path)
        with self._db:
            self._db.execute(_CREATE)

    def load_once(self, csv_file: pathlib.Path) -> None:
        """Fill an empty database from a CSV file with a heading; leave a filled one alone.

        One transaction: a process that is killed half-way leaves an empty database behind.

        Raises:
            ValueError: the file's heading or one of its rows is not acceptable.
        """
        if self.count():
            return
        with csv_file.open(encoding="ascii", newline="") as lines:
            self.insert(_typed(row) for row in csv.DictReader(lines))

    def select(self, query: Mapping[str, Any], *, max_rows: int) -> dict[str, Any]:
        """Answer a query of `main.WeatherSource.read`; at most ``max_rows`` rows.

        Raises:
            ValueError: the query is not acceptable; the text names the key.
        """
        unknown = sorted(set(query) - _QUERY_KEYS)
        if unknown:
            raise ValueError(f"query: unknown key {unknown[0]!r}; known are {_listed(_QUERY_KEYS)}")
        first = _iso_date(query.get("from", "0001-01-01"), "query: from")
        last = _iso_date(query.get("to", "9999-12-31"), "query: to")
        columns = _columns(query.get("columns"))
        limit = query.get("limit", max_rows)
        if type(limit) is not int or not 1 <= limit <= max_rows:
            raise ValueError(f"query: limit: expected 1 to {max_rows}, got {limit!r}")
        wanted = [COLUMNS.index(column) for column in columns]
        days = self._db.execute(_SELECT, (first, last, limit))
        return {"columns": columns, "rows": [[day[i] for i in wanted] for day in days]}

    def insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Add days, all or none; return how many.

        Raises:
            ValueError: a row is not acceptable or its day is there already.
        """
        checked = [_checked(row, index) for index, row in enumerate(rows)]
        try:
            with self._db:
                self._db.executemany(_INSERT, checked)
        except sqlite3.IntegrityError:
            raise ValueError("rows: a day is there already, or twice; nothing was added") from None
        return len(checked)

    def count(self) -> int:
        """Return the number of days."""
        (rows,) = self._db.execute("SELECT count(*) FROM weather").fetchone()
        return int(rows)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    """Give the text of one CSV row its types; the file writes its dates with slashes."""
    if tuple(row) != COLUMNS:
        raise ValueError(f"data file: expected the columns {', '.join(COLUMNS)}")
    numbers = {name: float(row[name]) for name in COLUMNS[1:5]}
    return {"date": row["date"].replace("/", "-"), **numbers, "weather": row["weather"]}


def _checked(row: Mapping[str, Any], index: int) -> tuple[Any, ...]:
    """Return the row as parameters of the insertion, or say what is wrong with it."""
    where = f"rows[{index}]"
    if not isinstance(row, Mapping) or set(row) != set(COLUMNS):
        raise ValueError(f"{where}: expected an object with {', '.join(COLUMNS)}")
    day = _iso_date(row["date"], f"{where}.date")
    numbers = [_number(row[name], f"{where}.{name}") for name in COLUMNS[1:5]]
    if numbers[0] < 0 or numbers[3] < 0:
        raise ValueError(f"{where}: precipitation and wind cannot be below zero")
    if numbers[1] < numbers[2]:
        raise ValueError(f"{where}: temp_max is below temp_min")
    if row["weather"] not in LABELS:
        raise ValueError(f"{where}.weather: expected one of {', '.join(LABELS)}")
    return (day, *numbers, row["weather"])


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}: expected a number, got {value!r}")
    return float(value)


def _iso_date(value: Any, where: str) -> str:
    try:
        return dt.date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise ValueError(f"{where}: expected a date such as 2012-01-31, got {value!r}") from None


def _columns(value: Any) -> list[str]:
    if value is None:
        return list(COLUMNS)
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(COLUMNS):
        raise ValueError(f"query: columns: expected a list of {', '.join(COLUMNS)}, got {value!r}")
    return list(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

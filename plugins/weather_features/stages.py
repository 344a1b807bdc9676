"""The stages: plain functions from days to days. Knows nothing of plugins.

A day is a dictionary: after `clean` it has ``date``, the four `MEASURED` numbers and ``weather``;
`derive` puts everything a model may see under ``values``; `encode` adds ``class``.
Every stage takes ``fit`` so that they can stand in one row; only `Scaler` learns anything.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from typing import Any

Day = dict[str, Any]

MEASURED = ("precipitation", "temp_max", "temp_min", "wind")
LABELS = ("drizzle", "fog", "rain", "snow", "sun")
"""The classes, by index. A fixed vocabulary: a year without snow keeps the others' indices."""

DAYS_PER_YEAR = 365.25
WEEK = 7


def clean(days: list[Day], *, fit: bool = False) -> list[Day]:
    """Sort by date; leave out repeated days and impossible ones.

    Raises:
        ValueError: a column is missing, or no usable day is left.
    """
    del fit
    missing = {"date", *MEASURED, "weather"}.difference(*days[:1])
    if missing:
        raise ValueError(f"table: missing column {', '.join(sorted(missing))}, or no rows at all")
    usable = {day["date"]: day for day in reversed(days) if _possible(day)}
    if not usable:
        raise ValueError("table: no usable day among its rows")
    return [usable[date] for date in sorted(usable)]


def derive(days: list[Day], *, fit: bool = False) -> list[Day]:
    """Add the season, the day's spread and the day before.

    A day without its predecessor in the table takes its own measurements for it: the table's
    first day, or one after a gap.
    """
    del fit
    derived = []
    before = days[0]
    for day in days:
        if _date(day) - _date(before) != dt.timedelta(days=1):
            before = day
        derived.append({**day, "values": _values(day, before)})
        before = day
    return derived


def rolling_week(days: list[Day], *, fit: bool = False) -> list[Day]:
    """Add the mean rain and temperature of the seven days up to each day (extra stage)."""
    del fit
    result = []
    for index, day in enumerate(days):
        week = days[max(0, index - WEEK + 1) : index + 1]
        means = {
            f"week_{name}": statistics.fmean(d[name] for d in week)
            for name in ("precipitation", "temp_max")
        }
        result.append({**day, "values": {**day["values"], **means}})
    return result


class Scaler:
    """Brings every value to mean 0 and deviation 1, as measured on the rows it was fitted on.

    The rows of the evaluated year must not move the scale: they would tell the model about a
    future that it is judged on.
    """

    def __init__(self) -> None:
        self._scale: dict[str, tuple[float, float]] = {}

    def __call__(self, days: list[Day], *, fit: bool = False) -> list[Day]:
        """Scale, after learning the scale where ``fit`` is true.

        Raises:
            ValueError: nothing was fitted yet, or other stages were selected when it was.
        """
        if fit:
            self._scale = {name: _spread(days, name) for name in days[0]["values"]}
        if list(self._scale) != list(days[0]["values"]):
            raise ValueError("process: fit first (fit=true), with the stages that are selected now")
        return [{**day, "values": self._scaled(day["values"])} for day in days]

    def _scaled(self, values: dict[str, float]) -> dict[str, float]:
        scale = self._scale
        return {name: (value - scale[name][0]) / scale[name][1] for name, value in values.items()}


def encode(days: list[Day], *, fit: bool = False) -> list[Day]:
    """Turn the weather into the index of its class; None stays None.

    Raises:
        ValueError: the weather is not one of `LABELS`.
    """
    del fit
    index: dict[str | None, int | None] = {label: i for i, label in enumerate(LABELS)}
    index[None] = None
    unknown = sorted({str(day["weather"]) for day in days if day["weather"] not in index})
    if unknown:
        raise ValueError(f"table: unknown weather {unknown[0]!r}; known are {', '.join(LABELS)}")
    return [{**day, "class": index[day["weather"]]} for day in days]


def _possible(day: Day) -> bool:
    """Tell whether all four measurements are there and can be true together."""
    numbers = [day[name] for name in MEASURED]
    if any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        return False
    if not all(math.isfinite(n) for n in numbers):
        return False
    precipitation, temp_max, temp_min, wind = numbers
    return precipitation >= 0 and wind >= 0 and temp_max >= temp_min


def _date(day: Day) -> dt.date:
    return dt.date.fromisoformat(day["date"])


def _values(day: Day, before: Day) -> dict[str, float]:
    # Rain is 0 on most days and 50 mm on few: its logarithm spreads the small amounts out. The
    # season goes round a circle, so that 31 December lies beside 1 January.
    angle = 2 * math.pi * _date(day).timetuple().tm_yday / DAYS_PER_YEAR
    return {
        **{name: float(day[name]) for name in MEASURED},
        "precipitation_log": math.log1p(day["precipitation"]),
        "wet": float(day["precipitation"] > 0),
        "temp_range": day["temp_max"] - day["temp_min"],
        "season_sin": math.sin(angle),
        "season_cos": math.cos(angle),
        "previous_precipitation_log": math.log1p(before["precipitation"]),
        "previous_temp_max": float(before["temp_max"]),
        "previous_temp_min": float(before["temp_min"]),
        "previous_wind": float(before["wind"]),
        "temp_change": day["temp_max"] - before["temp_max"],
    }


def _spread(days: list[Day], name: str) -> tuple[float, float]:
    """Return mean and deviation; 1 for a value that never varies, so that it scales to 0."""
    values = [day["values"][name] for day in days]
    mean = statistics.fmean(values)
    return mean, statistics.pstdev(values, mean) or 1.0

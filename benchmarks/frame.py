"""What the files here share: ways that take turns, tables with ratios first, results as JSON.

All ways of a table do the same work, one turn each in every round, and another way begins each
round, so that the machine's mood hits all alike. The first round warms up and is not counted. A
ratio is the median of the rounds' ratios: of what was measured within one round, a moment apart.
Nothing is pinned to a CPU. A way that cannot be measured stays in its table, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Turn = Callable[[], list[float]]
"""Does the work, and returns what was measured: one value, or one for each call."""

REASON_LENGTH = 160
"""Characters of a reason that are told: a peer's own words can be pages."""


ENOUGH_FOR_P99 = 100


class NotThereError(Exception):
    """Something cannot be measured here; its text is the reason."""


def reason(error: BaseException) -> str:
    """Return why something could not be measured, in one line without paths of this machine."""
    text = " ".join(str(error).split()) or "it says no more"
    words = ["…" if "/" in word.strip("\"'(),:;")[:1] else word for word in text.split()]
    told = " ".join(words)
    name = "" if isinstance(error, NotThereError) else f"{type(error).__name__}: "
    return (name + told)[:REASON_LENGTH]


def clock_ms(action: Callable[[], object]) -> float:
    """Return how long an action takes, in milliseconds."""
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1e6


def percentile(values: list[float], share: float) -> float:
    """Return the value below which so much of them lies; the largest one at most."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass
class Table:
    """What several ways of doing the same took, or how many they did in a second.

    Args:
        title: what they do.
        unit: of the values.
        base: name of the way that the others are compared with; "" for none.
        rate: more is better.
        places: decimal places that are shown.
    """

    title: str
    unit: str
    base: str
    rate: bool = False
    places: int = 1
    turns: dict[str, list[list[float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, values: list[float]) -> None:
        """Add what one turn of a way has measured."""
        self.turns.setdefault(name, []).append(values)

    def lacks(self, name: str, why: str) -> None:
        """Say why a way was not measured, or not to the end: what it had counts no more."""
        self.turns.pop(name, None)
        self.missing[name] = why

    def ratio(self, name: str) -> float | None:
        """Return the median of the rounds' ratios to the base, or None where that is missing."""
        base, ours = self.turns.get(self.base), self.turns.get(name)
        if not base or not ours or min(min(turn) for turn in base) <= 0:
            return None
        pairs = zip(ours, base, strict=False)
        return statistics.median(
            statistics.median(mine) / statistics.median(its) for mine, its in pairs
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each way, in the order in which they came; what is missing last."""
        rows: list[dict[str, Any]] = []
        for name, turns in self.turns.items():
            every = [value for turn in turns for value in turn]
            middles = [statistics.median(turn) for turn in turns]
            row = {"name": name, "ratio": self.ratio(name), "p50": statistics.median(every)}
            # Of a few, it is the largest; of a rate, it is the best, which nobody asks for.
            if len(every) >= ENOUGH_FOR_P99 and not self.rate:
                row["p99"] = percentile(every, 0.99)
            row |= {"least": min(middles), "most": max(middles)}
            rows.append(row | {"turns": len(turns), "values": len(every)})
        return rows + [{"name": name, "missing": why} for name, why in self.missing.items()]

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON."""
        shown = {"title": self.title, "unit": self.unit, "base": self.base, "rate": self.rate}
        return {**shown, "places": self.places, "rows": self.rows()}


def number(value: float | None, places: int) -> str:
    """Return a number as the tables show it; small ones keep two digits that mean something."""
    if value is None:
        return "-"
    if 0 < abs(value) < 10.0**-places:
        return f"{value:.2g}"
    return f"{value:,.{places}f}"


def cells(table: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Return a row as text: ratio, name, median, 99th percentile, spread of the turns' medians."""
    if "missing" in row:
        return ["-", row["name"], f"not there: {row['missing']}"]
    places = table["places"]
    spread = f"{number(row['least'], places)} to {number(row['most'], places)}"
    ratio = "-" if row["ratio"] is None else f"{number(row['ratio'], 2)}×"
    values = (row["p50"], row.get("p99"))
    return [ratio, row["name"], *(number(value, places) for value in values), spread]


def heads(table: dict[str, Any]) -> list[str]:
    """Return the names of the columns of `cells`."""
    unit = table["unit"]
    return [
        f"× {table['base']}" if table["base"] else "",
        table["title"],
        f"p50, {unit}",
        "p99",
        "spread of turns",
    ]


def text_of(table: dict[str, Any]) -> str:
    """Return a table for a terminal."""
    head = heads(table)
    whole = [cells(table, row) for row in table["rows"]]
    measured = [head, *(line for line in whole if len(line) == len(head))]
    widths = [max(map(len, column)) for column in zip(*measured, strict=True)]
    names = max(len(line[1]) for line in [head, *whole])
    lines = []
    for line in [head, *whole]:
        rest = line[2:]
        if len(line) == len(head):
            rest = [f"{cell:>{width}}" for cell, width in zip(rest, widths[2:], strict=True)]
        lines.append("  ".join([f"{line[0]:>{widths[0]}}", f"{line[1]:{names}}", *rest]))
    return "\n".join(lines)


def take_turns(table: Table, ways: Mapping[str, Turn], rounds: int, *, warm: int = 1) -> None:
    """Let all ways take turns, and put into the table what they measured.

    Args:
        table: gets a row for each way.
        ways: by name; one that raises is not there, with its reason, and takes no more turns.
        rounds: turns of each way that count.
        warm: turns before those, which do not.
    """
    names = list(ways)
    for turn in range(rounds + warm):
        first = turn % max(1, len(names))
        for name in (*names[first:], *names[:first]):
            if name in table.missing:
                continue
            try:
                values = ways[name]()
            except Exception as error:  # noqa: BLE001 - a peer fails as it pleases; it is told
                table.lacks(name, reason(error))
                continue
            if turn >= warm:
                table.add(name, values)
    # In the order of the ways, not of who happened to begin the first round.
    table.turns = {name: table.turns[name] for name in names if name in table.turns}


@dataclass
class Results:
    """What one file found out.

    Args:
        question: what it asks.
        tables: by a short name.
        series: lines for plots, by a short name: title, names of the axes, points by line.
        facts: other figures, by name.
    """

    question: str
    tables: dict[str, Table] = field(default_factory=dict)
    series: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, float | str | None] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def table(self, key: str, *arguments: Any, **keywords: Any) -> Table:
        """Return a new table of these results."""
        self.tables[key] = Table(*arguments, **keywords)
        return self.tables[key]

    def line(self, key: str, title: str, x: str, y: str) -> dict[str, list[list[float]]]:
        """Return the lines of a new plot, by name, each with the list of its points."""
        lines: dict[str, list[list[float]]] = {}
        self.series[key] = {"title": title, "x": x, "y": y, "lines": lines}
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON."""
        tables = {key: table.as_dict() for key, table in self.tables.items()}
        return {
            "question": self.question,
            "tables": tables,
            "series": self.series,
            "facts": self.facts,
            "remarks": self.remarks,
        }

    def tell(self, path: Path | None) -> None:
        """Print all tables, and write everything to a file if there is one to be."""
        whole = self.as_dict()
        for table in whole["tables"].values():
            print(text_of(table), end="\n\n")
        for name, value in self.facts.items():
            print(f"{name}: {value if isinstance(value, str) else number(value, 2)}")
        for remark in self.remarks:
            print(remark)
        if path is not None:
            path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def options_of(document: str | None, **counts: tuple[int, int, str]) -> argparse.Namespace:
    """Return the command line's options: ``--quick``, ``--json``, and counts of the file's own.

    Args:
        document: the file's docstring.
        **counts: by name, how many, how many with ``--quick``, and what for.
    """
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few turns only: to see that it runs"
    )
    parser.add_argument("--json", type=Path, help="also write what was measured to this file")
    for name, (_, _, purpose) in counts.items():
        parser.add_argument(f"--{name}", type=int, help=purpose)
    options = parser.parse_args()
    for name, (usual, quick, _) in counts.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    return options


def machine() -> dict[str, str]:
    """Return what the figures hold for: CPU, cores, memory, kernel, versions; no names of hosts."""
    facts = {
        "cpu": _first(Path("/proc/cpuinfo"), "model name") or platform.processor() or "unknown",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
    }
    for package in ("sandbox-host", "msgpack", "pyzmq", "grpcio", "python-plugin", "extism"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _first(path: Path, key: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(text, file=sys.stderr, flush=True)

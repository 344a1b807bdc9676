"""A dossier's files: how each is written, and how it is read back. Pure: bytes in, bytes out.

People read them with a pager, so they are text; what may not be said twice is read strictly. A
directory that was tampered with, or half removed, gives a `DossierError` and nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from sandbox_host.errors import DossierError
from sandbox_host.model import Cause, Enforced, Layer, OperationUsage, Usage
from sandbox_host.observe.curve import MAX_POINTS, Point
from sandbox_host.observe.dossier import Dossier, Exceeded, FrameHeader
from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    expected,
    read_flag,
    read_object,
    read_text,
    read_whole,
)

T = TypeVar("T")

FORMAT: Final = 1
SUMMARY: Final = "summary.json"
CURVE: Final = "curve.csv"
FRAMES: Final = "frames.txt"
LOG: Final = "log.txt"
STACKS: Final = "stacks.txt"

MAX_TEXT: Final = 1_000
MAX_PLACE: Final = 300
MAX_NAME: Final = 128
MAX_WORD: Final = 64
MAX_MECHANISM: Final = 120
MAX_LOG_LINE: Final = 2_000
MAX_STACK_LINE: Final = 700
"""Bounds of single texts: bytes in UTF-8, escaped."""

MAX_OPERATIONS: Final = 16
MAX_LIMITS: Final = 48
MAX_FRAMES: Final = 64
MAX_LOG_LINES: Final = 200
MAX_STACKS: Final = 64 * 1024
MAX_WHOLE: Final = 2**53 - 1
MAX_SECONDS: Final = 2.0**32
MAX_EPOCH: Final = 253_402_300_799.0
"""The last second of the year 9999, which is as far as a calendar date goes."""

STACKS_HEADING: Final = "# Said by the plugin's own process: it may be wrong, or made up."
CURVE_HEADING: Final = ",".join(field.name for field in fields(Point))
FRAMES_HEADING: Final = " ".join(field.name for field in fields(FrameHeader))

FILES: Final[Mapping[str, int]] = {
    SUMMARY: 64 * 1024,
    CURVE: 32 * 1024,
    FRAMES: 32 * 1024,
    LOG: MAX_LOG_LINES * (MAX_LOG_LINE + 1),
    STACKS: MAX_STACKS + len(STACKS_HEADING) + 2,
}
"""Every file of a dossier, with the most bytes of it that are read back."""

_MAX_ADVICE: Final = 16
_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_DECIMAL: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,6})?")
_KIND: Final = re.compile(r"[a-z-]{1,32}")
_KEYS: Final = (
    *("format", "plugin", "version", "root_digest", "pid", "cause", "text", "started_at"),
    *("ended_at", "excess", "operation", "place", "exit_code", "exit_signal", "frozen", "usage"),
    *("limits", "layers", "what_next"),
)


# -- writing -----------------------------------------------------------------------------------


def summary_of(dossier: Dossier) -> dict[str, Any]:
    """Return everything but curve, frames, log and stacks as plain data, for JSON."""
    excess = dossier.excess
    return {
        "format": FORMAT,
        "plugin": dossier.plugin,
        "version": dossier.version,
        "root_digest": dossier.root_digest,
        "pid": dossier.pid,
        "cause": str(dossier.cause),
        "text": dossier.text,
        "started_at": _date(dossier.started_at),
        "ended_at": _date(dossier.ended_at),
        "excess": _plain(excess) if excess else None,
        "operation": dossier.operation,
        "place": dossier.place,
        "exit_code": dossier.exit_code,
        "exit_signal": dossier.exit_signal,
        "frozen": dossier.frozen,
        "usage": {
            **_plain(dossier.usage),
            "operations": {name: _plain(cost) for name, cost in dossier.usage.operations.items()},
        },
        "limits": [_plain(entry) for entry in dossier.limits],
        "layers": [str(layer) for layer in dossier.layers],
        "what_next": list(dossier.advice),
    }


def document(dossier: Dossier) -> dict[str, Any]:
    """Return all of it as plain data, for JSON."""
    return {
        **summary_of(dossier),
        "curve": [_plain(point) for point in dossier.curve],
        "frames": [_plain(frame) for frame in dossier.frames],
        "log": list(dossier.log),
        "stacks": dossier.stacks,
    }


def render(dossier: Dossier) -> dict[str, bytes]:
    """Return the contents of each file; the dossier was fitted by `observe.dossier_fit`."""
    summary = json.dumps(summary_of(dossier), indent=1, ensure_ascii=False, allow_nan=False)
    points = [",".join(map(_figure, _plain(point).values())) for point in dossier.curve]
    frames = [" ".join(map(_figure, _plain(frame).values())) for frame in dossier.frames]
    stacks = [STACKS_HEADING, dossier.stacks] if dossier.stacks else []
    return {
        SUMMARY: _joined([summary]),
        CURVE: _joined([CURVE_HEADING, *points]),
        FRAMES: _joined([FRAMES_HEADING, *frames]),
        LOG: _joined(dossier.log),
        STACKS: _joined(stacks),
    }


def _plain(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _figure(value: object) -> str:
    """Return a cell; a float never in the notation with an exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _joined(lines: list[str] | tuple[str, ...]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


# -- reading -----------------------------------------------------------------------------------


def parse(files: Mapping[str, bytes]) -> Dossier:
    """Return the dossier in these files, none of them larger than `FILES` says.

    Raises:
        DossierError: one is missing, or not as the host writes it.
    """
    for name in FILES:
        if name not in files:
            raise DossierError(f"{name} is missing.")
    return replace(
        parse_summary(files[SUMMARY]),
        curve=_read(CURVE, files, _read_curve),
        frames=_read(FRAMES, files, _read_frames),
        log=_read(LOG, files, _read_log),
        stacks=_read(STACKS, files, _read_stacks),
    )


def parse_summary(data: bytes) -> Dossier:
    """Return a dossier without curve, frames, log and stacks.

    Args:
        data: what is in `SUMMARY`.

    Raises:
        DossierError: it is not as the host writes it.
    """
    try:
        return Dossier(**_read_summary(data))
    except BadValueError as error:
        raise DossierError(f"{SUMMARY}: {error}.") from None


def _read(name: str, files: Mapping[str, bytes], reader: Callable[[list[str]], T]) -> T:
    try:
        text = files[name].decode()
    except UnicodeDecodeError:
        raise DossierError(f"{name} is not UTF-8.") from None
    if text and not text.endswith("\n"):
        raise DossierError(f"{name} does not end with a line's end: a part of it is missing.")
    try:
        return reader(text.split("\n")[:-1])
    except BadValueError as error:
        raise DossierError(f"{name}: {error}.") from None


def _read_summary(data: bytes) -> dict[str, Any]:
    table = read_object(_json(data), "")
    check_keys(table, "", _KEYS, _KEYS)
    if table["format"] != FORMAT:
        raise expected("format", f"{FORMAT}, the one that this version reads", table["format"])
    for index, advice in enumerate(_list(table["what_next"], "what_next", _MAX_ADVICE)):
        read_text(advice, at("what_next", index), limit=MAX_TEXT)  # for a pager; made anew here
    layers = _list(table["layers"], "layers", len(Layer))
    limits = _list(table["limits"], "limits", MAX_LIMITS)
    texts = {"plugin": MAX_WORD, "version": MAX_WORD, "root_digest": MAX_WORD, "text": MAX_TEXT}
    texts |= {"operation": MAX_NAME, "place": MAX_PLACE}
    return {
        **{key: read_text(table[key], key, limit=most, blank=True) for key, most in texts.items()},
        "pid": read_whole(table["pid"], "pid", 0, MAX_WHOLE),
        "cause": _member(Cause, table["cause"], "cause"),
        "started_at": _read_date(table["started_at"], "started_at"),
        "ended_at": _read_date(table["ended_at"], "ended_at"),
        "excess": _read_excess(table["excess"], "excess"),
        "exit_code": _read_optional(table["exit_code"], "exit_code"),
        "exit_signal": _read_optional(table["exit_signal"], "exit_signal"),
        "frozen": read_flag(table["frozen"], "frozen"),
        "usage": _read_usage(table["usage"], "usage"),
        "limits": tuple(_read_enforced(one, at("limits", i)) for i, one in enumerate(limits)),
        "layers": tuple(_member(Layer, one, at("layers", i)) for i, one in enumerate(layers)),
    }


def _json(data: bytes) -> object:
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise BadValueError("", "is not JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError
    return table


def _list(value: object, path: str, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise expected(path, f"a list of at most {limit} entries", value)
    return value


def _member(kind: Callable[[Any], T], value: object, path: str) -> T:
    try:
        return kind(value)
    except ValueError:
        raise expected(path, "a name that this version knows", value) from None


def _read_number(value: object, path: str, most: float = MAX_SECONDS) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return float(value)
    raise expected(path, f"a number from 0 to {most:.0f}", value)


def _read_optional(value: object, path: str) -> int | None:
    return None if value is None else read_whole(value, path, 0, MAX_WHOLE)


def _read_date(value: object, path: str) -> float:
    text = read_text(value, path, limit=40)
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        date = None
    if date is None or date.tzinfo is None or not math.isfinite(date.timestamp()):
        raise expected(path, "a date and time with its zone", value)
    return _read_number(date.timestamp(), path, MAX_EPOCH + 1)


def _read_excess(value: object, path: str) -> Exceeded | None:
    if value is None:
        return None
    table = read_object(value, path)
    check_keys(
        table, path, ("budget", "limit", "used", "unit"), ("budget", "limit", "used", "unit")
    )
    used = table["used"]
    return Exceeded(
        read_text(table["budget"], at(path, "budget"), limit=MAX_WORD, blank=True),
        _read_number(table["limit"], at(path, "limit"), MAX_WHOLE),
        None if used is None else _read_number(used, at(path, "used"), MAX_WHOLE),
        read_text(table["unit"], at(path, "unit"), limit=MAX_WORD, blank=True),
    )


def _read_enforced(value: object, path: str) -> Enforced:
    table = read_object(value, path)
    limits = {"name": MAX_WORD, "value": MAX_WORD, "mechanism": MAX_MECHANISM}
    check_keys(table, path, limits, limits)
    return Enforced(
        **{k: read_text(table[k], at(path, k), limit=n, blank=True) for k, n in limits.items()}
    )


def _read_usage(value: object, path: str) -> Usage:
    table = dict(read_object(value, path))
    operations = read_object(table.pop("operations", None), at(path, "operations"))
    if len(operations) > MAX_OPERATIONS:
        raise BadValueError(at(path, "operations"), f"expected at most {MAX_OPERATIONS} entries")
    read = {}
    for name, cost in operations.items():
        where = at(at(path, "operations"), name)
        read_text(name, where, limit=MAX_NAME, blank=True)
        read[name] = OperationUsage(**_read_figures(OperationUsage, cost, where))
    figures = _read_figures(Usage, table, path)
    return Usage(**figures, operations=MappingProxyType(read))


def _read_figures(kind: type[Any], value: object, path: str) -> dict[str, Any]:
    """Return the fields of a record of numbers; one with a default may be missing."""
    table = read_object(value, path)
    known = {f.name: f for f in fields(kind) if f.type in {"int", "float"}}
    required = [name for name, field in known.items() if field.default is MISSING]
    check_keys(table, path, known, required)
    return {
        name: _read_number(given, at(path, name))
        if known[name].type == "float"
        else read_whole(given, at(path, name), 0, MAX_WHOLE)
        for name, given in table.items()
    }


def _read_curve(lines: list[str]) -> tuple[Point, ...]:
    points = []
    for number, cells in _rows(lines, CURVE_HEADING, ",", MAX_POINTS):
        if not _DECIMAL.fullmatch(cells[0]) or not _DECIMAL.fullmatch(cells[1]):
            raise BadValueError(f"line {number}", "expected two decimal numbers first")
        whole = [_digits(cell, number) for cell in cells[2:]]
        points.append(Point(float(cells[0]), float(cells[1]), *whole))
    return tuple(points)


def _read_frames(lines: list[str]) -> tuple[FrameHeader, ...]:
    frames = []
    for number, cells in _rows(lines, FRAMES_HEADING, " ", MAX_FRAMES):
        before, direction, kind, call, size, name = cells
        where = f"line {number}"
        if not _DECIMAL.fullmatch(before) or not _KIND.fullmatch(kind):
            raise BadValueError(where, "expected a decimal number, a direction, a kind")
        if direction not in {"in", "out"}:
            raise expected(where, "in or out", direction)
        read_text(name, where, limit=MAX_NAME, blank=True)
        way: Any = direction
        numbers = (_digits(call, number), _digits(size, number))
        frames.append(FrameHeader(float(before), way, kind, *numbers, name))
    return tuple(frames)


def _rows(
    lines: list[str], heading: str, separator: str, limit: int
) -> list[tuple[int, list[str]]]:
    """Return the number and cells of each line behind the heading."""
    if not lines or lines[0] != heading:
        raise BadValueError("line 1", f"expected the heading {heading}")
    if len(lines) > limit + 1:
        raise BadValueError("", f"expected at most {limit} lines behind the heading")
    cells = heading.count(separator)
    rows = [(number, line.split(separator, cells)) for number, line in enumerate(lines[1:], 2)]
    for number, row in rows:
        if len(row) != cells + 1:
            raise BadValueError(f"line {number}", f"expected {cells + 1} cells")
    return rows


def _digits(cell: str, line: int) -> int:
    if not _DIGITS.fullmatch(cell):
        raise expected(f"line {line}", "a whole number", cell)
    return int(cell)


def _read_log(lines: list[str]) -> tuple[str, ...]:
    if len(lines) > MAX_LOG_LINES:
        raise BadValueError("", f"expected at most {MAX_LOG_LINES} lines, got {len(lines)}")
    return tuple(
        read_text(line, f"line {number}", limit=MAX_LOG_LINE, blank=True)
        for number, line in enumerate(lines, 1)
    )


def _read_stacks(lines: list[str]) -> str:
    if not lines:
        return ""
    if lines[0] != STACKS_HEADING:
        raise BadValueError("line 1", f"expected the heading {STACKS_HEADING}")
    for number, line in enumerate(lines[1:], 2):
        read_text(line, f"line {number}", limit=MAX_STACK_LINE, blank=True)
    return "\n".join(lines[1:])

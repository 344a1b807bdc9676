"""Cuts a dossier to its size, and escapes every text in it. Pure.

Each part has a bound of its own, so that none can push the others out: the log keeps its end, the
stacks their beginning, frames and curve the newest. What was cut is told where it stood.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sandbox_host.model import Enforced, OperationUsage, Usage
from sandbox_host.observe.curve import MAX_POINTS, Point, thinned
from sandbox_host.observe.dossier import Exceeded
from sandbox_host.observe.dossier_files import (
    MAX_EPOCH,
    MAX_FRAMES,
    MAX_LIMITS,
    MAX_LOG_LINE,
    MAX_LOG_LINES,
    MAX_MECHANISM,
    MAX_NAME,
    MAX_OPERATIONS,
    MAX_PLACE,
    MAX_SECONDS,
    MAX_STACK_LINE,
    MAX_STACKS,
    MAX_TEXT,
    MAX_WHOLE,
    MAX_WORD,
    render,
)
from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.observe.dossier import Dossier, FrameHeader

Record = TypeVar("Record")

STACKS_CUT: Final = "[cut here: a dossier has room for so much]"
_NO_KIND: Final = re.compile(r"[^a-z-]")
_MARGIN: Final = 100
"""Bytes for the heading above the stacks, which is not counted with them."""


def log_cut(lines: int) -> str:
    """Return the line that stands for so many lines before the others."""
    return f"[{lines} earlier lines were cut: a dossier has room for so much]"


def line_of(text: str, limit: int) -> str:
    """Return hostile text on one line, escaped, of at most ``limit`` bytes in UTF-8."""
    # Escaping takes a while for what needs it; most of what is written down does not.
    shown = text if len(text) <= limit and text.isprintable() else escaped(text, limit)
    data = shown.encode()
    if len(data) <= limit:
        return shown
    return data[: limit - 3].decode(errors="ignore") + "..."


def fitted(dossier: Dossier, max_bytes: int) -> Dossier:
    """Return the dossier with every text escaped and every part within its bounds.

    Args:
        dossier: anything.
        max_bytes: of its files together; at least 96 KiB, so that every part has its room.
    """
    small = _small(dossier)
    room = max_bytes - sum(map(len, render(small).values())) - _MARGIN
    newest = _taken(reversed(dossier.log[-MAX_LOG_LINES:]), MAX_LOG_LINE, room)
    wanted = sum(map(_size, newest))
    stacks = _stacks(dossier.stacks, min(MAX_STACKS, max(room // 2, room - wanted)))
    log = _log(newest, len(dossier.log), room - len(stacks.encode()))
    return replace(small, log=log, stacks=stacks)


def _size(line: str) -> int:
    return len(line.encode()) + 1


def _log(newest: list[str], lines: int, room: int) -> tuple[str, ...]:
    """Return the last lines that there is room for, out of so many; ``newest`` come first."""
    kept = _within(newest, room)
    if len(kept) < lines:
        room -= _size(log_cut(MAX_WHOLE))
        if room < 0:
            return ()
        kept = _within(newest[: MAX_LOG_LINES - 1], room)
        kept.append(log_cut(lines - len(kept)))
    return tuple(reversed(kept))


def _stacks(text: str, room: int) -> str:
    """Return the first lines that there is room for."""
    # A character is a byte at least, so that nothing beyond this can have room.
    lines = text[: MAX_STACKS + 1].rstrip("\n").split("\n")
    kept = _taken(lines, MAX_STACK_LINE, room)
    if len(text) > MAX_STACKS or len(kept) < len(lines):
        room -= _size(STACKS_CUT)
        if room < 0:
            return ""
        kept = [*_taken(lines, MAX_STACK_LINE, room), STACKS_CUT]
    return "\n".join(kept)


def _taken(lines: Iterable[str], limit: int, room: int) -> list[str]:
    """Return the first of these lines, escaped, that there is room for; no more are looked at."""
    return _within((line_of(line, limit) for line in lines), room)


def _within(lines: Iterable[str], room: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        room -= _size(line)
        if room < 0:
            break
        kept.append(line)
    return kept


# -- what has a bound by itself ----------------------------------------------------------------


def _small(dossier: Dossier) -> Dossier:
    excess = dossier.excess
    return replace(
        dossier,
        plugin=line_of(dossier.plugin, MAX_WORD),
        version=line_of(dossier.version, MAX_WORD),
        root_digest=line_of(dossier.root_digest, MAX_WORD),
        pid=_whole(dossier.pid),
        text=line_of(dossier.text, MAX_TEXT),
        started_at=_number(dossier.started_at, 3, MAX_EPOCH),
        ended_at=_number(dossier.ended_at, 3, MAX_EPOCH),
        excess=_excess(excess) if excess else None,
        operation=line_of(dossier.operation, MAX_NAME),
        place=line_of(dossier.place, MAX_PLACE),
        exit_code=_optional(dossier.exit_code),
        exit_signal=_optional(dossier.exit_signal),
        usage=_usage(dossier.usage),
        limits=tuple(map(_enforced, dossier.limits[:MAX_LIMITS])),
        layers=tuple(dict.fromkeys(dossier.layers)),
        curve=tuple(map(_point, thinned(dossier.curve, MAX_POINTS))),
        frames=tuple(map(_frame, dossier.frames[-MAX_FRAMES:])),
        log=(),
        stacks="",
    )


def _whole(value: float) -> int:
    return min(MAX_WHOLE, max(0, int(value))) if math.isfinite(value) else 0


def _optional(value: int | None) -> int | None:
    return None if value is None else _whole(value)


def _number(value: float, digits: int = 6, most: float = MAX_SECONDS) -> float:
    return round(min(most, max(0.0, float(value))), digits) if math.isfinite(value) else 0.0


def _excess(excess: Exceeded) -> Exceeded:
    used = None if excess.used is None else _number(excess.used, most=MAX_WHOLE)
    limit = _number(excess.limit, most=MAX_WHOLE)
    return Exceeded(line_of(excess.budget, MAX_WORD), limit, used, line_of(excess.unit, MAX_WORD))


def _enforced(entry: Enforced) -> Enforced:
    return Enforced(
        line_of(entry.name, MAX_WORD),
        line_of(entry.value, MAX_WORD),
        line_of(entry.mechanism, MAX_MECHANISM),
    )


def _usage(usage: Usage) -> Usage:
    """Return it with the operations that cost most CPU time."""
    by_cost = sorted(usage.operations.items(), key=lambda item: -item[1].cpu_seconds)
    operations = {
        line_of(name, MAX_NAME): _figures(OperationUsage, cost)
        for name, cost in by_cost[:MAX_OPERATIONS]
    }
    plain = _figures(Usage, replace(usage, operations=MappingProxyType({})))
    return replace(plain, operations=MappingProxyType(operations))


def _figures(kind: type[Record], record: Record) -> Record:
    """Return a record of numbers with each in bounds; what is no number stays."""
    given: dict[str, Any] = {f.name: getattr(record, f.name) for f in fields(kind)}  # type: ignore[arg-type]  # both are dataclasses
    bounded = {
        name: _number(value) if isinstance(value, float) else _whole(value)
        for name, value in given.items()
        if isinstance(value, int | float)
    }
    return kind(**{**given, **bounded})


def _point(point: Point) -> Point:
    return Point(
        _number(point.at_seconds, 3),
        _number(point.cpu_seconds),
        _whole(point.resident_bytes),
        _whole(point.threads),
        _whole(point.descriptors),
    )


def _frame(frame: FrameHeader) -> FrameHeader:
    return replace(
        frame,
        before_end_seconds=_number(frame.before_end_seconds, 3),
        direction="in" if frame.direction == "in" else "out",
        kind=_NO_KIND.sub("-", frame.kind.lower()[:32]) or "-",
        id=_whole(frame.id),
        size_bytes=_whole(frame.size_bytes),
        name=line_of(frame.name, MAX_NAME),
    )

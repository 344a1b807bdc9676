"""How a dossier is shown: the cause first, then what is evidence, then the plugin's own word."""

from __future__ import annotations

import shutil
import signal
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sandbox_host.cli.describe import counted
from sandbox_host.cli.dossier_stacks import shown_stacks
from sandbox_host.cli.output import place, print_table, say
from sandbox_host.model import Cause
from sandbox_host.observe.advice import limit_key
from sandbox_host.observe.curve import thinned
from sandbox_host.reading import shown_amount, shown_bytes, shown_seconds
from sandbox_host.terms import LIMIT_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sandbox_host.observe.dossier import Dossier

_WIDEST: Final = 100
_LABEL: Final = 14
_BAR: Final = 24
_POINTS_SHOWN: Final = 18
_FRAMES_SHOWN: Final = 12
_STACK_LINES_SHOWN: Final = 40
_LOG_LINES_SHOWN: Final = 20
_QUOTE: Final = "  | "
_FIELD_OF: Final = {key.key: key.field for key in LIMIT_KEYS}


def print_dossier(dossier: Dossier, directory: Path) -> None:
    """Print a dossier so that a reader may stop after any line, in at most 100 columns.

    Args:
        dossier: as it was read back.
        directory: where it is kept.
    """
    width = min(_WIDEST, shutil.get_terminal_size((80, 24)).columns)
    _paragraph(f"{dossier.plugin} {dossier.version} ended: {dossier.cause}", width)
    _paragraph(dossier.text, width)
    say()
    for label, value in _facts(dossier):
        _field(label, value, width)
    say(f"  {'dossier':<{_LABEL}}{place(directory)}")  # in one piece, to be copied
    say()
    say("What to do next:")
    for text in dossier.advice:
        _paragraph(text, width, first="  * ", rest="    ")
    _print_use(dossier)
    say()
    _field("layers", ", ".join(dossier.layers) or "none", width)
    _print_curve(dossier)
    _print_frames(dossier)
    stacks = shown_stacks(dossier.stacks, width - len(_QUOTE)) if dossier.stacks else []
    title = "Python stacks, only the word of its own process"
    _print_lines(title, stacks[:_STACK_LINES_SHOWN], len(stacks), width)
    log = dossier.log[-_LOG_LINES_SHOWN:]
    _print_lines("Last lines that it printed", log, len(dossier.log), width)


def _paragraph(text: str, width: int, first: str = "", rest: str = "") -> None:
    for line in textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest):
        say(line)


def _field(label: str, value: str, width: int) -> None:
    indent = " " * (2 + _LABEL)
    lines = textwrap.wrap(
        value, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    for number, line in enumerate(lines):
        say(line if number else f"  {label:<{_LABEL}}{line.strip()}")


def _facts(dossier: Dossier) -> list[tuple[str, str]]:
    """Return what is known in one line each, labelled; nothing for what is not known."""
    facts = []
    if excess := dossier.excess:
        limit = shown_amount(excess.limit, excess.unit)
        used = "" if excess.used is None else f", {shown_amount(excess.used, excess.unit)} used"
        facts.append(("exceeded", f"{excess.budget}: {limit} allowed{used}"))
        by = _enforcers(dossier, limit_key(excess.budget, dossier.cause))
        facts += [("enforced by", "; ".join(by))] if by else []
    facts += [("operation", _operation(dossier))] if dossier.operation else []
    if dossier.place:
        facts.append(("place", f"{dossier.place} (the word of its own process)"))
    return [
        *facts,
        ("exit", _exit(dossier)),
        ("process", f"{dossier.pid}, for {shown_seconds(round(_lived(dossier), 3))}"),
        ("ended", f"{datetime.fromtimestamp(dossier.ended_at, UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("bundle", dossier.root_digest),
    ]


def _lived(dossier: Dossier) -> float:
    return max(0.0, dossier.ended_at - dossier.started_at)


def _enforcers(dossier: Dossier, key: str) -> list[str]:
    field = _FIELD_OF.get(key, "")
    return [entry.mechanism for entry in dossier.limits if entry.name == field]


def _operation(dossier: Dossier) -> str:
    """Return what it worked on, and whether that was over."""
    calls = [one for one in dossier.frames if one.id and one.name == dossier.operation]
    answered = bool(calls) and calls[-1].direction == "in"
    return f"{dossier.operation}, which it had answered" if answered else dossier.operation


_BY_HOST: Final = frozenset({Cause.PROTOCOL_VIOLATION, Cause.START_FAILED, Cause.UNRESPONSIVE})
"""Causes of which no other sends SIGKILL; nor where a budget was exceeded."""


def _exit(dossier: Dossier) -> str:
    if dossier.exit_signal is not None:
        text = f"signal {dossier.exit_signal}"
        if dossier.exit_signal in set(signal.Signals):
            text += f" ({signal.Signals(dossier.exit_signal).name})"
        if dossier.exit_signal == signal.SIGKILL and (dossier.excess or dossier.cause in _BY_HOST):
            text += ", sent by this host"
    elif dossier.exit_code is not None:
        text = f"status {dossier.exit_code}"
    else:
        text = "not known"
    return f"{text}; it was held still before it was ended" if dossier.frozen else text


def _print_use(dossier: Dossier) -> None:
    usage, excess = dossier.usage, dossier.excess
    used = {
        "memory": _at_most(usage.memory_peak_bytes, shown_bytes),
        "cpu_total": shown_amount(usage.cpu_seconds, "seconds"),
        "descriptors": _at_most(usage.descriptors_peak, str),
        "threads": _at_most(usage.threads_peak, str),
    }
    if excess and excess.used is not None and (key := limit_key(excess.budget, dossier.cause)):
        used.setdefault(key, shown_amount(excess.used, excess.unit))
    rows = []
    for key, amount in used.items():
        allowed = [entry.value for entry in dossier.limits if entry.name == _FIELD_OF[key]]
        by = "; ".join(_enforcers(dossier, key))
        # The kernel's come first, with their headroom; the last is the budget itself.
        rows.append((key, amount, allowed[-1] if allowed else "", by))
    failed = f", {usage.failures} of them with an error" if usage.failures else ""
    _print_section(
        f"What it used, with {counted(usage.calls, 'call')} answered{failed}",
        ("LIMIT", "USED", "ALLOWED", "ENFORCED BY"),
        rows,
    )


def _at_most(peak: int, shown: Callable[[int], str]) -> str:
    # A process that ended at once may never have been looked at.
    return f"{shown(peak)} at most" if peak else "not seen"


def _print_curve(dossier: Dossier) -> None:
    points = thinned(dossier.curve, _POINTS_SHOWN)
    most = max((point.resident_bytes for point in points), default=0) or 1
    rows: list[tuple[object, ...]] = [
        (
            f"{point.at_seconds:.2f} s",
            shown_bytes(point.resident_bytes),
            "#" * max(1, round(_BAR * point.resident_bytes / most)),
            f"{point.cpu_seconds:.2f} s",
            point.threads,
            point.descriptors,
        )
        for point in points
    ]
    if points:
        # Who did not run was not looked at: that it stood still shows only here.
        cpu = f"{dossier.usage.cpu_seconds:.2f} s"
        rows.append((f"{_lived(dossier):.2f} s", "", "the end", cpu, "", ""))
    fewer = len(points) < len(dossier.curve)
    shown = f": {len(points)} of {len(dossier.curve)} points" if fewer else ""
    headings = ("AFTER", "MEMORY", "", "CPU TIME", "THREADS", "FDS")
    _print_section(f"Over time, since its start{shown}", headings, rows)


def _print_frames(dossier: Dossier) -> None:
    frames = dossier.frames[-_FRAMES_SHOWN:]
    rows = [
        (
            f"{frame.before_end_seconds:.3f} s",
            "from it" if frame.direction == "in" else "to it",
            frame.kind,
            frame.id or "",
            shown_bytes(frame.size_bytes),
            frame.name,
        )
        for frame in frames
    ]
    headings = ("BEFORE THE END", "WAY", "MESSAGE", "ID", "SIZE", "NAME")
    _print_section("Last messages, without what they carried", headings, rows)


def _print_section(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        say()
        say(f"{title}:")
        print_table(headings, rows)


def _print_lines(title: str, lines: Iterable[str], of: int, width: int) -> None:
    """Print hostile lines, each marked as such and cut to the width."""
    shown = list(lines)
    if not shown:
        return
    say()
    say(f"{title}:" if len(shown) == of else f"{title} ({len(shown)} of {of} lines):")
    for line in shown:
        say(_cut(f"{_QUOTE}{line}", width))


def _cut(line: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(line) <= width:
        return line
    return set_cell_size(line, width - 3) + "..."

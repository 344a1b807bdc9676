"""Dossiers for tests, and one of each cause for the documentation.

``python -m tests.support.dossier_examples`` makes the examples of ``docs/dossiers.md`` afresh and
prints them; with the path of that file after it, they replace those that stand there. No pytest in
here: an ordinary user runs it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

from sandbox_host.cli.dossier_report import print_dossier
from sandbox_host.model import MIB, Cause, Enforced, Layer, OperationUsage, Usage
from sandbox_host.observe.curve import Point
from sandbox_host.observe.dossier import Dossier, Exceeded, FrameHeader
from sandbox_host.observe.dossier_ids import id_of
from sandbox_host.reading import shown_amount
from tests.support.dossier_causes import CAUSES, NAME, produce

ENDED_AT = 1_769_860_800.25
"""2026-01-31 12:00:00.25 UTC."""


def example(**changed: Any) -> Dossier:
    """Return the dossier of a plugin that was ended for its memory, with some fields changed."""
    fields: dict[str, Any] = {
        "plugin": "hog",
        "version": "1.0.0",
        "root_digest": "ab" * 32,
        "pid": 4711,
        "cause": Cause.MEMORY,
        "text": "hog exceeded its budget memory in grow: 80 MiB of 64 MiB.",
        "started_at": ENDED_AT - 2.5,
        "ended_at": ENDED_AT,
        "excess": Exceeded("memory", 64.0 * MIB, 80.0 * MIB, "bytes"),
        "operation": "grow",
        "place": "main.py:7 in grow",
        "exit_signal": 9,
        "frozen": True,
        "usage": Usage(
            cpu_seconds=1.25,
            memory_peak_bytes=80 * MIB,
            descriptors_peak=9,
            threads_peak=2,
            calls=3,
            failures=1,
            p50_seconds=0.01,
            p99_seconds=0.5,
            bytes_in=1_000,
            bytes_out=2_000,
            operations=MappingProxyType({"grow": OperationUsage(3, 1, 1.0, 1.5, 2_000, 1_000)}),
        ),
        "limits": (
            Enforced("memory_bytes", "64 MiB", "cgroup, memory.max"),
            Enforced("memory_bytes", "64 MiB", "watchdog, every 20 ms"),
            Enforced("cpu_seconds", "60 s an operation", "watchdog, every 20 ms"),
            Enforced("cpu_total_seconds", "24 h", "rlimits, RLIMIT_CPU"),
            Enforced("descriptors", "1000", "rlimits, RLIMIT_NOFILE"),
            Enforced("threads", "64", "cgroup, pids.max"),
        ),
        "layers": (Layer.CGROUP, Layer.SECCOMP, Layer.WATCHDOG),
        "curve": tuple(Point(n / 10, n / 20, n * 3 * MIB, 2, 9) for n in range(26)),
        "frames": (
            FrameHeader(2.4, "out", "load", 0, 900),
            FrameHeader(2.3, "in", "ready", 0, 400),
            FrameHeader(1.5, "out", "call", 1, 40, "grow"),
            FrameHeader(1.25, "in", "publish", 0, 120, "data_processed"),
        ),
        "log": ("starting", "growing \\x1b[2J"),
        "stacks": 'Thread 0x1 (most recent call first):\n  File "main.py", line 7 in grow',
    }
    return Dossier(**{**fields, **changed})


# -- what differs between two runs, replaced by what reads as well --------------------------------

_DIGEST = hashlib.sha256(NAME.encode()).hexdigest()
_PID = 4_711
_LIVED_SECONDS = 1.5
_START_SECONDS = 0.04
_MOST_POINTS = 3
_GROWN_BYTES = 30 * MIB
_GROWN_SECONDS = 0.5
_GROWN_THREADS = 4
_WAITING_THREADS = 8
_RUNTIME = ('  File "plugin_sdk/child/loop.py", line 7 in _run',) * 12
_EVERYWHERE = ("watchdog", "measured by", "held back", "RLIMIT_NOFILE", "RLIMIT_CPU")
_LAYERS = (Layer.RLIMITS, Layer.LANDLOCK, Layer.SECCOMP, Layer.WATCHDOG)
_LINE = re.compile(r"\b(main\.py):\d+ in ")
_OF_A_BUDGET = re.compile(r": \S+ \w+ of (?=\S+ \w+\.$)")
_GRACE = re.compile(r"(?<= for )\S+ s(?= after )")
_HEADING = re.compile(r"^((?:Current t|T)hread) 0x[0-9a-f]+ .*:$")
_FRAME = re.compile(r'^  File "(?:/.*/python3\.\d+/)?([^"]+)", line \d+ in (.+)$')


def normalized(dossier: Dossier) -> Dossier:
    """Return a dossier as the same plugin leaves it on every machine, and shorter. Pure.

    Digest, process, times, lines, addresses and sizes become constants that stand for them; a
    measured amount becomes the limit and a little; a curve becomes one of three points, that
    grows where it grew. Of limits and layers, those are left that every machine enforces.
    """
    excess = dossier.excess and replace(dossier.excess, used=_a_little_more(dossier.excess))
    curve = _curve(dossier)
    frames = [one for one in dossier.frames if one.name != "the clean-up"]
    usage = replace(
        dossier.usage,
        cpu_seconds=curve[-1].cpu_seconds,
        memory_peak_bytes=max(point.resident_bytes for point in curve),
        descriptors_peak=7,
        threads_peak=max(point.threads for point in curve),
    )
    failed_start = dossier.cause is Cause.START_FAILED  # where it leaves, or is killed before that
    return replace(
        dossier,
        root_digest=_DIGEST,
        pid=_PID,
        text=_text(dossier.text, excess),
        started_at=ENDED_AT - _LIVED_SECONDS,
        ended_at=ENDED_AT,
        excess=excess,
        place=_LINE.sub(r"\1:7 in ", dossier.place),
        exit_code=73 if failed_start else dossier.exit_code,
        exit_signal=None if failed_start else dossier.exit_signal,
        frozen=False,
        usage=usage,
        limits=tuple(one for one in dossier.limits if one.mechanism.startswith(_EVERYWHERE)),
        layers=tuple(one for one in dossier.layers if one in _LAYERS),
        curve=curve,
        frames=tuple(_frame(number, one) for number, one in enumerate(frames)),
        stacks=_stacks(dossier.stacks),
    )


def _a_little_more(excess: Exceeded) -> float:
    by_unit = {"bytes": float(MIB), "seconds": 0.01}
    return round(excess.limit, 3) + by_unit.get(excess.unit, 1)


def _text(text: str, excess: Exceeded | None) -> str:
    text = _LINE.sub(r"\1:7 in ", text)
    if excess is None:
        return text
    assert excess.used is not None
    text = _GRACE.sub(f"{excess.used:.3g} s", text)
    return _OF_A_BUDGET.sub(f": {shown_amount(excess.used, excess.unit)} of ", text)


def _curve(dossier: Dossier) -> tuple[Point, ...]:
    """Return as many points as tell the story: three of what grew, one of what did not."""
    points = dossier.curve
    grown_bytes = _grown(points, lambda one: one.resident_bytes) > _GROWN_BYTES
    grown_cpu = _grown(points, lambda one: one.cpu_seconds) > _GROWN_SECONDS
    grown_threads = _grown(points, lambda one: one.threads) >= _GROWN_THREADS
    return tuple(
        Point(
            at_seconds=0.01 + number * (_LIVED_SECONDS - 0.01) / (_MOST_POINTS - 1),
            cpu_seconds=0.02 + grown_cpu * number * 0.5,
            resident_bytes=11 * MIB + grown_bytes * number * 27 * MIB,
            threads=1 + grown_threads * number * 4,
            descriptors=7,
        )
        for number in range(_MOST_POINTS if grown_bytes or grown_cpu or grown_threads else 1)
    )


def _grown(points: tuple[Point, ...], what: Callable[[Point], float]) -> float:
    return max(map(what, points)) - what(points[0]) if points else 0


def _frame(number: int, frame: FrameHeader) -> FrameHeader:
    before = _LIVED_SECONDS if not number else _LIVED_SECONDS - _START_SECONDS - number / 1000
    size = frame.size_bytes if frame.id else 256 * (1 + number)
    return replace(frame, before_end_seconds=before, size_bytes=size)


def _stacks(text: str) -> str:
    """Return the stacks without what is the interpreter's and depends on its version.

    Of threads that only wait, there are as many as the plugin of the examples may have.
    """
    blocks: list[list[str]] = []
    for block in text.split("\n\n"):
        lines = [_stack_line(line) for line in _seen_by_the_main_one(block.split("\n"))]
        kept = [line for line in lines if line]
        is_thread = _HEADING.match(kept[0]) if kept else None
        if kept and kept not in blocks and (len(kept) > 1 or not is_thread):
            blocks.append(kept)
    told = []
    for block in blocks:
        waits, works = (block[0].startswith(start) for start in ("Thread ", "Current "))
        told += [[*block, *_RUNTIME * works]] * (_WAITING_THREADS if waits else 1)
    return "\n\n".join("\n".join(lines) for lines in told)


def _seen_by_the_main_one(block: list[str]) -> list[str]:
    """Return a thread as it is told when the main one tells; the kernel may choose another.

    That is the rule of signal(7): any thread that does not block it, and mostly the main one.
    """
    heading, *frames = block
    if not _HEADING.match(heading):
        return block
    own = any((match := _FRAME.match(one)) and match[1].startswith("plugin_sdk/") for one in frames)
    told = heading.replace("Current thread", "Thread")
    return [told.replace("Thread", "Current thread") if own else told, *frames]


def _stack_line(line: str) -> str:
    """Return a line as it is everywhere; "" if it is not."""
    if _HEADING.match(line):
        return _HEADING.sub(r"\1 0x00007f52c0ffee40 (most recent call first):", line)
    match = _FRAME.match(line)
    if match is None:
        return line if line.startswith("Fatal Python error") else ""
    if match[1].startswith(("plugin_sdk/", "threading.py", "<string>")):
        return ""
    return f'  File "{match[1]}", line 7 in {match[2]}'


# -- as the documentation has them ----------------------------------------------------------------

LEFT_OUT = "[...]"


def shown(dossier: Dossier) -> str:
    """Return what ``sandbox-host dossier show`` prints of it, in 80 columns."""
    place = Path("/var/lib/sandbox-host/dossiers", id_of(dossier))
    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="80"), contextlib.redirect_stdout(out):
        print_dossier(dossier, place)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def examples(made: Mapping[Cause, Dossier]) -> dict[str, str]:
    """Return the text of each example by the name of its cause.

    What stands in one of them is left out of those after it.
    """
    told: set[str] = set()
    texts = {}
    for cause in (one for one in CAUSES if one in made):
        parts = shown(normalized(made[cause])).rstrip("\n").split("\n\n")
        kept = [LEFT_OUT if part in told else part for part in parts]
        told.update(parts)
        texts[str(cause)] = "\n\n".join(part for part, _ in itertools.groupby(kept)) + "\n"
    return texts


_EXAMPLE = re.compile(r"^### (?P<cause>[a-z-]+)\n.*?^```text\n(?P<text>.*?)^```$", re.M | re.S)


def examples_in(page: str) -> dict[str, str]:
    """Return the examples that stand in a text of documentation, by the name of their cause."""
    return {match["cause"]: match["text"] for match in _EXAMPLE.finditer(page)}


def with_examples(page: str, fresh: Mapping[str, str]) -> str:
    """Return the documentation with fresh examples in place of those that stand there."""
    for match in reversed(list(_EXAMPLE.finditer(page))):
        text = fresh.get(match["cause"], match["text"])
        page = page[: match.start("text")] + text + page[match.end("text") :]
    return page


def main(*pages: str) -> None:
    """Print the examples, or put them in their places in a page."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = examples(produce(Path(directory).resolve()))
    for cause, text in fresh.items():
        if not pages:
            print(f"### {cause}\n\n```text\n{text}```\n")
    for page in map(Path, pages):
        page.write_text(with_examples(page.read_text(encoding="utf-8"), fresh), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

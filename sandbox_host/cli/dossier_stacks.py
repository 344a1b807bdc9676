"""Python's stacks as the fault handler writes them, shortened for a person. Pure.

It writes the newest thread first, so that the one that works comes last, behind all that wait; and
below each frame of a plugin's stand a dozen of the runtime's, which are the same every time.
"""

from __future__ import annotations

import re
from typing import Final

_FRAME: Final = re.compile(r'  File "([^"]*)", line \d+ in .*')
_CURRENT: Final = "Current thread "
_OTHER: Final = "Thread "
_RUNTIME: Final = ("plugin_sdk/", "<string>")
_CUT: Final = "..."
_LEAST_OF_A_PATH: Final = 12


def shown_stacks(text: str, width: int) -> list[str]:
    """Return the lines to show: the working thread first, threads that stand alike only once.

    Args:
        text: threads with empty lines between them: a heading and frames, innermost first.
        width: in characters; of a longer frame the beginning of its path is left out.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    order: dict[tuple[str, ...], int] = {}
    for block in re.split(r"\n\n+", text.strip("\n")):
        heading, *frames = block.split("\n")
        rank = _rank(heading, first=not alike)
        # What is no thread's stands for itself.
        key = tuple(frames) if rank in _THREADS else (heading, *frames)
        alike.setdefault(key, []).append(heading)
        order[key] = min(rank, order.get(key, rank))
    lines: list[str] = []
    for key in sorted(alike, key=order.__getitem__):
        frames = list(key) if order[key] in _THREADS else list(key[1:])
        lines += [""] if lines else []
        lines += [_heading(alike[key]), *(_narrow(line, width) for line in _shortened(frames))]
    return lines


_BEFORE, _WORKING, _WAITING, _AFTER = range(4)
_THREADS: Final = (_WORKING, _WAITING)


def _rank(heading: str, *, first: bool) -> int:
    if heading.startswith(_CURRENT):
        return _WORKING
    if heading.startswith(_OTHER):
        return _WAITING
    return _BEFORE if first else _AFTER


def _heading(headings: list[str]) -> str:
    # The working one says most of those that stand alike.
    best = min(headings, key=lambda one: not one.startswith(_CURRENT))
    return best if len(headings) == 1 else f"{len(headings)} alike: {best}"


def _shortened(frames: list[str]) -> list[str]:
    """Return the frames without the outermost ones that are the runtime's."""
    kept = len(frames)
    while kept and (match := _FRAME.fullmatch(frames[kept - 1])):
        if not match[1].startswith(_RUNTIME):
            break
        kept -= 1
    left_out = len(frames) - kept
    return [*frames[:kept], f"  ({left_out} frames of the runtime)"] if left_out else frames


def _narrow(line: str, width: int) -> str:
    match = _FRAME.fullmatch(line)
    too_long = len(line) - width
    if match is None or too_long <= 0:
        return line
    keep = max(_LEAST_OF_A_PATH, len(match[1]) - too_long - len(_CUT))
    if keep >= len(match[1]):
        return line
    return f"{line[: match.start(1)]}{_CUT}{match[1][-keep:]}{line[match.end(1) :]}"

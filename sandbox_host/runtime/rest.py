"""Tells which of many plugins at rest have stirred, at the price of one CPU clock each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

_T = TypeVar("_T")

_SLICE: Final = 200
_BREATH_SECONDS: Final = 0.000_05
"""After so many clocks the interpreter is let go of for so long: callers wait for it meanwhile."""


class Rest(NamedTuple):
    """What shows that a plugin still rests.

    Attributes:
        clock: of its process, for `time.clock_gettime`.
        cpu_seconds: what that showed before the last look.
        asked: what it has not answered, as it is at any time: nothing.
        until: reading of the monotonic clock at which it is looked at all the same.
    """

    clock: int
    cpu_seconds: float
    asked: Sized
    until: float


def stirred(resting: Sequence[tuple[_T, Rest]]) -> list[_T]:
    """Return those that have run, or ended, or were asked something."""
    found: list[_T] = []
    for start in range(0, len(resting), _SLICE):
        if start:
            time.sleep(_BREATH_SECONDS)
        some = resting[start : start + _SLICE]
        found += [one for one, rest in some if rest.asked or _reading(rest) != rest.cpu_seconds]
    return found


def _reading(rest: Rest) -> float | None:
    """Return what its clock shows; None where it has ended."""
    try:
        return time.clock_gettime(rest.clock)
    except OSError:
        return None

"""What a plugin used over its life, as a curve of bounded size: fine at first, then coarser."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

MAX_POINTS: Final = 240
_LEAST_POINTS: Final = 8


@dataclass(frozen=True, slots=True)
class Point:
    """What a process used at one moment.

    Attributes:
        at_seconds: since a moment that the curve's reader chooses.
        cpu_seconds: CPU time since the process began.
    """

    at_seconds: float
    cpu_seconds: float
    resident_bytes: int
    threads: int
    descriptors: int


class Curve:
    """At most so many points of one process's life; safe to use from several threads.

    When it is full, every second point is dropped, and from then on points are kept twice as far
    apart. The first point, the newest, and the first of those with the most memory are never
    dropped.

    Args:
        most: how many points there are at most.

    Raises:
        ValueError: ``most`` is less than 8.
    """

    def __init__(self, most: int = MAX_POINTS) -> None:
        if most < _LEAST_POINTS:
            text = f"a curve has at least {_LEAST_POINTS} points, not {most}"
            raise ValueError(text)
        self._room = most - 2  # beside these, the newest and the peak
        self._kept: list[Point] = []
        self._newest: Point | None = None
        self._peak: Point | None = None
        self._spacing_seconds = 0.0
        self._lock = threading.Lock()

    def add(
        self,
        at_seconds: float,
        cpu_seconds: float,
        resident_bytes: int,
        threads: int,
        descriptors: int,
    ) -> None:
        """Take what was seen at one moment; takes constant time, spread over the calls.

        Args:
            at_seconds: reading of a monotonic clock. What is older than the newest point came
                late, from another thread, and is dropped.
            cpu_seconds: CPU time since the process began.
            resident_bytes: its resident memory.
            threads: how many it has.
            descriptors: how many it has open.
        """
        point = Point(at_seconds, cpu_seconds, resident_bytes, threads, descriptors)
        with self._lock:
            if self._newest is not None and at_seconds < self._newest.at_seconds:
                return
            self._newest = point
            if self._peak is None or resident_bytes > self._peak.resident_bytes:
                self._peak = point
            if self._kept and at_seconds - self._kept[-1].at_seconds < self._spacing_seconds:
                return
            self._kept.append(point)
            if len(self._kept) > self._room:
                self._thin()

    def _thin(self) -> None:
        del self._kept[1::2]
        span = self._kept[-1].at_seconds - self._kept[0].at_seconds
        self._spacing_seconds = 2 * self._spacing_seconds or span / (len(self._kept) - 1)

    def points(self, since_seconds: float = 0.0) -> tuple[Point, ...]:
        """Return the points in the order of time.

        Args:
            since_seconds: reading of the same clock that their times are counted from.
        """
        with self._lock:
            named = [one for one in (self._peak, self._newest) if one is not None]
            found = dict.fromkeys([*self._kept, *named])
        return tuple(
            replace(one, at_seconds=one.at_seconds - since_seconds)
            for one in sorted(found, key=lambda one: one.at_seconds)
        )


def thinned(points: Iterable[Point], most: int = MAX_POINTS) -> tuple[Point, ...]:
    """Return at most so many of the points, as a curve would have kept them."""
    given = tuple(points)
    if len(given) <= most:
        return given
    curve = Curve(most)
    for one in given:
        curve.add(one.at_seconds, one.cpu_seconds, one.resident_bytes, one.threads, one.descriptors)
    return curve.points()

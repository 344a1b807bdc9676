"""CPU time in a window that slides: how much of it in the last minute. Pure; clocks come in."""

from __future__ import annotations

from collections import deque
from typing import Final

MINUTE_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 1.0


class CpuWindow:
    """Remembers readings of one CPU clock, a second apart, for a minute.

    What it tells is never more than was used in the window: the first reading in it stands for its
    beginning, which is less than two seconds older where somebody looks every second.
    """

    __slots__ = ("_readings",)

    def __init__(self) -> None:
        self._readings: deque[tuple[float, float]] = deque()

    def used(self, cpu_seconds: float, now: float) -> float:
        """Take a reading, and return the CPU seconds used in the minute before it.

        Args:
            cpu_seconds: of the CPU clock, which never goes back; where it seems to, as that of a
                process that has ended may, nothing was used.
            now: of the monotonic clock.
        """
        readings = self._readings
        if not readings or now - readings[-1][0] >= _STEP_SECONDS:
            readings.append((now, cpu_seconds))
        while now - readings[0][0] > MINUTE_SECONDS:
            readings.popleft()
        return max(0.0, cpu_seconds - readings[0][1])

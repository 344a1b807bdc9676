"""Decides whether too much has passed through a plugin's connections. Pure; the clock comes in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.budget.window import MINUTE_SECONDS
from sandbox_host.model import Cause

if TYPE_CHECKING:
    from sandbox_host.model import Limits

_STEP_SECONDS: Final = 1.0


class TrafficWindow:
    """Remembers one plugin's bytes, sent and received, a second apart, for a minute.

    What passed since the last reading counts as passed now, however long ago that was: nobody looks
    while no connection is open. So it tells of up to a second more than a minute.

    Args:
        limits: ``network_bytes_per_minute`` of them.
        now: reading of the monotonic clock, when nothing had passed.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limit = limits.network_bytes_per_minute
        self._readings: deque[tuple[float, int]] = deque([(now, 0)])

    def used(self, total: int, now: float) -> int:
        """Take a reading, and return the bytes of the minute before it.

        Args:
            total: in the plugin's life so far.
            now: of the monotonic clock.
        """
        readings = self._readings
        while len(readings) > 1 and now - readings[1][0] >= MINUTE_SECONDS:
            readings.popleft()
        if now - readings[-1][0] >= _STEP_SECONDS:
            readings.append((now, total))
        return max(0, total - readings[0][1])

    def excess(self, total: int, now: float) -> Excess | None:
        """Take a reading, and return the excess or None; arguments as for `used`."""
        used = self.used(total, now)
        if used <= self._limit:
            return None
        of = self._limit, used, "bytes"
        return Excess(Step.END, Cause.NETWORK, "network_bytes_per_minute", *of)

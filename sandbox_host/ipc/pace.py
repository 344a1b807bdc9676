"""How much a plugin may say unasked: beyond it, it is not read until its time has come.

Pure; the clock is the caller's. A plugin that floods then waits at its own full pipe: it pays, not
the thread that reads for everybody.
"""

from __future__ import annotations

from typing import Final

EVENTS_PER_SECOND: Final = 2_000
"""Sustained rate of small messages that answer nothing. One costs the host about 25 µs."""

_BYTES_PER_TOKEN: Final = 512

BURST: Final = 2_000
"""How many may come at once after a quiet time."""


def cost_of(size: int) -> float:
    """Return what a message with a payload of ``size`` bytes costs: a small one costs 1."""
    return max(1.0, size / _BYTES_PER_TOKEN)


class Pace:
    """A token bucket that may be overdrawn once, and then says how long to wait."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at = 0.0

    def take(self, cost: float, now: float) -> None:
        """Note that unasked messages of this cost came at ``now`` (monotonic seconds)."""
        earned = max(0.0, now - self._at) * EVENTS_PER_SECOND
        self._tokens = min(float(BURST), self._tokens + earned) - cost
        self._at = now

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing should be read; 0.0 if reading may go on."""
        if self._tokens >= 0:
            return 0.0
        return max(0.0, self._at - self._tokens / EVENTS_PER_SECOND - now)

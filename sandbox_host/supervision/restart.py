"""When to start a plugin again that has ended by itself, and when not to any more.

Each end in a row doubles the delay, up to a cap, with jitter so that plugins which fell together do
not rise together. Too many ends within a window lead to quarantine; ends that lie far apart do not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sandbox_host.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often, and how soon.

    Attributes:
        first_delay_seconds: before the first restart.
        factor: by which each delay is longer than the one before.
        longest_delay_seconds: no delay is longer, but for the jitter.
        jitter: share of a delay that chance adds to it, at most; from 0 to 1.
        most_ends: so many ends within the window are too many.
        window_seconds: how far back ends count for that.
        steady_seconds: who has run for so long begins with the first delay again.
    """

    first_delay_seconds: float = 0.1
    factor: float = 2.0
    longest_delay_seconds: float = 30.0
    jitter: float = 0.2
    most_ends: int = 5
    window_seconds: float = 60.0
    steady_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a value is out of its range.
        """
        ranges = {
            "first_delay_seconds": (0.0, self.first_delay_seconds, 3_600.0),
            "factor": (1.0, self.factor, 100.0),
            "longest_delay_seconds": (self.first_delay_seconds, self.longest_delay_seconds, 86_400),
            "jitter": (0.0, self.jitter, 1.0),
            "most_ends": (1, self.most_ends, 1_000),
            "window_seconds": (0.001, self.window_seconds, 30 * 86_400.0),
            "steady_seconds": (0.0, self.steady_seconds, 30 * 86_400.0),
        }
        for name, (least, value, most) in ranges.items():
            if not least <= value <= most:  # nan is in no range
                text = f"restart.{name}: expected from {least:g} to {most:g}, got {value!r:.40}."
                raise ConfigError(text)


@dataclass(frozen=True, slots=True)
class Retry:
    """Start it again, at this reading of the caller's clock."""

    at: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Start it no more until an operator says so."""

    reason: str


class Restarts:
    """One plugin's ends, and what follows from them. Not thread-safe; the clock is the caller's."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        # One more than are allowed is enough to know.
        self._ends: deque[float] = deque(maxlen=policy.most_ends)
        self._in_a_row = 0
        self._started: float | None = None

    def started(self, now: float) -> None:
        """It has become ready."""
        self._started = now

    def decide(self, now: float, chance: float) -> Retry | Quarantine:
        """Return what to do about an end, or a start that failed, at ``now``.

        Args:
            now: monotonic seconds.
            chance: a random number from 0 to 1.
        """
        policy = self._policy
        if self._started is not None and now - self._started >= policy.steady_seconds:
            self._in_a_row = 0
        self._started = None
        self._ends.append(now)
        recent = [end for end in self._ends if now - end < policy.window_seconds]
        if len(recent) >= policy.most_ends:
            return Quarantine(f"it ended {len(recent)} times within {policy.window_seconds:g} s.")
        delay = policy.first_delay_seconds
        for _ in range(self._in_a_row):
            longer = min(delay * policy.factor, policy.longest_delay_seconds)
            if longer <= delay:
                break  # at its longest, or one that never grows: ends in a row may be millions
            delay = longer
        self._in_a_row += 1
        return Retry(now + delay * (1.0 + policy.jitter * min(max(chance, 0.0), 1.0)))

    def forget(self) -> None:
        """Begin anew: an operator has looked at it."""
        self._ends.clear()
        self._in_a_row = 0
        self._started = None

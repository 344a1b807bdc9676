"""From verdicts to a status that does not flutter: worse after several, better after several.

One bad verdict may be chance, and so may one good one. A plugin gets worse when so many of the last
verdicts say so, and better when so many in a row do. A verdict on a plugin that is busy, and has
nothing else against it, counts neither way: nobody knows what it would have said.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.health.verdict import HealthStatus

if TYPE_CHECKING:
    from sandbox_host.health.verdict import Verdict

_GRADE: Final = {status: grade for grade, status in enumerate(HealthStatus)}
_BY_GRADE: Final = tuple(HealthStatus)


@dataclass(frozen=True, slots=True)
class HysteresisPolicy:
    """How many verdicts it takes.

    Attributes:
        bad: so many of the last `window` make a plugin worse.
        window: so many verdicts are looked at; at least `bad`, at most 1,000.
        good: so many in a row make it better.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    bad: int = 3
    window: int = 5
    good: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.window <= 1_000:  # noqa: PLR2004 - remembered, for each plugin
            raise ValueError(f"window: {self.window} is out of range")
        for name, value in (("bad", self.bad), ("good", self.good)):
            if not 1 <= value <= self.window:
                raise ValueError(f"{name}: {value} is not from 1 to {self.window}, the window")


class Turn(enum.Enum):
    """Which way a status turned."""

    WORSE = "worse"
    BETTER = "better"


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A plugin's status is another one now.

    Attributes:
        message: of the verdict that it turned with.
    """

    before: HealthStatus
    after: HealthStatus
    message: str

    @property
    def turn(self) -> Turn:
        """Which way."""
        return Turn.WORSE if _GRADE[self.after] > _GRADE[self.before] else Turn.BETTER


class Hysteresis:
    """The status of one plugin's process. Not locked: whoever judges does so from one thread.

    A process that begins is healthy until it is known to be otherwise: make another one for it.

    Attributes:
        status: what counts now.
    """

    def __init__(self, policy: HysteresisPolicy | None = None) -> None:
        self._policy = policy or HysteresisPolicy()
        self._last: deque[int] = deque(maxlen=self._policy.window)
        self.status = HealthStatus.HEALTHY

    def see(self, verdict: Verdict) -> StatusChange | None:
        """Take a verdict, and return the change of status that it brings, if it does."""
        if verdict.busy and verdict.status is HealthStatus.HEALTHY:
            return None
        self._last.append(_GRADE[verdict.status])
        before = self.status
        self.status = self._worse() or self._better() or before
        if self.status is before:
            return None
        if _GRADE[self.status] < _GRADE[before]:
            # What was bad before has been answered: it does not count a second time.
            while len(self._last) > self._policy.good:
                self._last.popleft()
        return StatusChange(before, self.status, verdict.message)

    def _worse(self) -> HealthStatus | None:
        """Return the worst status that enough of the last verdicts speak for, or one still worse.

        None where that is not worse than the present one.
        """
        if len(self._last) < self._policy.bad:
            return None
        grade = sorted(self._last, reverse=True)[self._policy.bad - 1]
        return _BY_GRADE[grade] if grade > _GRADE[self.status] else None

    def _better(self) -> HealthStatus | None:
        """Return the worst of the last few verdicts, where they are all better than the status."""
        if len(self._last) < self._policy.good:
            return None
        grade = max(list(self._last)[-self._policy.good :])
        return _BY_GRADE[grade] if grade < _GRADE[self.status] else None


def is_busy(
    *, deadline: float | None, now: float, cpu_moved_seconds: float, waits_for_host: bool = False
) -> bool:
    """Tell whether a plugin that did not answer its health check works, rather than hangs.

    Only within the deadline of what it works on: then `budget.enforce` ends it. A plugin that
    waits for something outside (a socket) within its deadline moves no CPU clock, and is not told
    from one that hangs; several such verdicts in a row take longer than its deadline.

    Args:
        deadline: of the call that it works on, by the monotonic clock; the latest of several; None
            where it works on none.
        now: by the same clock.
        cpu_moved_seconds: how far its CPU clock moved since it was asked how it is.
        waits_for_host: it waits for an answer that the host, or another plugin, owes it.
    """
    within = deadline is not None and now < deadline
    return within and (cpu_moved_seconds > 0.0 or waits_for_host)

"""What an operator is told of trouble: once, again if it lasts, and when it is over. Pure.

An alert is known by plugin and rule. Whoever sees something says `trouble` or `well`, as often as
it likes; what comes back is to be sent, and is little:

* The first word of an alert comes at once. After that two messages of it are at least the pause
  apart, however often it comes and goes: one that flutters is told with how often.
* What was told last is what is the case, at the latest a pause later: `due` says what has waited.
* Trouble that lasts is told again after the repeat time.
* That it is over is told only to whom its beginning was.

So many alerts are open at most. What comes beyond is counted and told as one alert of the host's
own, and is told itself when there is room and it is seen again.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from sandbox_host.reading import escaped

MAX_TEXT: Final = 500
OVERFLOW: Final = ("", "too-many-alerts")
"""Plugin (none) and rule of the alert that says that there are more than are kept."""


class Severity(enum.StrEnum):
    """How grave it is, from least to most."""

    WARNING = "warning"
    ERROR = "error"


class Kind(enum.StrEnum):
    """What an alert says."""

    RAISED = "raised"
    CHANGED = "changed"
    """It goes on, and is of another severity now."""
    REPEATED = "repeated"
    """It goes on."""
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Alert:
    """One message, to be sent to every sink.

    Attributes:
        plugin: whose trouble it is; "" for the host's own.
        rule: what was broken, a fixed word of the host's such as "health".
        severity: of the trouble; of one that is over, as it was told before.
        text: one line, safe to show.
        since: when it began, by the caller's clock.
        at: when this is told.
        times: so often was it seen to begin since it was told the last time.
    """

    plugin: str
    rule: str
    kind: Kind
    severity: Severity
    text: str
    since: float
    at: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """How much an operator is told.

    Attributes:
        pause_seconds: two messages of one alert are at least so far apart.
        repeat_seconds: trouble that lasts is told again after this; at least the pause.
        max_open: so many alerts are kept at a time.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    pause_seconds: float = 60.0
    repeat_seconds: float = 3_600.0
    max_open: int = 1_000

    def __post_init__(self) -> None:
        if not 0 <= self.pause_seconds < math.inf:
            raise ValueError(f"pause_seconds: {self.pause_seconds} is out of range")
        if not self.pause_seconds <= self.repeat_seconds:
            raise ValueError(f"repeat_seconds: {self.repeat_seconds} is less than the pause")
        if not 1 <= self.max_open <= 1_000_000:  # noqa: PLR2004 - each takes memory
            raise ValueError(f"max_open: {self.max_open} is out of range")


@dataclass(slots=True)
class _Open:
    """One alert that is kept.

    Attributes:
        severity: as it is; None where it is over.
        told: as it was told last; None for "it is over", or if nothing was told yet.
        told_at: when; minus infinity if nothing was.
        times: so often did it begin since.
    """

    since: float
    text: str
    severity: Severity | None = None
    told: Severity | None = None
    told_at: float = -math.inf
    times: int = 0


class Alerts:
    """All alerts of one host. Not locked: whoever tells holds a lock.

    Attributes:
        policy: how much an operator is told.
        untold: so many words of trouble had no room, all in all.
    """

    def __init__(self, policy: AlertPolicy | None = None) -> None:
        self.policy = policy or AlertPolicy()
        self.untold = 0
        self._kept: dict[tuple[str, str], _Open] = {}

    def trouble(
        self, plugin: str, rule: str, severity: Severity, text: str, now: float
    ) -> list[Alert]:
        """Take the word that something is wrong, and return what is to be sent now.

        Args:
            plugin: its identity; "" for the host itself.
            rule: one of the host's fixed words; never a text of the plugin's.
            severity: how grave.
            text: what is wrong; may be hostile.
            now: the caller's clock, in seconds.
        """
        key = (plugin, rule)
        if key in self._kept or self._has_room(now):
            return self._say(key, severity, text, now)
        self.untold += 1
        told = f"more than {self.policy.max_open} alerts are open; see the journal"
        return self._say(OVERFLOW, Severity.ERROR, told, now)

    def well(self, plugin: str, rule: str, text: str, now: float) -> list[Alert]:
        """Take the word that nothing is wrong by this rule; see `trouble`."""
        one = self._kept.get((plugin, rule))
        if one is None or one.severity is None:
            return []
        one.severity, one.text = None, escaped(text, MAX_TEXT)
        return self._tell((plugin, rule), one, now)

    def forget(self, plugin: str, text: str, now: float) -> list[Alert]:
        """Take the word that a plugin is gone, and all of its trouble with it."""
        rules = [rule for one, rule in self._kept if one == plugin]
        return [alert for rule in rules for alert in self.well(plugin, rule, text, now)]

    def due(self, now: float) -> list[Alert]:
        """Return what has waited for its time; to be asked every few seconds."""
        said = [
            alert for key in list(self._kept) for alert in self._tell(key, self._kept[key], now)
        ]
        if OVERFLOW in self._kept and self._count() < self.policy.max_open:
            said += self.well(*OVERFLOW, "there is room for alerts again", now)
        return said

    def next_due(self) -> float | None:
        """Return when `due` has something to say or to clear; None where nothing waits."""
        return min((self._time_of(one) for one in self._kept.values()), default=None)

    @property
    def open(self) -> list[tuple[str, str]]:
        """Plugin and rule of all trouble that goes on, in the order in which it began."""
        return [key for key, one in self._kept.items() if one.severity is not None]

    def _say(self, key: tuple[str, str], severity: Severity, text: str, now: float) -> list[Alert]:
        one = self._kept.get(key)
        if one is None:
            one = self._kept[key] = _Open(now, "")
        if one.severity is None:
            one.times += 1
            one.since = now
        one.severity, one.text = severity, escaped(text, MAX_TEXT)
        return self._tell(key, one, now)

    def _tell(self, key: tuple[str, str], one: _Open, now: float) -> list[Alert]:
        """Return the message whose time has come, if it has; forget what is over and was told."""
        if now < self._time_of(one):
            return []
        if one.severity is one.told is None:
            del self._kept[key]
            return []
        kind, severity = _kind(one), one.severity or one.told or Severity.ERROR
        alert = Alert(*key, kind, severity, one.text, one.since, now, max(1, one.times))
        one.told, one.told_at, one.times = one.severity, now, 0
        return [alert]

    def _time_of(self, one: _Open) -> float:
        same = one.severity is one.told
        lasting = same and one.severity is not None
        pause = self.policy.repeat_seconds if lasting else self.policy.pause_seconds
        return one.told_at + pause

    def _count(self) -> int:
        return len(self._kept) - (OVERFLOW in self._kept)

    def _has_room(self, now: float) -> bool:
        if self._count() < self.policy.max_open:
            return True
        # What is over and was told is kept only for its pause, which may have passed.
        for key, one in list(self._kept.items()):
            if one.severity is one.told is None and now >= self._time_of(one):
                del self._kept[key]
        return self._count() < self.policy.max_open


def _kind(one: _Open) -> Kind:
    if one.severity is None:
        return Kind.RECOVERED
    if one.told is None:
        return Kind.RAISED
    return Kind.REPEATED if one.told is one.severity else Kind.CHANGED

"""What a scan finds: plain values, sorted, each with a rule's stable id."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal


class Severity(enum.StrEnum):
    """What it would mean if it is what it looks like."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Confidence(enum.StrEnum):
    """How likely it is what it looks like."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


_ORDER: Final = tuple(Severity)
_LEVELS: Final[dict[Severity, Literal["error", "warning", "note"]]] = {
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a reviewer should look at. Evidence, never a proof of anything.

    Attributes:
        rule: its id, such as "SH101", which never changes its meaning; of bandit's, "bandit.B102".
        path: the file, relative to the plugin's root: a stranger's text.
        line: from 1.
        column: from 1, in characters.
        message: what was seen, on one line and escaped.
        permission: the permission, by its name in plugin.json, that would cover it; "" for none.
    """

    rule: str
    severity: Severity
    confidence: Confidence
    path: str
    line: int
    column: int
    message: str
    permission: str = ""

    @property
    def level(self) -> Literal["error", "warning", "note"]:
        """Its severity as SARIF 2.1.0 names it (3.27.10)."""
        return _LEVELS[self.severity]

    def at_least(self, severity: Severity) -> bool:
        """Tell whether it is as severe as `severity`, or more."""
        return _ORDER.index(self.severity) <= _ORDER.index(severity)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by file, line, column and rule: the same every time."""
    return tuple(sorted(findings, key=lambda f: (f.path, f.line, f.column, f.rule, f.message)))


def counts(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Return how many findings there are of each severity, none included."""
    counted = Counter(one.severity for one in findings)
    return {severity: counted[severity] for severity in _ORDER}


def counted(findings: Iterable[Finding]) -> str:
    """Return the same for people, such as ``1 high, 0 medium, 3 low``."""
    return ", ".join(f"{number} {severity}" for severity, number in counts(findings).items())

"""What bandit finds, as findings of ours that say whose they are."""

from __future__ import annotations

import re
from typing import Any, Final

from sandbox_host.reading import escaped
from sandbox_host.scan.finding import Confidence, Finding, Severity
from sandbox_host.scan.sightings import BadSightingError

PREFIX: Final = "bandit."
UNREAD: Final = "bandit.B000"
"""What bandit could not look at; it has no id of its own for that."""

_TEST: Final = re.compile(r"B[0-9]{3}", re.ASCII)
_MAX_ISSUES: Final = 10_000
_MAX_COLUMN: Final = 2**31
_MAX_MESSAGE: Final = 300
_FIELDS: Final = 6
_SEVERITIES: Final = {
    "HIGH": Severity.HIGH,
    "MEDIUM": Severity.MEDIUM,
    "LOW": Severity.LOW,
    "UNDEFINED": Severity.LOW,
}
_CONFIDENCES: Final = {
    "HIGH": Confidence.HIGH,
    "MEDIUM": Confidence.MEDIUM,
    "LOW": Confidence.LOW,
    "UNDEFINED": Confidence.LOW,
}


def read_issues(value: Any, path: str, data: bytes) -> tuple[Finding, ...]:
    """Return what was told of one file, checked as `sightings.read_sightings` does.

    Raises:
        BadSightingError: it is not what bandit tells.
    """
    if not isinstance(value, list) or len(value) > _MAX_ISSUES:
        raise BadSightingError
    lines = data.count(b"\n") + data.count(b"\r") + 1
    return tuple(_read(one, path, lines) for one in value)


def _read(value: Any, path: str, lines: int) -> Finding:
    if not isinstance(value, list) or len(value) != _FIELDS:
        raise BadSightingError
    test, line, column, severity, confidence, text = value
    if not all(isinstance(one, str) for one in (test, severity, confidence, text)):
        raise BadSightingError
    if test and not _TEST.fullmatch(test):
        raise BadSightingError
    if type(line) is not int or type(column) is not int or line < 1:
        raise BadSightingError
    if not 0 < column <= _MAX_COLUMN or severity not in _SEVERITIES:
        raise BadSightingError
    if confidence not in _CONFIDENCES:
        raise BadSightingError
    return Finding(
        rule=PREFIX + test if test else UNREAD,
        severity=_SEVERITIES[severity],
        confidence=_CONFIDENCES[confidence],
        path=path,
        line=min(line, lines),
        column=column,
        message=f"bandit: {escaped(text, _MAX_MESSAGE)}",
    )


def unread(path: str, reason: str) -> Finding:
    """Return that bandit did not look at a file, which is worth knowing."""
    return Finding(
        rule=UNREAD,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        path=path,
        line=1,
        column=1,
        message=f"bandit: was not looked at: {escaped(reason, _MAX_MESSAGE)}",
    )

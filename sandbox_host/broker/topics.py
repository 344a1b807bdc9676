"""Event types: their form, who may publish which, and what a subscriber's patterns match."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase, translate
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import UsageError
from sandbox_host.model import HOST_EVENTS
from sandbox_host.terms import EVENT_TYPE, EVENT_TYPE_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PATTERNS: Final = 64
"""Types and patterns that one subscription may name."""

_PATTERN: Final = re.compile(r"[A-Za-z0-9_.*?]{1,64}")


def check_type(event_type: str) -> str:
    """Return ``event_type`` if it has the form of one.

    Raises:
        UsageError: it has not.
    """
    if not EVENT_TYPE.fullmatch(event_type):
        text = f"{event_type!r:.100} is no event type; expected {EVENT_TYPE_TEXT}."
        raise UsageError(text)
    return event_type


def check_pattern(pattern: str) -> str:
    """Return an event type, or a pattern of them: ``*`` is any text, ``?`` one character.

    Raises:
        UsageError: it is neither.
    """
    if set("*?") & set(pattern) and _PATTERN.fullmatch(pattern):
        return pattern
    return check_type(pattern)


def may_publish(event_type: str, granted: Iterable[str]) -> bool:
    """Tell whether a plugin with these grants may publish the type. The host's own: never."""
    if event_type in HOST_EVENTS or not EVENT_TYPE.fullmatch(event_type):
        return False
    return any(fnmatchcase(event_type, pattern) for pattern in granted)


class Wanted:
    """What a subscriber wants: types and patterns of types; none at all means every type.

    Args:
        patterns: checked here.

    Raises:
        UsageError: one is malformed, or there are too many.
    """

    __slots__ = ("_expression", "_types", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(dict.fromkeys(check_pattern(pattern) for pattern in patterns))
        if len(self.patterns) > MAX_PATTERNS:
            text = f"A subscription names at most {MAX_PATTERNS} types and patterns."
            raise UsageError(text, remedy="Use wider patterns, or several subscriptions.")
        shapes = [pattern for pattern in self.patterns if set("*?") & set(pattern)]
        self._types = frozenset(self.patterns) - frozenset(shapes)
        self._expression = re.compile("|".join(map(translate, shapes))) if shapes else None

    def __contains__(self, event_type: str) -> bool:
        if not self.patterns or event_type in self._types:
            return True
        return self._expression is not None and self._expression.match(event_type) is not None

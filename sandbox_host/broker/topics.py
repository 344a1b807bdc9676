"""Event types: their form, and who may publish which."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sandbox_host.errors import UsageError
from sandbox_host.model import HOST_EVENTS
from sandbox_host.terms import EVENT_TYPE, EVENT_TYPE_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_type(event_type: str) -> str:
    """Return ``event_type`` if it has the form of one.

    Raises:
        UsageError: it has not.
    """
    if not EVENT_TYPE.fullmatch(event_type):
        text = f"{event_type!r:.100} is no event type; expected {EVENT_TYPE_TEXT}."
        raise UsageError(text)
    return event_type


def may_publish(event_type: str, granted: Iterable[str]) -> bool:
    """Tell whether a plugin with these grants may publish the type. The host's own: never."""
    if event_type in HOST_EVENTS or not EVENT_TYPE.fullmatch(event_type):
        return False
    return any(fnmatchcase(event_type, pattern) for pattern in granted)

"""What a plugin under trial says that it used and was refused: checked, bounded, advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import REPORT
from sandbox_host.admission.explanations import (
    MAX_ASKED_LENGTH,
    RULES,
    explained,
    is_in_force,
    read_report,
)

if TYPE_CHECKING:
    from plugin_sdk.wire.message import Message
    from sandbox_host.model import Denial, Permissions

_MAX_DENIED: Final = 200
_MAX_USED: Final = 500


@dataclass(frozen=True, slots=True)
class Observed:
    """What the plugin's own process tells at its end.

    Attributes:
        used: ``(permission, entry)`` of what is in force and was used; "" for one without entries.
        denied: what it tried and has not, whatever it made of that.
    """

    used: frozenset[tuple[str, str]] = frozenset()
    denied: tuple[Denial, ...] = ()


def observed_in(answer: Message, granted: Permissions) -> Observed | None:
    """Return what the answer to a stop tells, or None where it does not.

    Args:
        answer: `Stopped`, from a plugin that was loaded for a trial.
        granted: the permissions in force for it: what it used is one of these.
    """
    try:
        told = codec.unpack(answer.payload, REPORT)
    except PayloadError:
        return None
    told = told.get("observed") if isinstance(told, dict) else None
    if not isinstance(told, dict):
        return None
    used = {pair for one in _list(told, "used")[:_MAX_USED] if (pair := _used(one, granted))}
    denied = [
        explained(report, granted)
        for one in _list(told, "denied")[:_MAX_DENIED]
        if (report := read_report(one)) and not is_in_force(report, granted)
    ]
    return Observed(frozenset(used), tuple(denied))


def _list(told: dict[str, Any], key: str) -> list[Any]:
    value = told.get(key)
    return value if isinstance(value, list) else []


def _used(told: Any, granted: Permissions) -> tuple[str, str] | None:
    if not isinstance(told, list) or len(told) != 2 or not all(isinstance(t, str) for t in told):  # noqa: PLR2004 - a pair
        return None
    rule, entry = told
    if rule not in RULES or len(entry) > MAX_ASKED_LENGTH:
        return None
    given = getattr(granted, rule)
    if isinstance(given, bool):
        return (rule, "") if given else None
    return (rule, entry) if entry in given else None

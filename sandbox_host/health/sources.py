"""Which lines of the journal are trouble that an operator is told of, and which say it is over.

Every line that this host writes passes here, so that whatever becomes an event of the journal can
become an alert by one more entry. What is told of health does not come this way: it has a severity.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.health.alerts import Severity
from sandbox_host.model import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

HEALTH: Final = "health"
ENDED: Final = "ended"
QUARANTINE: Final = "quarantine"
HELD: Final = "held"
SINK: Final = "sink-"
"""Rules by which alerts are known; the last one is followed by the name of a sink that fails."""


@dataclass(frozen=True, slots=True)
class Raises:
    """Trouble.

    Attributes:
        rule: by which it is known.
        severity: how grave.
    """

    rule: str
    severity: Severity


SOURCES: Final[Mapping[str, Raises]] = MappingProxyType(
    {
        "ended": Raises(ENDED, Severity.ERROR),  # by itself
        "killed": Raises(ENDED, Severity.ERROR),  # by the host: a budget, a breach of protocol
        "quarantined": Raises(QUARANTINE, Severity.ERROR),
        "held": Raises(HELD, Severity.WARNING),
        "update_held": Raises(HELD, Severity.WARNING),
    }
)
"""By the event in the journal."""

ENDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "started": (ENDED, QUARANTINE, HEALTH),
        "restarted": (ENDED, QUARANTINE, HEALTH),
        "released": (QUARANTINE,),
        "approved": (HELD,),
        "admitted": (HELD,),
        "update_approved": (HELD,),
        "update_abandoned": (HELD,),
    }
)
"""By the event in the journal, the rules that nothing is wrong by any more."""


def trouble_in(event: str, detail: str) -> Raises | None:
    """Return the trouble that a line of the journal tells of; None where it tells of none.

    Who loads a plugin that does not start gets the error; that is no news to an operator.

    Args:
        event: the line's.
        detail: the same; begins with the cause, where a process ended.
    """
    if detail.startswith(f"{Cause.START_FAILED}: "):
        return None
    return SOURCES.get(event)


FORGETS: Final = frozenset({"unloaded", "disabled"})
"""Events after which nothing of the plugin's is trouble any more."""

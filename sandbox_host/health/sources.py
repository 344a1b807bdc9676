"""Which lines of the journal are trouble that an operator is told of, and which say it is over.

Every line that this host writes passes here, so that whatever becomes an event of the journal can
become an alert by one more entry. What is told of health does not come this way: it has a severity.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.health.alerts import Severity

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
        "start_failed": Raises(ENDED, Severity.ERROR),
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

FORGETS: Final = frozenset({"unloaded", "disabled"})
"""Events after which nothing of the plugin's is trouble any more."""

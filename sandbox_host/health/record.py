"""How a plugin was doing when it was last looked at: what applications and operators are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from sandbox_host.health.verdict import HealthStatus

if TYPE_CHECKING:
    from sandbox_host.health.verdict import Verdict

NOT_YET = "it has not been looked at yet"
NOBODY_LOOKS = "nobody looks: enable_monitoring is false"


@dataclass(frozen=True, slots=True)
class PluginHealth:
    """One plugin's health, as it stands; asking for it asks nobody.

    Attributes:
        plugin: its identity.
        status: what counts, after several looks.
        message: why, on one line of printable text; hostile where the plugin reports it.
        since: when the status became this one, in UTC.
        looked_at: when it was last looked at; None before the first time.
        busy: it did not answer then, because it worked.
        metrics: what the host measured; see `Verdict`.
        reported: the plugin's own metrics.
    """

    plugin: str
    status: HealthStatus
    message: str
    since: datetime
    looked_at: datetime | None = None
    busy: bool = False
    metrics: Mapping[str, int | float | None] = field(default_factory=lambda: MappingProxyType({}))
    reported: Mapping[str, int | float | str | bool] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def after(self, verdict: Verdict, status: HealthStatus, now: datetime) -> PluginHealth:
        """Return what it is after one more look.

        Args:
            verdict: of that look.
            status: what counts now.
            now: when, in UTC.
        """
        # One look that says otherwise is not yet why it is what it is.
        says_so = verdict.status is status and not verdict.busy
        first = self.looked_at is None
        return replace(
            self,
            status=status,
            message=verdict.message if says_so or first else self.message,
            since=self.since if status is self.status else now,
            looked_at=now,
            busy=verdict.busy,
            metrics=verdict.metrics,
            reported=verdict.reported,
        )

    def ended(self, why: str, now: datetime) -> PluginHealth:
        """Return what it is after its process has ended."""
        return replace(self, status=HealthStatus.UNHEALTHY, message=why, since=now, busy=False)

"""What a configuration that was read again changes, and what waits for the next start. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig

LIVE: Final = frozenset(
    {
        # Read anew for each load.
        *("trust_store", "grants", "signer_grants", "plugin_config", "ceilings"),
        *("accept_missing", "refuse_findings"),
        *("start_timeout_seconds", "stop_timeout_seconds", "sweep_seconds"),
        *("log_bytes", "max_outstanding_calls"),
        # Looks at health go by it from the next one on.
        *("health_check_interval", "health_check_timeout", "performance_thresholds"),
        *("enable_monitoring", "metrics_collection", "enable_profiling"),
        # The watch is begun anew.
        *("plugin_directory", "auto_discovery", "load_on_startup"),
        # Those that are new are loaded, those that are not there any more are unloaded.
        *("instances", "replicas"),
    }
)
"""Fields of the configuration that a running service takes over. What runs already keeps what it
was admitted with, until it is loaded or reloaded. All others are made once: directories, the
backend, the nursery, the event store."""


@dataclass(frozen=True, slots=True)
class Reconfiguration:
    """What becomes of a configuration that was read again.

    Attributes:
        config: what is in force from now on.
        changed: fields that are others now, sorted.
        waiting: fields that are others in the file, and stay as they are until the next start.
    """

    config: HostConfig
    changed: tuple[str, ...]
    waiting: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in a line for people."""
        parts = []
        if self.changed:
            what = ", ".join(self.changed)
            parts.append(f"taken over: {what}, for what is loaded or reloaded from now on")
        if self.waiting:
            parts.append(f"unchanged until the service is restarted: {', '.join(self.waiting)}")
        return f"configuration read again; {'; '.join(parts) or 'nothing has changed'}"


def reconfiguration(current: HostConfig, read: HostConfig) -> Reconfiguration:
    """Return what the configuration that was read makes of the one in force."""
    differing = {name for name in type(read).model_fields if _differs(current, read, name)}
    taken: dict[str, Any] = {name: getattr(read, name) for name in differing & LIVE}
    return Reconfiguration(
        current.model_copy(update=taken),
        tuple(sorted(differing & LIVE)),
        tuple(sorted(differing - LIVE)),
    )


def _differs(one: HostConfig, other: HostConfig, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))

"""Completes a backend's receipt with what the host itself enforces, and holds it to the plan."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import AttestationError
from sandbox_host.guarantees import missing, standing
from sandbox_host.model import Enforced, Layer, LayerReport, LayerStatus, Limits
from sandbox_host.network.meter import LOOK_SECONDS
from sandbox_host.reading import shown_bytes, shown_seconds
from sandbox_host.runtime.disk import PAUSE_SECONDS
from sandbox_host.runtime.watch import IDLE_SECONDS

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.model import Receipt

_ORDER: Final = {field.name: number for number, field in enumerate(fields(Limits))}


def with_watchdog(
    receipt: Receipt, limits: Limits, sweep_seconds: float, *, counted: bool = False
) -> Receipt:
    """Return the receipt with the watchdog, its limits, and the guarantees that follow; in order.

    The guarantees are those of the layers that were attested, not of those that were planned.

    Args:
        receipt: what the backend read back.
        limits: the budgets that the plugin's watch holds it to.
        sweep_seconds: how often the watchdog looks at a plugin that works.
        counted: the kernel tells what passes through the plugin's connections.
    """
    pace, idle = shown_seconds(sweep_seconds), shown_seconds(IDLE_SECONDS)
    detail = f"memory, CPU time, threads and deadlines, every {pace} (idle: {idle})"
    report = LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, detail)
    layers = {**{r.layer: r for r in receipt.layers}, Layer.WATCHDOG: report}
    completed = replace(receipt, layers=tuple(layers[one] for one in Layer if one in layers))
    watched = (*_watched(limits, pace), *(_traffic(limits) if counted else ()))
    entries = sorted((*receipt.limits, *watched), key=_place)
    outside = any(entry.name == "write" for entry in receipt.permissions)
    started = any(e.name == "subprocess" and e.value != "none" for e in receipt.permissions)
    kept = standing(completed.active, writes_outside=outside, starts_processes=started)
    return replace(completed, guarantees=kept, limits=tuple(entries))


def check_kept(receipt: Receipt, plan: SandboxPlan) -> None:
    """Refuse a plugin whose attested layers keep less than what it was admitted with.

    Raises:
        AttestationError: a guarantee is missing that admission counted on.
    """
    lost = [one for one in missing(receipt.active) if one not in plan.accepted_missing]
    if lost:
        text = f"{plan.identity} is not confined as planned: {', '.join(lost)} would not be kept."
        raise AttestationError(text)


def _watched(limits: Limits, pace: str) -> tuple[Enforced, ...]:
    by = f"{Layer.WATCHDOG}, every {pace}"
    held = "held back by the host, which reads no faster"
    measured = f"measured by the host, every {shown_seconds(PAUSE_SECONDS)} or more"
    return (
        Enforced("memory_bytes", shown_bytes(limits.memory_bytes), by),
        Enforced("cpu_seconds", f"{shown_seconds(limits.cpu_seconds)} an operation", by),
        Enforced("wall_seconds", f"{shown_seconds(limits.wall_seconds)} a call", by),
        Enforced("threads", str(limits.threads), by),
        Enforced("data_bytes", shown_bytes(limits.data_bytes), measured),
        Enforced("data_files", str(limits.data_files), measured),
        Enforced(
            "store_bytes", shown_bytes(limits.store_bytes), "counted by the host at each write"
        ),
        Enforced(
            "cpu_seconds_per_minute",
            f"{shown_seconds(limits.cpu_seconds_per_minute)} in any 60 s",
            by,
        ),
        Enforced("messages_per_second", f"{limits.messages_per_second} a second", held),
        Enforced("message_bytes_per_second", _rate(limits.message_bytes_per_second), held),
        Enforced("log_bytes_per_second", _rate(limits.log_bytes_per_second), held),
    )


def _traffic(limits: Limits) -> tuple[Enforced, ...]:
    most = f"{shown_bytes(limits.network_bytes_per_minute)} in any 60 s"
    by = f"measured by the host, every {shown_seconds(LOOK_SECONDS)}"
    return (Enforced("network_bytes_per_minute", most, by),)


def _rate(size: int) -> str:
    return f"{shown_bytes(size)} a second"


def _place(entry: Enforced) -> int:
    """Return where an entry stands: what enforces one limit stands together, the kernel first."""
    return _ORDER.get(entry.name, len(_ORDER))

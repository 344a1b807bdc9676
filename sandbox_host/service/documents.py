"""What ``status`` answers, as plain values; and a receipt back from them."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import ControlError, SandboxHostError
from sandbox_host.model import (
    Enforced,
    Guarantee,
    GuaranteeReport,
    Layer,
    LayerReport,
    LayerStatus,
    Receipt,
)
from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sandbox_host.health.record import PluginHealth
    from sandbox_host.model import Usage
    from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin

_MAX_TEXT: Final = 1_000


def plugin_document(
    plugin: BlockingPlugin,
    quarantined: Callable[[str], str],
    host: BlockingHost | None = None,
    *,
    receipts: bool,
) -> dict[str, Any]:
    """Return one plugin's standing.

    Args:
        plugin: a loaded one.
        quarantined: why a plugin is not started again, by name; "" where it is.
        host: knows what it needs; None for nobody who does.
        receipts: with what confines it.
    """
    lacking: tuple[str, ...] = ()
    if host is not None and plugin.plan.manifest.dependencies:
        with contextlib.suppress(SandboxHostError):  # it was unloaded meanwhile
            lacking = host.lacking(plugin.name)
    try:
        quarantine = quarantined(plugin.name)
    except SandboxHostError:  # the host is being closed
        quarantine = ""
    document: dict[str, Any] = {
        "plugin": plugin.name,
        "version": plugin.version,
        "state": str(plugin.state),
        "cause": str(plugin.cause) if plugin.cause is not None else None,
        "health": health_document(plugin.last_health),
        "quarantine": escaped(quarantine, _MAX_TEXT) or None,
        "lacking": [escaped(text, _MAX_TEXT) for text in lacking],
        "pid": plugin.receipt.pid,
        "digest": plugin.plan.root_digest,
        "layers": len(plugin.receipt.active),
        "operations": list(plugin.operations),
        "permissions": {k: _plain(v) for k, v in asdict(plugin.plan.permissions).items() if v},
        "memory_limit_bytes": plugin.plan.limits.memory_bytes,
        "dossier": str(plugin.dossier) if plugin.dossier is not None else None,
        "usage": usage_document(plugin.usage()),
    }
    if receipts:
        document["receipt"] = receipt_document(plugin.receipt)
    return document


def health_document(health: PluginHealth | None) -> dict[str, Any] | None:
    """Return how a plugin was doing when it was last looked at; None before it is ready."""
    if health is None:
        return None
    looked_at = health.looked_at
    return {
        "status": str(health.status),
        "message": escaped(health.message, _MAX_TEXT),
        "since": health.since.isoformat(timespec="seconds"),
        "looked_at": looked_at.isoformat(timespec="seconds") if looked_at is not None else None,
        "busy": health.busy,
        "metrics": dict(health.metrics),
    }


def usage_document(usage: Usage) -> dict[str, Any]:
    """Return what a plugin has cost, without the operations one by one."""
    names = (
        *("cpu_seconds", "memory_peak_bytes", "descriptors_peak", "threads_peak", "calls"),
        *("failures", "p50_seconds", "p99_seconds", "bytes_in", "bytes_out", "connections"),
    )
    return {name: getattr(usage, name) for name in names}


def _plain(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, list | tuple) else value


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as plain values."""
    return {
        "plugin": receipt.plugin,
        "pid": receipt.pid,
        "guarantees": [
            {"guarantee": str(r.guarantee), "status": str(r.status), "detail": r.detail}
            for r in receipt.guarantees
        ],
        "layers": [
            {
                "layer": str(r.layer),
                "status": str(r.status),
                "detail": r.detail,
                "remedy": r.remedy,
            }
            for r in receipt.layers
        ],
        "limits": _enforced(receipt.limits),
        "permissions": _enforced(receipt.permissions),
    }


def _enforced(entries: Iterable[Enforced]) -> list[dict[str, str]]:
    return [{"name": e.name, "value": e.value, "mechanism": e.mechanism} for e in entries]


def receipt_of(document: Mapping[str, Any]) -> Receipt:
    """Return the receipt that `receipt_document` made a document of.

    Raises:
        ControlError: it is none.
    """
    try:
        return Receipt(
            plugin=str(document["plugin"]),
            pid=int(document["pid"]),
            guarantees=tuple(
                GuaranteeReport(
                    Guarantee(r["guarantee"]), LayerStatus(r["status"]), str(r["detail"])
                )
                for r in document["guarantees"]
            ),
            layers=tuple(
                LayerReport(
                    Layer(r["layer"]), LayerStatus(r["status"]), str(r["detail"]), str(r["remedy"])
                )
                for r in document["layers"]
            ),
            limits=tuple(Enforced(**e) for e in document["limits"]),
            permissions=tuple(Enforced(**e) for e in document["permissions"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        text = f"The service's receipt is not understood: {type(error).__name__}."
        raise ControlError(text, remedy="Are service and command of one version?") from None

"""What this machine offers a host of a given configuration, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer, LayerReport, LayerStatus
from sandbox_host.runtime.offers import machine_offers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.config import HostConfig


def offers_of(config: HostConfig) -> tuple[LayerReport, ...]:
    """Return each layer's standing, found out by trying; in the order of `Layer`.

    On a system without a backend every layer is unavailable, with the reason.

    Raises:
        ConfigError: there is no room for a temporary directory.
    """
    try:
        return completed(machine_offers(config))
    except ConfinementError as error:
        return tuple(
            LayerReport(layer, LayerStatus.UNAVAILABLE, error.message, error.remedy)
            for layer in Layer
        )


def completed(offers: Iterable[LayerReport]) -> tuple[LayerReport, ...]:
    """Return a report for every layer: a backend's, with the host's own watchdog added."""
    known = {report.layer: report for report in offers}
    known[Layer.WATCHDOG] = LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, "the host's own")
    return tuple(
        known.get(layer)
        or LayerReport(layer, LayerStatus.UNAVAILABLE, "not offered by this backend")
        for layer in Layer
    )

"""What this machine offers, found out without a host that runs: for `doctor` and for tests."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_host.backends.base import Options
from sandbox_host.backends.select import select_backend
from sandbox_host.model import Layer, LayerReport, LayerStatus
from sandbox_host.runtime.launch import base_python
from sandbox_host.runtime.workspace import Workspace

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig


def options_of(config: HostConfig) -> Options:
    """Return what the operator decided about confinement, in the backend's words."""
    return Options(
        start=config.start,
        disabled=config.disable_layers,
        uids=config.plugin_uids,
        cgroup=config.cgroup,
        pool=config.pool,
        plugin_environment=real(config.plugin_environment),
        max_payload_bytes=config.max_payload_bytes,
    )


def real(path: Path | None) -> Path | None:
    """Return where a path leads, links resolved."""
    return None if path is None else path.resolve()


def machine_offers(config: HostConfig) -> tuple[LayerReport, ...]:
    """Return every layer's standing, found by trying in a temporary directory.

    Nothing of the configured state directory is touched.

    Raises:
        ConfinementError: this system has no backend, or no process can be started.
        ConfigError: there is no room for a temporary directory.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-host-offers-") as root:
        workspace = Workspace(Path(root).resolve(), config.plugin_uids)
        try:
            python = config.python or base_python()
            options = replace(options_of(config), pool=0)
            backend = select_backend(options, python, workspace.sdk_dir)
            try:
                own = LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, "the host's own")
                return (*backend.offers(), own)
            finally:
                backend.close()
        finally:
            workspace.close()

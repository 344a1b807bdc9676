"""``sandbox-host doctor``: what this machine offers, layer by layer, with cause and remedy."""

from __future__ import annotations

import os
import platform
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.backends.select import select_backend
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.catalog.environment import environment_fault
from sandbox_host.cli.describe import counted
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import host_options, output_format
from sandbox_host.cli.output import clean, fail, place, print_json, print_table, say
from sandbox_host.cli.tables import layer_rows
from sandbox_host.errors import ConfinementError, TrustStoreError
from sandbox_host.model import Layer, LayerReport, LayerStatus

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig


_NEXT: Final = "The table says why, and what to do about it."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing beside the layers: what it is, whether it can be used, and what was seen."""

    what: str
    usable: bool
    detail: str


@click.command("doctor", short_help="Show what this machine offers to confine plugins.")
@host_options
@output_format
def command(host: HostOptions, as_format: str) -> int:
    """Show what this machine offers to confine plugins, found out by trying; changes nothing.

    The exit code is 0 if plugins can be loaded. It is 6 if a layer is missing that the
    configuration does not accept to miss, or if the trust store, the state directory or the
    plugin environment cannot be used.

    \b
    Example:
      sandbox-host doctor --format json
    """
    config = host.read()
    layers = _layers()
    missing = [
        report.layer
        for report in layers
        if report.status is not LayerStatus.ACTIVE and report.layer not in config.accept_missing
    ]
    findings = [_python(), _state_dir(config), _trust_store(config), _environment(config)]
    unusable = [one.what for one in findings if not one.usable]
    if as_format == "json":
        print_json(_document(layers, missing, findings))
    else:
        print_table(("LAYER", "STATUS", "FOUND"), layer_rows(layers))
        say()
        print_table(
            ("BESIDE THEM", "USABLE", "FOUND"),
            [(one.what, "yes" if one.usable else "no", one.detail) for one in findings],
        )
        say()
        say(_conclusion(missing, unusable))
    if missing:
        fail(f"missing: {', '.join(missing)}. {_NEXT}")
    if unusable:
        fail(f"not usable: {', '.join(unusable)}. {_NEXT}")
    return Exit.ENVIRONMENT if missing or unusable else Exit.OK


def _conclusion(missing: list[Layer], unusable: list[str]) -> str:
    if missing:
        return "No plugin can be loaded here."
    if unusable:
        return f"Plugins can be confined here, but none will load: {', '.join(unusable)}."
    return "Plugins can be confined here."


def _layers() -> tuple[LayerReport, ...]:
    """Return every layer's standing; on a system without a backend, that none is there."""
    try:
        offers = select_backend().offers()
    except ConfinementError as error:
        return tuple(
            LayerReport(layer, LayerStatus.UNAVAILABLE, error.message, error.remedy)
            for layer in Layer
        )
    known = {report.layer for report in offers}
    watchdog = LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, "the host's own")
    rest = tuple(
        watchdog
        if layer is Layer.WATCHDOG
        else LayerReport(layer, LayerStatus.UNAVAILABLE, "not offered by this version")
        for layer in Layer
        if layer not in known
    )
    return (*offers, *rest)


def _python() -> Finding:
    implementation = f"{platform.python_implementation()} {platform.python_version()}"
    return Finding("python", sys.version_info >= (3, 11), f"{implementation}, {sys.executable}")


def _state_dir(config: HostConfig) -> Finding:
    path = config.state_dir
    try:
        status = path.lstat()
    except FileNotFoundError:
        above = next((p for p in path.parents if p.exists()), Path("/"))
        usable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        word = "will be made" if usable else f"cannot be made in {above}"
        return Finding("state", usable, f"{path}: {word}")
    except OSError as error:
        return Finding("state", False, f"{path}: {error.strerror}")
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return Finding("state", False, f"{path}: is no directory of this user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"{path}: can be written by others; run chmod go-w {path}"
        return Finding("state", False, detail)
    return Finding("state", True, str(path))


def _trust_store(config: HostConfig) -> Finding:
    try:
        store = TrustStore.load(config.trust_store)
    except TrustStoreError as error:
        return Finding("trust store", False, str(error))
    known = f"{counted(len(store.keys), 'key')}, {counted(len(store.revoked), 'revocation')}"
    return Finding("trust store", True, f"{place(config.trust_store)}: {known}")


def _environment(config: HostConfig) -> Finding:
    path = config.plugin_environment
    if path is None:
        detail = "none given: plugins have the standard library only"
        return Finding("packages", True, detail)
    if fault := environment_fault(path):
        return Finding("packages", False, f"{place(path)} {fault}")
    count = sum(name.endswith(".dist-info") for name in os.listdir(path))
    return Finding("packages", True, f"{place(path)}: {count} installed")


def _document(
    layers: tuple[LayerReport, ...], missing: list[Layer], findings: list[Finding]
) -> dict[str, Any]:
    return {
        "confined": not missing,
        "loads": not missing and all(one.usable for one in findings),
        "missing": list(missing),
        "layers": [
            {
                "layer": report.layer,
                "status": report.status,
                "detail": clean(report.detail),
                "remedy": report.remedy,
            }
            for report in layers
        ],
        "findings": [
            {"what": one.what, "usable": one.usable, "detail": clean(one.detail)}
            for one in findings
        ],
    }

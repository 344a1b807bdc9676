"""``sandbox-host doctor``: what is promised of plugins on this machine, and by which means."""

from __future__ import annotations

import mmap
import os
import platform
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sandbox_host.bundle.trust import TrustStore
from sandbox_host.catalog.environment import environment_fault
from sandbox_host.cli.describe import counted
from sandbox_host.cli.doctor_attack import Attacked, attack
from sandbox_host.cli.doctor_report import Diagnosis, Finding, print_diagnosis
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import host_options, output_format
from sandbox_host.cli.output import fail, note, place, print_json
from sandbox_host.errors import ConfinementError, TrustStoreError
from sandbox_host.model import Layer, LayerReport, LayerStatus
from sandbox_host.reading import sentence
from sandbox_host.runtime.offers import machine_offers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig

_NEXT: Final = "The tables say why, and what to do about it."


@click.command("doctor", short_help="Show what this machine offers to confine plugins.")
@click.option(
    "--attack",
    "attacked",
    is_flag=True,
    help="Attack the sandbox as well, from inside a real plugin, and show what held.",
)
@host_options
@output_format
def command(host: HostOptions, attacked: bool, as_format: str) -> int:
    """Show what this machine offers to confine plugins, found out by trying; changes nothing.

    First what is promised of every plugin and which layers of confinement keep it, then the layers,
    with cause and remedy where one is missing. The exit code is 0 if plugins can be loaded. It is 6
    if a guarantee is missing or a layer switched off and the configuration does not accept that, or
    if the trust store, the state directory, the plugin environment or a control group that the
    configuration names cannot be used.

    With --attack our collection of attacks is run on this machine: each without the sandbox first,
    where it has to succeed, and then in a real plugin with a throw-away signature, where it has to
    fail. What is attacked is made for it; no attack harms the machine where it gets through. It
    takes about a quarter of a minute. The exit code is 1 if one got through, or is not clear; not
    for one that is stopped only by what the configuration gives up by name.

    \b
    Example:
      sandbox-host doctor --format json
      sandbox-host doctor --attack
    """
    config = host.read()
    layers = _offers(config)
    found: tuple[Finding, ...] = (
        _python(),
        _state_dir(config),
        _trust_store(config),
        _environment(config),
    )
    found += (*_machine_code(), *_cgroup(config, layers))
    diagnosis = Diagnosis.of(config, layers, found)
    if as_format == "text":
        print_diagnosis(diagnosis)
    tried = attack(config) if attacked and not diagnosis.refused else None
    if as_format == "json":
        print_json({**diagnosis.document(), "attack": tried and tried.document()})
    elif tried:
        tried.print()
    if attacked and tried is None:
        note("note: no attack was made, because no plugin can be loaded here.")
    return _exit(diagnosis, tried)


def _exit(diagnosis: Diagnosis, tried: Attacked | None) -> Exit:
    """Tell what is wrong, and return the exit code: an attack that got through is the gravest."""
    if diagnosis.refused:
        fail(f"missing: {', '.join(diagnosis.refused)}. {_NEXT}")
    if diagnosis.unusable:
        fail(f"not usable: {', '.join(diagnosis.unusable)}. {_NEXT}")
    if tried is not None and (fault := tried.fault):
        fail(fault)
        return tried.exit
    return Exit.ENVIRONMENT if diagnosis.refused or diagnosis.unusable else Exit.OK


def _offers(config: HostConfig) -> tuple[LayerReport, ...]:
    """Return each layer's standing; where there is no backend, each is unavailable, and why."""
    try:
        return machine_offers(config)
    except ConfinementError as error:
        return tuple(
            LayerReport(layer, LayerStatus.UNAVAILABLE, error.message, error.remedy)
            for layer in Layer
        )


# -- beside the layers -------------------------------------------------------------------------


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


def _machine_code() -> list[Finding]:
    """Return what hinders plugins that make code while they run, if something does."""
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError as error:
        detail = (
            f"memory cannot be writable and executable ({error.strerror}), and plugins inherit "
            "that: one granted native_code may fail. In systemd, MemoryDenyWriteExecute= does that."
        )
        return [Finding("native code", True, detail)]
    return []


def _cgroup(config: HostConfig, layers: Iterable[LayerReport]) -> list[Finding]:
    """Return what became of the control group that the configuration names, if it names one.

    Plugins may load without it; but who names one wants it.
    """
    reports = [one for one in layers if one.layer is Layer.CGROUP]
    if config.cgroup is None or not reports or reports[0].status is LayerStatus.DISABLED:
        return []
    usable = reports[0].status is LayerStatus.ACTIVE
    told = reports[0].detail if usable else f"{sentence(reports[0].detail)} {reports[0].remedy}"
    path = place(config.cgroup)
    told = told if told.startswith(path) else f"{path}: {told}"
    return [Finding("cgroup", usable, told, demanded=False)]

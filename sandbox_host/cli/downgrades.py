"""The option ``--allow-downgrade`` of the commands that load plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sandbox_host.admission.history import Downgrade
from sandbox_host.bundle.plugin_json import is_version
from sandbox_host.errors import UsageError
from sandbox_host.model import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def _read(
    _ctx: click.Context, _param: click.Parameter, values: Iterable[tuple[str, str, str]]
) -> tuple[Downgrade, ...]:
    return tuple(_downgrade(*value) for value in values)


def _downgrade(name: str, version: str, reason: str) -> Downgrade:
    if not is_version(version):
        raise UsageError(
            f"--allow-downgrade: {version[:80]!r} is no version.",
            remedy="Give NAME, VERSION and REASON, as in: weather_model 1.2.0 'a fault in 1.3'.",
        )
    if not reason.strip():
        raise UsageError(
            "--allow-downgrade: the reason is empty.",
            remedy="Say why; whoever reads the journal later has nothing else.",
        )
    return Downgrade(identity_of(name), version, reason)


def as_values(downgrades: Iterable[Downgrade]) -> list[list[str]]:
    """Return them as they are sent to a running service."""
    return [[one.plugin, one.version, one.reason] for one in downgrades]


_OPTION: Any = click.option(
    "--allow-downgrade",
    "downgrades",
    nargs=3,
    multiple=True,
    metavar="NAME VERSION REASON",
    callback=_read,
    help="Load this version of a plugin although a newer one, or another of this version, was "
    "admitted before; the journal has the reason. May be repeated.",
)


def allow_downgrade(function: Any) -> Any:
    """Add the option; the function gets ``downgrades``."""
    return _OPTION(function)

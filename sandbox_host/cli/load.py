"""``sandbox-host load``: the running service loads a plugin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.downgrades import allow_downgrade, as_values
from sandbox_host.cli.options import plugin_bundle, state_options
from sandbox_host.cli.output import note, working
from sandbox_host.cli.tables import print_receipt
from sandbox_host.errors import UsageError
from sandbox_host.service.client import ask
from sandbox_host.service.documents import receipt_of

if TYPE_CHECKING:
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions


@click.command("load", short_help="Have the running service load a plugin.")
@plugin_bundle
@allow_downgrade
@click.option("--instance", metavar="NAME", help="Load it as PLUGIN@NAME, with data of its own.")
@click.option("--instance-config", metavar="JSON", help="Its configuration, over the plugin's.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Less for it.")
@state_options
def command(
    directory: Path,
    downgrades: tuple[Downgrade, ...],
    instance: str | None,
    instance_config: str | None,
    limits: tuple[str, ...],
    host: HostOptions,
) -> None:
    """Have the running service verify, confine and load PLUGIN, and show what confines it.

    The service reads it as its own user, by its own trust store and grants.

    \b
    Example:
      sandbox-host load plugins/weather_model
      sandbox-host load plugins/weather_model --instance tenant_a --limit "memory=64 MiB"
    """
    named = _instance(instance, instance_config, limits)
    state_dir = host.read().state_dir
    path, allowed = str(directory.absolute()), as_values(downgrades)
    with working(f"loading {directory}"):
        told = ask(state_dir, "load", path=path, downgrades=allowed, **named)
    for text in told["notes"]:
        note(f"note: {text}")
    print_receipt(receipt_of(told["receipt"]))


def _instance(name: str | None, config: str | None, limits: tuple[str, ...]) -> dict[str, Any]:
    """Return what the service is told of an instance; nothing where none is named."""
    if name is None:
        if config is not None or limits:
            text = "--instance-config and --limit are for an instance; name it with --instance."
            raise UsageError(text)
        return {}
    narrower = dict(_limit(one) for one in limits)
    return {"instance": name, "config": _config(config), "limits": narrower}


def _config(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        what = f"--instance-config {(text or '')[:80]!r} is not a JSON object."
        raise UsageError(what, remedy="""Such as --instance-config '{"city": "Oslo"}'.""")
    return value


def _limit(text: str) -> tuple[str, str | int]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(
            f"--limit {text[:80]!r} is not NAME=VALUE.", remedy='Write --limit "memory=64 MiB".'
        )
    return name, int(value) if value.isascii() and value.isdecimal() else value

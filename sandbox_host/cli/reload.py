"""``sandbox-host reload``: a new version of a plugin, or of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.downgrades import allow_downgrade, as_values
from sandbox_host.cli.options import BUNDLE, state_options
from sandbox_host.cli.output import note, say, working
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions


@click.command("reload", short_help="Put a new version in a running plugin's place.")
@click.argument("name", metavar="[NAME]", required=False)
@click.argument("directory", metavar="[PLUGIN]", type=BUNDLE, required=False)
@allow_downgrade
@state_options
def command(
    name: str | None,
    directory: Path | None,
    downgrades: tuple[Downgrade, ...],
    host: HostOptions,
) -> None:
    """Have another version take the place of the running plugin NAME; no call is lost by that.

    It is what lies now where the plugin was loaded from, or what PLUGIN is. It is started beside
    the old one, and asked how it is; if it is not well, the old one serves on.

    Without NAME the service reads its configuration again, as with SIGHUP.

    \b
    Example:
      sandbox-host reload weather_model
      sandbox-host reload weather_model dist/weather_model-1.1.0.plugin
    """
    state_dir = host.read().state_dir
    if name is None:
        say(ask(state_dir, "configure")["told"])
        return
    arguments: dict[str, Any] = {"plugin": name, "downgrades": as_values(downgrades)}
    if directory is not None:
        arguments["path"] = str(directory.absolute())
    with working(f"reloading {name}"):
        told = ask(state_dir, "reload", **arguments)
    for text in told["notes"]:
        note(f"note: {text}")
    say(f"{told['plugin']}: {told['version']} serves, after {told['before']}")

"""``sandbox-host reload``: a new version of a plugin, or of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.downgrades import allow_downgrade, as_values
from sandbox_host.cli.options import BUNDLE, FILE, state_options
from sandbox_host.cli.output import note, say, working
from sandbox_host.cli.recorded import comparison_options
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions


@click.command("reload", short_help="Put a new version in a running plugin's place.")
@click.argument("name", metavar="[NAME]", required=False)
@click.argument("directory", metavar="[PLUGIN]", type=BUNDLE, required=False)
@click.option(
    "--replay",
    "recording",
    type=FILE,
    metavar="FILE",
    help="Take it only if it does what FILE recorded, in a sandbox of its own.",
)
@comparison_options
@allow_downgrade
@state_options
def command(
    name: str | None,
    directory: Path | None,
    recording: Path | None,
    tolerance: float,
    ignore: tuple[str, ...],
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
      sandbox-host reload weather_model --replay day.recording --ignore computed_at
    """
    state_dir = host.read().state_dir
    if name is None:
        say(ask(state_dir, "configure")["told"])
        return
    arguments: dict[str, Any] = {"plugin": name, "downgrades": as_values(downgrades)}
    if directory is not None:
        arguments["path"] = str(directory.absolute())
    if recording is not None:
        arguments |= {
            "replay": str(recording.absolute()),
            "tolerance": tolerance,
            "ignore": list(ignore),
        }
    with working(f"reloading {name}"):
        told = ask(state_dir, "reload", **arguments)
    for text in told["notes"]:
        note(f"note: {text}")
    say(f"{told['plugin']}: {told['version']} serves, after {told['before']}")

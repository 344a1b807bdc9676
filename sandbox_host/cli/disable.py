"""``sandbox-host disable``: a plugin stays where it is, and does not run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import say
from sandbox_host.cli.plugin_place import directory_of, place_option, tell_readme
from sandbox_host.cli.switching import meant, switching

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("disable", short_help="Keep a plugin from running.")
@click.argument("name", metavar="NAME")
@place_option
@state_options
def command(name: str, place: Path | None, host: HostOptions) -> None:
    """Keep the plugin NAME of the plugin directory from running, until it is enabled.

    A host that watches the directory unloads it then. The switch is in the state directory, and
    outlasts updates of the plugin.

    \b
    Example:
      sandbox-host disable weather_model
    """
    config = host.read()
    where = directory_of(config, place)
    identity, _ = meant(where, name)
    switches = Switches(config.state_dir)
    if identity in switches.disabled():
        say(f"{identity}: it is disabled already")
        return
    with switching(config) as turn:
        turn.tell_disabled(identity)
        switches.disable(identity, datetime.now(UTC))
    tell_readme(where, config)
    say(f"{identity}: disabled; `sandbox-host enable {identity}` undoes that")

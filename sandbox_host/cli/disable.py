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
from sandbox_host.cli.switching import meant_anywhere, switching, told_service

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("disable", short_help="Keep a plugin from running.")
@click.argument("name", metavar="NAME")
@place_option
@state_options
def command(name: str, place: Path | None, host: HostOptions) -> None:
    """Keep the plugin NAME from running, until it is enabled.

    It is one of the plugin directory, or one that the running service has loaded. A running
    service unloads it at once, and no host with this state directory loads it. The switch is in the
    state directory, and outlasts updates of the plugin.

    \b
    Example:
      sandbox-host disable weather_model
    """
    config = host.read()
    identity, where, _ = meant_anywhere(config, lambda: directory_of(config, place), name)
    switches = Switches(config.state_dir)
    told = told_service(config, "disable", identity)
    changed = told is not None and bool(told["changed"])
    if identity not in switches.disabled():
        with switching(config) as turn:
            turn.tell_disabled(identity)
            changed = switches.disable(identity, datetime.now(UTC))
    if changed and where is not None:
        tell_readme(where, config)
    undone = f"disabled; `sandbox-host enable {identity}` undoes that"
    say(f"{identity}: {undone if changed else 'it is disabled already'}")

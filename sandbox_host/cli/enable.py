"""``sandbox-host enable``: a plugin that was disabled runs again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.admission.policy import Policy
from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import fail, say
from sandbox_host.cli.plugin_place import directory_of, place_option, tell_readme
from sandbox_host.cli.switching import meant, switching
from sandbox_host.errors import PluginNotFoundError
from sandbox_host.model import identity_of

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions
    from sandbox_host.model import Manifest


@click.command("enable", short_help="Let a disabled plugin run again.")
@click.argument("name", metavar="NAME")
@place_option
@state_options
def command(name: str, place: Path | None, host: HostOptions) -> int:
    """Let the plugin NAME run again that was disabled with `sandbox-host disable`.

    A host that watches the plugin directory loads it then. One that its plugin.json or the host's
    configuration disables stays so; it is told how to change that.

    \b
    Example:
      sandbox-host enable weather_model
    """
    config = host.read()
    where = directory_of(config, place)
    switches = Switches(config.state_dir)
    disabled, manifest = switches.disabled(), None
    try:
        identity, found = meant(where, name)
        manifest = found.manifest
    except PluginNotFoundError:
        # One that is gone can be enabled as well: it may be installed again.
        identity = identity_of(name)
        if identity not in disabled:
            raise
    if identity in disabled:
        with switching(config) as turn:
            turn.tell_enabled(identity)
            switches.enable(identity)
        tell_readme(where, config)
    if manifest is not None and not Policy.from_config(config).enables(manifest):
        fail(_still_disabled(identity, manifest))
        return Exit.REFUSED
    say(f"{identity}: {'enabled' if identity in disabled else 'it is enabled already'}")
    return Exit.OK


def _still_disabled(identity: str, manifest: Manifest) -> str:
    where = "the host's configuration" if manifest.enabled else "its plugin.json"
    return (
        f"{identity} stays disabled: config.enabled is false in {where}. To enable it, write in "
        f"the host's TOML [plugin_config.{identity}] enabled = true."
    )

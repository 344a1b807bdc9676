"""``sandbox-host enable``: a plugin that was disabled runs again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.admission.policy import Policy
from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import fail, note, say
from sandbox_host.cli.plugin_place import directory_of, place_option, tell_readme
from sandbox_host.cli.switching import is_loaded, meant, switching, told_service
from sandbox_host.errors import ConfigError, PluginNotFoundError
from sandbox_host.model import identity_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from sandbox_host.cli.options import HostOptions
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest


@click.command("enable", short_help="Let a disabled plugin run again.")
@click.argument("name", metavar="NAME")
@place_option
@state_options
def command(name: str, place: Path | None, host: HostOptions) -> int:
    """Let the plugin NAME run again that was disabled with `sandbox-host disable`.

    A service that watches the plugin directory loads it then. One that its plugin.json or the
    host's configuration disables stays so; it is told how to change that.

    \b
    Example:
      sandbox-host enable weather_model
    """
    config = host.read()
    disabled = Switches(config.state_dir).disabled()
    identity, where, manifest = _meant(config, place, name, disabled)
    if identity in disabled:
        told = _enable(config, identity)
        if where is not None:
            tell_readme(where, config)
        if told is not None and not told["loads"]:
            note(f"note: the service watches no directory: `sandbox-host load` loads {identity}.")
    if manifest is not None and not Policy.from_config(config).enables(manifest):
        fail(_still_disabled(identity, manifest))
        return Exit.REFUSED
    say(f"{identity}: {'enabled' if identity in disabled else 'it is enabled already'}")
    return Exit.OK


def _meant(
    config: HostConfig, place: Path | None, name: str, disabled: Collection[str]
) -> tuple[str, Path | None, Manifest | None]:
    """Return which plugin is meant, where it was found, and what it says of itself.

    One that is gone can be enabled as well: it may be installed again.
    """
    try:
        where = directory_of(config, place)
        identity, found = meant(where, name)
    except (PluginNotFoundError, ConfigError):
        identity = identity_of(name)
        if identity not in disabled and not is_loaded(config, identity):
            raise
        return identity, None, None
    return identity, where, found.manifest


def _enable(config: HostConfig, identity: str) -> dict[str, Any] | None:
    """Turn the switch, and return what a running service answers; None without one."""
    told = told_service(config, "enable", identity)
    switches = Switches(config.state_dir)
    if identity in switches.disabled():
        with switching(config) as turn:
            turn.tell_enabled(identity)
            switches.enable(identity)
    return told


def _still_disabled(identity: str, manifest: Manifest) -> str:
    where = "the host's configuration" if manifest.enabled else "its plugin.json"
    return (
        f"{identity} stays disabled: config.enabled is false in {where}. To enable it, write in "
        f"the host's TOML [plugin_config.{identity}] enabled = true."
    )

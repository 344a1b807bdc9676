"""``sandbox-host release``: a plugin in quarantine starts again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import say
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("release", short_help="Let a plugin in quarantine start again.")
@click.argument("name", metavar="NAME")
@state_options
def command(name: str, host: HostOptions) -> None:
    """Let the plugin NAME start again, that ended too often; `dossier show` tells why it did.

    \b
    Example:
      sandbox-host release weather_model
    """
    told = ask(host.read().state_dir, "release", plugin=name)
    say(f"{told['plugin']}: released; it is being started")

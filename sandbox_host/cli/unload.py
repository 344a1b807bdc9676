"""``sandbox-host unload``: the running service unloads a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import say, working
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("unload", short_help="Have the running service unload a plugin.")
@click.argument("name", metavar="NAME")
@click.option("--dependants", is_flag=True, help="Those that need it as well, before it.")
@state_options
def command(name: str, dependants: bool, host: HostOptions) -> None:
    """Have the running service unload the plugin NAME: it finishes what it has, and cleans up.

    Where others need it, nothing is unloaded and they are named, with whom they need it through.

    One of the plugin directory comes back when its files change, or the service starts again; to
    keep it from that, disable it.

    \b
    Example:
      sandbox-host unload weather_model
    """
    with working(f"unloading {name}"):
        told = ask(host.read().state_dir, "unload", plugin=name, dependants=dependants)
    for one in told["unloaded"]:
        say(f"{one}: unloaded")

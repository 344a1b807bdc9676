"""``sandbox-host logs``: what a running plugin prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import say
from sandbox_host.service.client import stream
from sandbox_host.service.following import MAX_LINES

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("logs", short_help="Show what a running plugin prints.")
@click.argument("name", metavar="NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed, until Ctrl-C.")
@click.option(
    "--last",
    type=click.IntRange(0, MAX_LINES),
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="So many lines that are there already.",
)
@state_options
def command(name: str, follow: bool, last: int, host: HostOptions) -> None:
    """Show the last lines that the plugin NAME printed, control characters escaped.

    \b
    Example:
      sandbox-host logs weather_model
      sandbox-host logs --follow weather_model
    """
    for lines in stream(host.read().state_dir, "logs", plugin=name, last=last, follow=follow):
        for line in lines:
            say(line)
        sys.stdout.flush()

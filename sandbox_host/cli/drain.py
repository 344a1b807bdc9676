"""``sandbox-host drain``: the running service ends, in an orderly way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sandbox_host.cli.describe import counted
from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import note, say
from sandbox_host.service.client import stream

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("drain", short_help="End the running service in an orderly way.")
@state_options
def command(host: HostOptions) -> None:
    """Have the running service begin nothing any more, finish what it has, and end; wait for that.

    The same as SIGTERM. Each plugin answers what it was asked, and cleans up, within the
    configuration's stop_timeout_seconds.

    \b
    Example:
      sandbox-host drain
    """
    for told in stream(host.read().state_dir, "drain"):
        note(f"unloading {counted(len(told['plugins']), 'plugin')} ...")
    say("the service has ended")

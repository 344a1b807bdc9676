"""``sandbox-host load``: the running service loads a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sandbox_host.cli.downgrades import allow_downgrade, as_values
from sandbox_host.cli.options import plugin_bundle, state_options
from sandbox_host.cli.output import note, working
from sandbox_host.cli.tables import print_receipt
from sandbox_host.service.client import ask
from sandbox_host.service.documents import receipt_of

if TYPE_CHECKING:
    from sandbox_host.admission.history import Downgrade
    from sandbox_host.cli.options import HostOptions


@click.command("load", short_help="Have the running service load a plugin.")
@plugin_bundle
@allow_downgrade
@state_options
def command(directory: Path, downgrades: tuple[Downgrade, ...], host: HostOptions) -> None:
    """Have the running service verify, confine and load PLUGIN, and show what confines it.

    The service reads it as its own user, by its own trust store and grants.

    \b
    Example:
      sandbox-host load plugins/weather_model
    """
    state_dir = host.read().state_dir
    with working(f"loading {directory}"):
        told = ask(
            state_dir, "load", path=str(directory.absolute()), downgrades=as_values(downgrades)
        )
    for text in told["notes"]:
        note(f"note: {text}")
    print_receipt(receipt_of(told["receipt"]))

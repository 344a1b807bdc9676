"""``sandbox-host status``: what the running service says of itself and its plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sandbox_host.cli.exits import Exit
from sandbox_host.cli.options import output_format, state_options
from sandbox_host.cli.output import print_json, say
from sandbox_host.cli.service_screens import is_well, print_one, print_status
from sandbox_host.cli.tables import print_receipt
from sandbox_host.service.client import ask
from sandbox_host.service.documents import receipt_of

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("status", short_help="Show the running service, its plugins and what confines them.")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--receipts", is_flag=True, help="Also what confines each plugin.")
@state_options
@output_format
def command(name: str | None, receipts: bool, host: HostOptions, as_format: str) -> int:
    """Show the running service and its plugins; with NAME, all about that one.

    The exit code is 1 if a plugin failed, is in quarantine, or lies in the plugin directory and
    cannot be loaded, or waits for a plugin that it needs.

    \b
    Example:
      sandbox-host status
      sandbox-host status weather_model
      sandbox-host status --receipts --format json
    """
    arguments = {} if name is None else {"plugin": name}
    wanted = receipts or name is not None
    document = ask(host.read().state_dir, "status", receipts=wanted, **arguments)
    if as_format == "json":
        print_json(document)
    elif name is not None:
        for one in document["plugins"]:
            print_one(one)
    else:
        print_status(document)
        for one in document["plugins"] if receipts else ():
            say()
            print_receipt(receipt_of(one["receipt"]))
    return Exit.OK if is_well(document) else Exit.REFUSED

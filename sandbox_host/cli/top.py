"""``sandbox-host top``: what running plugins use, again and again."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import say
from sandbox_host.cli.service_screens import print_top
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


@click.command("top", short_help="Show what the running plugins use, again and again.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="Between two looks.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="So many looks. Default: until Ctrl-C.",
)
@state_options
def command(interval: float, count: int | None, host: HostOptions) -> None:
    """Show what each plugin uses, those that use most of the CPU first, until Ctrl-C.

    What is per second is so since the look before; at the first look there is none.

    \b
    Example:
      sandbox-host top
      sandbox-host top --count 2 --interval 10
    """
    state_dir = host.read().state_dir
    before: dict[str, Any] | None = None
    looks = 0
    while True:
        document = ask(state_dir, "status")
        if sys.stdout.isatty():
            click.clear()
        elif looks:
            say()
        print_top(document, before)
        sys.stdout.flush()
        before, looks = document, looks + 1
        if looks == count:
            return
        time.sleep(interval)

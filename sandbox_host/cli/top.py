"""``sandbox-host top``: what running plugins use, again and again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from sandbox_host.cli.options import state_options
from sandbox_host.cli.output import say
from sandbox_host.cli.service_screens import print_top
from sandbox_host.service.client import ask

if TYPE_CHECKING:
    from sandbox_host.cli.options import HostOptions


_BESIDE: Final = 9
"""Lines of the screen that are no plugin's."""

_ROWS: Final = 20
"""Shown where no terminal bounds them."""

_PLAIN: Final = ("", "dumb", "unknown")
"""Terminals that take no commands."""


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
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="So many plugins. Default: what fits the terminal, or 20.",
)
@state_options
def command(interval: float, count: int | None, rows: int | None, host: HostOptions) -> None:
    """Show what the busiest plugins use, those that use most of the CPU first, until Ctrl-C.

    What is per second is so since the look before; at the first look there is none. A terminal is
    cleared before each look; where there is none, and where TERM is dumb, the looks follow each
    other.

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
        if sys.stdout.isatty() and os.environ.get("TERM", "") not in _PLAIN:
            click.clear()
        elif looks:
            say()
        print_top(document, before, rows or _room())
        sys.stdout.flush()
        before, looks = document, looks + 1
        if looks == count:
            return
        time.sleep(interval)


def _room() -> int:
    """Return how many plugins fit."""
    if not sys.stdout.isatty():
        return _ROWS
    return max(1, shutil.get_terminal_size().lines - _BESIDE)

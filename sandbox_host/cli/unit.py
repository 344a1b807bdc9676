"""``sandbox-host unit``: a systemd unit for the service."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import click

from sandbox_host.cli.options import FILE
from sandbox_host.cli.output import PROGRAM
from sandbox_host.errors import UsageError
from sandbox_host.service.unit import DEFAULT_USER, quoted_word, unit_text

_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@click.command("unit", short_help="Print a systemd unit for the service.")
@click.option(
    "--user",
    metavar="NAME",
    default=DEFAULT_USER,
    show_default=True,
    help="The account that the service runs as.",
)
@click.option(
    "--config", type=FILE, metavar="TOML", help="Default: /etc/sandbox-host/config.toml, if any."
)
def command(user: str, config: Path | None) -> None:
    """Print a systemd unit that runs this program as a service.

    It is hardened as far as the plugins' own confinement allows, and its comments say why.

    \b
    Example:
      sandbox-host unit --user sandbox
    """
    if not _USER.fullmatch(user):
        raise UsageError(f"--user {user!r:.80} is no account's name.")
    try:
        path = quoted_word(str(config.absolute())) if config is not None else ""
        program = " ".join(map(quoted_word, _program()))
    except ValueError as error:
        raise UsageError(f"The unit cannot be written: {error}.") from None
    click.echo(unit_text(program, user, path), nl=False)


def _program() -> list[str]:
    """Return the words that start this very program."""
    called = Path(sys.argv[0])
    if called.name == PROGRAM and called.is_absolute():
        return [str(called)]
    beside = Path(sys.executable).with_name(PROGRAM)
    return [str(beside)] if beside.is_file() else [sys.executable, "-m", "sandbox_host"]

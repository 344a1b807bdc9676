"""``sandbox-host new``: a plugin to start from."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from sandbox_host.bundle.rules import check_contents
from sandbox_host.cli.options import FILE
from sandbox_host.cli.output import field, say
from sandbox_host.cli.templates import KINDS, plugin_files
from sandbox_host.errors import RefusedError, UsageError
from sandbox_host.model import identity_of


@click.command("new", short_help="Write a new plugin that works.")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="functions",
    show_default=True,
    help="What the plugin offers.",
)
@click.option(
    "--directory",
    type=FILE,
    metavar="DIR",
    help="Where to write it; new or empty. Default: the plugin's name in snake case.",
)
@click.option("--author", help="For plugin.json. Default: your user name.")
def command(name: str, kind: str, directory: Path | None, author: str | None) -> None:
    """Write a new plugin called NAME that works as it stands.

    NAME is an identifier, such as word_counter or WordCounter. Nothing is overwritten.

    \b
    Example:
      sandbox-host new word_counter
      sandbox-host check word_counter
    """
    identity = identity_of(name)
    files = plugin_files(kind, name, identity, _user() if author is None else author)
    try:
        check_contents(files)
    except RefusedError as error:
        raise UsageError(
            f"No plugin can be called {name!r} or described so: {error.message}",
            remedy="Use an identifier such as word_counter.",
        ) from error
    target = directory or Path(identity)
    _write(target, files)
    say(f"{target}: a new plugin of kind {kind}")
    for path, data in files.items():
        field(path, f"{len(data)} bytes")
    field("next", f"sandbox-host check {target}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no variable tells, and the user has no entry
        return "unknown"


def _write(target: Path, files: dict[str, bytes]) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise UsageError(
                f"{target} is not empty, and nothing is ever overwritten.",
                remedy="Name another place with --directory.",
            )
        for path, data in files.items():
            with (target / path).open("xb") as file:
                file.write(data)
    except OSError as error:
        raise UsageError(
            f"The plugin cannot be written to {target}: {error.strerror or error}.",
            remedy="Name another place with --directory.",
        ) from error

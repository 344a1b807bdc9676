"""Options that commands share, and the host's configuration that they add up to."""

from __future__ import annotations

import difflib
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sandbox_host.config import CONFIG_NAME, HostConfig, default_config_dir

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")


class SuggestingGroup(click.Group):
    """Names the command that was probably meant, where there is none of the name given."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first argument.

        Raises:
            click.UsageError: there is none.
        """
        known = self.list_commands(ctx)
        near = difflib.get_close_matches(args[0][:64], known, n=1)
        if near and args[0] not in known:
            text = f"No such command {args[0][:64]!r}; did you mean {near[0]!r}?"
            raise click.UsageError(text, ctx)
        return super().resolve_command(ctx, args)


DIRECTORY: Final = click.Path(exists=True, file_okay=False, path_type=Path)
"""A plugin's directory; that it is no link and what is in it, the reader checks."""

BUNDLE: Final = click.Path(exists=True, path_type=Path)
"""A plugin's directory or ``.plugin`` archive; `bundle.source.read_bundle` checks which."""

FILE: Final = click.Path(path_type=Path)

plugin_directory = click.argument("directory", metavar="DIR", type=DIRECTORY)

plugin_bundle = click.argument("directory", metavar="PLUGIN", type=BUNDLE)
"""Either form of a plugin; for commands that write nothing into it."""

output_format = click.option(
    "--format",
    "as_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How standard output is written.",
)

passphrase_fd = click.option(
    "--passphrase-fd",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read the key's passphrase from this open file descriptor, up to its first line feed.",
)


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What was said on the command line about the host's configuration; None is "nothing"."""

    config: Path | None = None
    trust_store: Path | None = None
    state_dir: Path | None = None
    plugin_environment: Path | None = None

    def read(self) -> HostConfig:
        """Return the configuration: options over the file over the defaults.

        Without ``--config`` the file is ``config.toml`` in the configuration directory, if it is
        there.

        Raises:
            ConfigError: the file cannot be used.
        """
        file = self.config
        if file is None and os.path.lexists(default_config_dir() / CONFIG_NAME):
            file = default_config_dir() / CONFIG_NAME
        base = HostConfig.from_toml(file) if file is not None else HostConfig()
        given = {
            "trust_store": self.trust_store,
            "state_dir": self.state_dir,
            "plugin_environment": self.plugin_environment,
        }
        return base.model_copy(update={k: v.absolute() for k, v in given.items() if v is not None})


_CONFIG = click.option(
    "--config",
    type=FILE,
    metavar="TOML",
    help="The host's configuration. Default: config.toml in the configuration directory, if any.",
)
_TRUST_STORE = click.option(
    "--trust-store",
    type=FILE,
    metavar="TOML",
    help="Whose signatures count. Default: trust.toml in the configuration directory.",
)
_STATE_DIR = click.option(
    "--state-dir",
    type=FILE,
    metavar="DIR",
    help="Where journal, logs and the plugins' data are kept.",
)
_PLUGIN_ENVIRONMENT = click.option(
    "--plugin-environment",
    type=DIRECTORY,
    metavar="DIR",
    help="Installed packages that plugins may import (made with `pip install --target`).",
)


def _gathered(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Return a decorator that adds `options` and passes them as one argument, ``host``."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(**arguments: Any) -> Any:
            ours = {
                name: arguments.pop(name)
                for name in HostOptions.__dataclass_fields__
                if name in arguments
            }
            return function(host=HostOptions(**ours), **arguments)

        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        result: Function = decorated
        return result

    return decorate


def host_options(function: Function) -> Function:
    """Add the four options of commands that run plugins; the function gets ``host``."""
    every = (_CONFIG, _TRUST_STORE, _STATE_DIR, _PLUGIN_ENVIRONMENT)
    decorate: Callable[[Function], Function] = _gathered(*every)
    return decorate(function)


def trust_options(function: Function) -> Function:
    """Add the two options of commands that only ask whom to believe; the function gets ``host``."""
    decorate: Callable[[Function], Function] = _gathered(_CONFIG, _TRUST_STORE)
    return decorate(function)


def state_options(function: Function) -> Function:
    """Add the two options of commands about what hosts keep; the function gets ``host``."""
    decorate: Callable[[Function], Function] = _gathered(_CONFIG, _STATE_DIR)
    return decorate(function)


def memory_options(function: Function) -> Function:
    """Add the three options of commands about what was admitted; the function gets ``host``."""
    decorate: Callable[[Function], Function] = _gathered(_CONFIG, _TRUST_STORE, _STATE_DIR)
    return decorate(function)


def trial_options(function: Function) -> Function:
    """Add the two options of a trial, whose trust store and state are its own."""
    decorate: Callable[[Function], Function] = _gathered(_CONFIG, _PLUGIN_ENVIRONMENT)
    return decorate(function)

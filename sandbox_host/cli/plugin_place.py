"""What the commands about the plugin directory share: which it is, its lock, its README."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sandbox_host.admission.policy import Policy
from sandbox_host.catalog.discover import discover
from sandbox_host.catalog.placing import PluginPlace
from sandbox_host.catalog.readme import revise_readme
from sandbox_host.catalog.switches import Switches
from sandbox_host.cli.options import FILE
from sandbox_host.cli.output import note
from sandbox_host.errors import ConfigError
from sandbox_host.runtime.removal import Removal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.config import HostConfig
    from sandbox_host.observe.journal import Journal

Function = TypeVar("Function", bound="Callable[..., Any]")

README_NAME: Final = "README.md"
_ERASE_SECONDS: Final = 60.0

_OPTION = click.option(
    "--plugin-directory",
    "place",
    type=FILE,
    metavar="DIR",
    help="The plugin directory. Default: plugin_directory in the host's configuration.",
)


def place_option(function: Function) -> Function:
    """Add the option that names the plugin directory; the function gets ``place``."""
    decorated: Any = _OPTION(function)
    result: Function = decorated
    return result


def directory_of(config: HostConfig, given: Path | None) -> Path:
    """Return the plugin directory.

    Raises:
        ConfigError: neither the command line nor the configuration names one.
    """
    found = given.absolute() if given is not None else config.plugin_directory
    if found is None:
        raise ConfigError(
            "No plugin directory is configured.",
            remedy='Write plugin_directory = "/srv/plugins" in the host\'s TOML, or give '
            "--plugin-directory DIR.",
        )
    return found


def place_for(directory: Path, journal: Journal) -> PluginPlace:
    """Return the plugin directory, to be changed, with a line in the journal for each change."""
    return PluginPlace(directory, journal.append, _erase)


def _erase(name: str, directory_fd: int) -> str:
    """Remove a file or a tree, however deep; return what kept it, or ""."""
    try:
        os.unlink(name, dir_fd=directory_fd)
        return ""
    except IsADirectoryError:
        pass
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    try:
        with Removal(name, dir_fd=directory_fd) as removal:
            removal.run(_ERASE_SECONDS)
            return "; ".join(f"{name}/{one.path}: {one.reason}" for one in removal.left)
    except OSError as error:
        return f"{name}: {error.strerror or error}"


def tell_readme(directory: Path, config: HostConfig) -> None:
    """Take what is gone or disabled out of the manifest in the directory's README, if it has one.

    That it cannot be written is told, and nothing else: what the command was for is done.
    """
    readme = directory / README_NAME
    if not os.path.lexists(readme):
        return
    try:
        policy, switched = Policy.from_config(config), Switches(config.state_dir).disabled()
        manifests = [d.manifest for d in discover(directory) if d.manifest]
        disabled = {
            m.identity: {"version": m.version}
            for m in manifests
            if m.identity in switched or not policy.enables(m)
        }
        revise_readme(readme, {m.identity for m in manifests}, disabled, datetime.now(UTC))
    except ConfigError as error:
        note(f"note: {error}")


def since(path: Path) -> datetime | None:
    """Return since when a plugin lies in the directory as it does; None where that is unknown."""
    # Of a name that was renamed or written to; no tool sets it back as it does the other times.
    with contextlib.suppress(OSError, OverflowError, ValueError):
        return datetime.fromtimestamp(path.lstat().st_ctime, UTC)
    return None

"""What ``sandbox-host enable`` and ``sandbox-host disable`` share.

A running service is told, so that it acts at once, whether it watches a plugin directory or not.
The switch itself needs no service, and is turned whatever a service says.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox_host.bundle.archive_format import SUFFIX
from sandbox_host.catalog.placing import find_plugin
from sandbox_host.cli.output import note
from sandbox_host.errors import ConfigError, ControlError, PluginNotFoundError, UsageError
from sandbox_host.model import identity_of
from sandbox_host.observe.journal import Journal
from sandbox_host.service.client import ask
from sandbox_host.service.place import NobodyServesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox_host.catalog.discover import Discovered
    from sandbox_host.config import HostConfig


class Switching:
    """One turn of the switch, with its line in the journal.

    Args:
        journal: where it is written down.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def tell_disabled(self, identity: str) -> None:
        """Write down that a plugin was disabled."""
        self._journal.append("disabled", identity, "by its operator")

    def tell_enabled(self, identity: str) -> None:
        """Write down that a plugin was enabled."""
        self._journal.append("enabled", identity, "by its operator")


@contextlib.contextmanager
def switching(config: HostConfig) -> Iterator[Switching]:
    """Open the journal for a turn of the switch."""
    with Journal(config.journal_path) as journal:
        yield Switching(journal)
        journal.sync()


def told_service(config: HostConfig, operation: str, identity: str) -> dict[str, Any] | None:
    """Have the running service turn the switch; return its answer.

    None where none runs, or where it cannot: that is told, and the switch is the caller's to turn.
    """
    try:
        answer: dict[str, Any] = ask(config.state_dir, operation, plugin=identity)
    except NobodyServesError:
        return None
    except ControlError as error:
        note(f"note: the running service was not told: {error}")
        return None
    return answer


def is_loaded(config: HostConfig, identity: str) -> bool:
    """Tell whether a running service has a plugin of this name loaded."""
    try:
        ask(config.state_dir, "status", plugin=identity)
    except ControlError:
        return False
    return True


def meant_anywhere(
    config: HostConfig, directory: Callable[[], Path], name: str
) -> tuple[str, Path | None, Discovered | None]:
    """Return the identity of the plugin that is meant, and where it was found.

    One that the running service loaded from elsewhere counts too: then there is no place.

    Raises:
        ConfigError: there is no plugin directory, or it cannot be read; and none is loaded.
        PluginNotFoundError, UsageError: as `meant`.
    """
    try:
        where = directory()
        identity, found = meant(where, name)
    except (ConfigError, PluginNotFoundError):
        identity = identity_of(name)
        if not is_loaded(config, identity):
            raise
        return identity, None, None
    return identity, where, found


def meant(directory: Path, name: str) -> tuple[str, Discovered]:
    """Return the identity of the plugin that is meant, and what was discovered of it.

    Raises:
        PluginNotFoundError: there is none of that name.
        UsageError: there are several, or it is so broken that it has no name.
        ConfigError: the plugin directory cannot be read.
    """
    try:
        found = find_plugin(directory, name)
    except PluginNotFoundError:
        # Broken, perhaps while its old version still serves: known by its file's name.
        identity = identity_of(name)
        for file in (identity, f"{identity}{SUFFIX}"):
            with contextlib.suppress(PluginNotFoundError):
                return identity, find_plugin(directory, file)
        raise
    if found.manifest is None:
        identity = identity_of(found.path.name.removesuffix(SUFFIX))
        if not identity.isidentifier():
            text = f"{found.path} cannot be read, so that nobody knows its name."
            raise UsageError(text, remedy="It is not loaded anyway; remove it, or mend it.")
        return identity, found
    return found.manifest.identity, found

"""What the configuration says of plugins that run several times: which processes there are to be.

A plugin with instances runs as these, and not by itself; so does one with replicas. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sandbox_host.admission.instances import Instance
from sandbox_host.model import INSTANCE_MARK

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig


class Declared:
    """See the module.

    Args:
        config: the one in force; None for one that declares nothing.

    Attributes:
        plugins: identities of those that do not run by themselves.

    Raises:
        ConfigError: what an instance is to be configured with cannot be sent to it.
    """

    def __init__(self, config: HostConfig | None = None) -> None:
        self._ones: dict[str, dict[str, Instance]] = {}
        if config is not None:
            for plugin, ones in config.instances.items():
                self._add(plugin, [Instance(n, t.config, t.limits) for n, t in ones.items()])
            for plugin, count in config.replicas.items():
                self._add(plugin, [Instance(f"r{number}") for number in range(1, count + 1)])
        self._replicas = frozenset(config.replicas) if config is not None else frozenset[str]()
        self.plugins = frozenset(self._ones)

    def _add(self, plugin: str, ones: list[Instance]) -> None:
        self._ones[plugin] = {f"{plugin}{INSTANCE_MARK}{one.name}": one for one in ones}

    def members(self, plugin: str) -> Mapping[str, Instance | None]:
        """Return what is to run of a plugin, by identity; itself, where nothing is declared."""
        return self._ones.get(plugin) or {plugin: None}

    def differing(self, other: Declared) -> set[str]:
        """Return the plugins of which something else is declared there."""
        every = self.plugins | other.plugins
        return {one for one in every if self._of(one) != other._of(one)}

    def _of(self, plugin: str) -> tuple[object, ...]:
        return self.members(plugin), self.replicas(plugin)

    def replicas(self, plugin: str) -> tuple[str, ...]:
        """Return the identities of those that take the calls of a plugin's name; () for none."""
        return tuple(self._ones[plugin]) if plugin in self._replicas else ()

"""The host of a service: what only whoever runs it as a process of its own asks of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig


class ServedHost(BlockingHost):
    """A host that tells whether it works, and takes another configuration while it is open."""

    def works(self, within: float) -> bool:
        """Tell whether the watchdog looked after the plugins less than so many seconds ago."""
        return self._core.works(within)

    def disabled(self, identity: str, reason: str) -> None:
        """Take the word that a plugin, which does not run, is not to run."""
        self._core.lives.step(identity, Trigger.DISABLE, reason)

    def reconfigure(self, config: HostConfig) -> None:
        """Load from now on by another configuration; what is made only once stays as it is.

        Raises:
            UsageError: the host is not open.
            HistoryError, JournalError: the change cannot be written down; all stays as it was.
        """
        self._core.reconfigure(config)

    @property
    def config(self) -> HostConfig:
        """The configuration in force."""
        return self._core.config

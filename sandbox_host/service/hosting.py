"""The host of a service: what only whoever runs it as a process of its own asks of a host."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.worker import each
from sandbox_host.errors import SandboxHostError
from sandbox_host.model import plugin_of
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.group import LoadedAll
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.recorded import Record
    from sandbox_host.supervision.restart import RestartPolicy
    from sandbox_host.supervision.standing import Standing

_AT_A_TIME: Final = 8


class ServedHost(BlockingHost):
    """A host that tells whether it works, and takes another configuration while it is open."""

    def works(self, within: float) -> bool:
        """Tell whether the watchdog looked after the plugins less than so many seconds ago."""
        return self._core.works(within)

    def unload_instances(self, identity: str) -> None:
        """Unload every instance of a plugin, several at a time; not the plugin itself."""

        def unload(name: str) -> None:
            with contextlib.suppress(SandboxHostError):  # it is gone, or told by its state
                self.unload(name)

        names = [name for name in self.plugins if plugin_of(name)[0] == identity != name]
        each(unload, names, _AT_A_TIME)

    def disabled(self, identity: str, reason: str, *, journalled: bool = False) -> None:
        """Take the word that a plugin, which does not run, is not to run.

        Args:
            identity: the plugin's.
            reason: for people.
            journalled: its line is in the journal already.
        """
        self._core.lives.step(identity, Trigger.DISABLE, reason, journalled=journalled)

    def enabled(self, identity: str) -> None:
        """Take the word, which is in the journal already, that one that was disabled may run."""
        self._core.lives.step(identity, Trigger.ENABLE, "by its operator", journalled=True)

    def reconfigure(self, config: HostConfig) -> None:
        """Load from now on by another configuration; what is made only once stays as it is.

        Raises:
            UsageError: the host is not open.
            HistoryError, JournalError: the change cannot be written down; all stays as it was.
        """
        self._core.reconfigure(config)

    # -- in the order of what they need -------------------------------------------------------

    def load_group(
        self,
        paths: Iterable[Path],
        others: Iterable[tuple[Manifest, str]],
        heed: Callable[[Path, BlockingPlugin | SandboxHostError], bool],
        *,
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
    ) -> LoadedAll[BlockingPlugin]:
        """Load several plugins, as `load_all`.

        Args:
            paths: where they are.
            others: verified ones that are there and not to run, with the reasons.
            heed: is told of each, or why it was not started; False begins no more.
            downgrades: as of `load`.
            record: likewise.
            restart: likewise.
        """

        def tell(path: Path, outcome: PluginProcess | SandboxHostError) -> bool:
            if isinstance(outcome, SandboxHostError):
                return heed(path, outcome)
            return heed(path, BlockingPlugin(core.slot(outcome)))

        core = self._core
        return self._handed_out(
            core.load_all(paths, downgrades, record, restart, others=others, heed=tell)
        )

    def load_strictly(self, path: Path, *, restart: RestartPolicy | None) -> BlockingPlugin:
        """Load a plugin if everything that it needs runs.

        Raises:
            DependencyError: something does not; nothing was executed.
            SandboxHostError: as of `load`.
        """
        return BlockingPlugin(self._core.slot(self._core.load_strictly(path, restart)))

    def standing(self) -> Standing:
        """Return what runs now, for whoever decides what may start."""
        return self._core.dependencies.standing()

    def check_reload(self, manifest: Manifest) -> None:
        """Say beforehand whether a new version does for all that run; `reload` asks again.

        Raises:
            ReloadError: it would not do for others.
            DependencyError: it needs what is not there.
        """
        self._core.dependencies.check_reload(manifest)

    def put_out(self, name: str) -> None:
        """Unload a plugin whatever needs it, because another version of it comes at once.

        Raises:
            PluginNotFoundError: none of that name is loaded.
            PluginError: its process could not be ended.
        """
        self._core.put_out(name)

    @property
    def config(self) -> HostConfig:
        """The configuration in force."""
        return self._core.config

"""The host of a service: what only whoever runs it as a process of its own asks of a host."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING

from sandbox_host.errors import PluginNotFoundError, SandboxHostError, StartError, UsageError
from sandbox_host.model import plugin_of
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from sandbox_host.runtime.members import Members
from sandbox_host.runtime.pool import Pool
from sandbox_host.runtime.replicas import BlockingReplicas, check_stateless
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.admission.instances import Instance
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.group import LoadedAll
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.recorded import Record
    from sandbox_host.service.declared import Declared
    from sandbox_host.supervision.restart import RestartPolicy
    from sandbox_host.supervision.standing import Standing


class ServedHost(BlockingHost):
    """A host that tells whether it works, and takes another configuration while it is open."""

    def works(self, within: float) -> bool:
        """Tell whether the watchdog looked after the plugins less than so many seconds ago."""
        return self._core.works(within)

    def processes_of(self, plugin: str) -> tuple[str, ...]:
        """Return the identities of all that is loaded of a plugin, itself and its instances."""
        return tuple(name for name in self.plugins if plugin_of(name)[0] == plugin)

    def unload_of(self, plugin: str, names: Sequence[str]) -> tuple[str, ...]:
        """Unload some of these; with the last of them go those that need the plugin, before it.

        Returns:
            The identities of all that were unloaded, in that order.

        Raises:
            PluginNotFoundError: one of these is not loaded; the others are gone all the same.
            PluginError: a process could not be ended.
        """
        return self._core.unload_of(plugin, names)

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
        declared: Declared | None = None,
        heed_instance: Callable[[Path, str, SandboxHostError], object] | None = None,
    ) -> LoadedAll[BlockingPlugin]:
        """Load several plugins, as `load_all`.

        Args:
            paths: where they are.
            others: verified ones that are there and not to run, with the reasons.
            heed: is told of each, or why it was not started; False begins no more.
            declared: which instances of them there are to be; None for themselves.
            heed_instance: is told of each of those that was not started although others of its
                plugin were, or were tried.
            downgrades: as of `load`.
            record: likewise.
            restart: likewise.
        """
        core, one_at_a_time = self._core, threading.RLock()

        def tell(path: Path, outcome: PluginProcess | SandboxHostError) -> bool:
            with one_at_a_time:
                if isinstance(outcome, SandboxHostError):
                    return heed(path, outcome)
                return heed(path, BlockingPlugin(core.slot(outcome)))

        def tell_instance(
            path: Path, identity: str, outcome: PluginProcess | SandboxHostError
        ) -> None:
            with one_at_a_time:
                if not isinstance(outcome, SandboxHostError):
                    heed(path, BlockingPlugin(core.slot(outcome)))
                elif heed_instance is not None:
                    heed_instance(path, identity, outcome)

        members = None
        if declared is not None:
            members = Members(
                declared.members, tell_instance, functools.partial(self._admit, declared)
            )
        loaded = core.load_all(
            paths, downgrades, record, restart, others=others, heed=tell, members=members
        )
        return self._handed_out(loaded)

    def load_strictly(
        self,
        path: Path,
        *,
        restart: RestartPolicy | None,
        instance: Instance | None = None,
        replica: bool = False,
    ) -> None:
        """Load a plugin, or an instance of it, if everything that it needs runs.

        Raises:
            DependencyError: something does not; nothing was executed.
            SandboxHostError: as of `load`, and where a replica has a state.
        """
        process = self._core.load_strictly(path, restart, instance)
        if replica:
            self._fit(process)

    def renew(self, identity: str, path: Path, *, instance: Instance | None, replica: bool) -> None:
        """Reload a plugin, perhaps as another instance of the same name.

        Raises:
            SandboxHostError: as of `reload`, and where a replica has a state; what runs goes on.
        """
        probe = _check_replica if replica else None
        self._core.reload(identity, path, probe=probe, instance=instance)

    def _admit(self, declared: Declared, process: PluginProcess) -> None:
        if declared.replicas(plugin_of(process.identity)[0]):
            self._fit(process)

    def _fit(self, process: PluginProcess) -> None:
        """Unload a replica of what cannot have any.

        Raises:
            StartError: it was one.
        """
        try:
            _check_replica(process)
        except StartError:
            self._core.put_out(process.identity)
            raise

    # -- behind one name ----------------------------------------------------------------------

    def share(self, plugin: str, names: Iterable[str]) -> None:
        """Have calls of a plugin's name go to those of these processes that are loaded."""
        slots = []
        for name in names:
            with contextlib.suppress(PluginNotFoundError):
                slots.append(self._core.place(name))
        pools = self._core.pools
        if slots:
            pools.add(Pool(slots))
        elif (pool := pools.of(plugin)) is not None:
            pools.remove(pool)

    def callee(self, name: str) -> BlockingPlugin | BlockingReplicas:
        """Return whoever takes the calls of that name: a plugin, or replicas of it.

        Raises:
            PluginNotFoundError: there is none.
        """
        try:
            return self.plugin(name)
        except PluginNotFoundError:
            pool = self._core.pools.of(name)
            loaded = self.plugins
            if pool is None or not any(slot.identity in loaded for slot in pool.slots):
                raise
            return BlockingReplicas(self._core, pool, tuple(map(BlockingPlugin, pool.slots)))

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


def _check_replica(process: PluginProcess) -> None:
    """Refuse what has a state, as a fault of that plugin alone."""
    try:
        check_stateless(process)
    except UsageError as error:
        raise StartError(error.message, plugin=process.identity, remedy=error.remedy) from None

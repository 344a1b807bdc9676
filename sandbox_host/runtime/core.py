"""The host itself: blocking and thread-safe. `host` and `blocking` are its two faces."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.backends.select import select_backend
from sandbox_host.backends.worker import Worker
from sandbox_host.catalog.environment import environment_fault
from sandbox_host.errors import (
    ConfigError,
    UsageError,
)
from sandbox_host.model import Cause
from sandbox_host.observe.dossiers import DossierStore
from sandbox_host.runtime.admissions import Admissions
from sandbox_host.runtime.alert_sinks import sinks_of
from sandbox_host.runtime.alerting import AlertDesk
from sandbox_host.runtime.chronicle import Chronicle
from sandbox_host.runtime.comings import Comings
from sandbox_host.runtime.data import DataDirectories
from sandbox_host.runtime.dependencies import Dependencies
from sandbox_host.runtime.disk import DiskWatch
from sandbox_host.runtime.events import EventDesk
from sandbox_host.runtime.health_rounds import HealthRounds
from sandbox_host.runtime.keeper import Keeper
from sandbox_host.runtime.launch import Launcher, base_python
from sandbox_host.runtime.lives import Lives
from sandbox_host.runtime.nested import NestedCalls
from sandbox_host.runtime.offers import options_of
from sandbox_host.runtime.own_services import OwnServices
from sandbox_host.runtime.pool import Pools
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.services import Services
from sandbox_host.runtime.slot import Slot
from sandbox_host.runtime.stopping import stop_together
from sandbox_host.runtime.supervisor import Supervisor
from sandbox_host.runtime.workspace import Workspace
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.backends.base import Backend
    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.config import HostConfig

_PAUSE_SECONDS: Final = 0.01

_open_hosts: weakref.WeakSet[HostCore] = weakref.WeakSet()


def _forget_hosts() -> None:
    for host in list(_open_hosts):
        host.forget()


# A fork copies the memory, not the threads: the copy must not stop the original's plugins.
os.register_at_fork(after_in_child=_forget_hosts)


class HostCore(Comings):
    """Loads, confines, calls, accounts for and unloads plugins.

    Args:
        config: the operator's decisions.
        backend: another than this system's, for the host's own tests.
        trial: plugins are tried by their authors: they tell what they used and were refused.
    """

    def __init__(
        self, config: HostConfig, backend: Backend | None = None, *, trial: bool = False
    ) -> None:
        self.config = config
        self._trial = trial
        self._backend = backend
        self._lock = threading.RLock()
        self.pools = Pools(self.place)
        self._services = Services(OwnServices(config.state_dir, NestedCalls(self.pools.callee)))
        self._events = EventDesk(config)
        self._broker = self._events.broker
        self._plugins: dict[str, PluginProcess] = {}
        # Each is there as long as somebody holds a handle of it.
        self._slots: weakref.WeakValueDictionary[str, Slot] = weakref.WeakValueDictionary()
        self._starting: set[str] = set()
        self._dependencies = Dependencies(self.plugins, lambda process: self.slot(process).empty)
        self._opened = False
        self._accepting = False
        self._copied = False

    # -- life of the host -------------------------------------------------------------------

    def open(self) -> None:
        """Make the directories, the journal and the keeper.

        Raises:
            ConfinementError: this system has no backend.
            ConfigError: a directory cannot be used.
            JournalError: the journal cannot be written.
        """
        if self._opened:
            text = "A host is opened once; make another."
            raise UsageError(text)
        environment = self.config.plugin_environment
        if environment is not None and (fault := environment_fault(environment)):
            text = f"The plugin environment {environment} {fault}."
            remedy = "Make it with `pip install --target`, or leave plugin_environment out."
            raise ConfigError(text, remedy=remedy)
        with contextlib.ExitStack() as made:
            self._workspace = Workspace(self.config.state_dir, self.config.plugin_uids)
            made.callback(self._workspace.close)
            backend = self._backend or select_backend(
                options_of(self.config),
                self.config.python or base_python(),
                self._workspace.sdk_dir,
            )
            made.callback(backend.close)
            self._begin_work(made)
            self._begin_telling(made)
            self._admissions = Admissions(self.config.state_dir, self._journal)
            self._admissions.start(self.config)
            made.callback(self._events.close)
            self._events.open()
            self._keeper = Keeper()
            made.callback(self._keeper.close)
            self._data = DataDirectories(
                self.config.state_dir, self._workspace.locks, self._journal.append
            )
            made.callback(self._data.close)
            self._data.start_sweeping()
            self._dossiers = DossierStore.of(self.config)
            self._disk = DiskWatch()
            made.callback(self._disk.close)
            self._launcher = Launcher(
                self.config,
                backend,
                self._workspace,
                self._keeper,
                self._journal,
                self._admissions,
                services=lambda: self._services.names,
                trial=self._trial,
            )
            made.callback(self._services.close)
            self.lives = Lives(self._chronicle.tell, functools.partial(self._tell, "plugin_state"))
            self._supervisor = Supervisor(self.lives, self._put_out)
            made.callback(self._supervisor.close)
            self._health = HealthRounds(
                self.config, self._turned, self._unresponsive, self._services.waits
            )
            made.callback(self._health.close)
            self._closing_steps = made.pop_all()
        self._opened = self._accepting = True
        _open_hosts.add(self)

    def _begin_telling(self, made: contextlib.ExitStack) -> None:
        """Open the journal, and what tells of trouble that it hears of there."""
        settings = self.config.alerts
        self._alerts = AlertDesk(settings, sinks_of(settings, self._append, self._tell))
        self._chronicle = Chronicle(self.config, self._alerts.heard)
        made.callback(self._chronicle.close)
        made.callback(self._alerts.close)
        self._journal = self._chronicle.journal
        self._chronicle.host_started()

    def _begin_work(self, made: contextlib.ExitStack) -> None:
        """Start the threads that do what others need not wait for."""
        self._janitor = Worker("sandbox-host-janitor")
        made.callback(self._janitor.shutdown)
        self._closer = Worker("sandbox-host-closer")
        made.callback(self._closer.shutdown)
        self._closer.submit(int)  # its thread is there when there are no more to be had

    def close(self) -> None:
        """Unload everything, in parallel, within the stop timeout; then remove what is ours.

        All of it is done whatever fails on the way. In a forked copy of the process nothing is:
        plugins and directories belong to the original.

        Raises:
            UsageError: not everything could be put away.
        """
        if not self._opened:
            return
        self._opened = self._accepting = False
        if self._copied:
            return
        try:
            with self._closing_steps:
                self._health.close()
                self._supervisor.stop()
                self._stop_all()
                self._chronicle.host_stopped()
        except OSError as error:
            text = f"Not everything of the host could be put away: {error}."
            remedy = "Does the application close descriptors that are not its own?"
            raise UsageError(text, remedy=remedy) from error

    def _stop_all(self) -> None:
        timeout = self.config.stop_timeout_seconds
        until = time.monotonic() + self.config.start_timeout_seconds + timeout
        while True:
            with self._lock:
                starting, running = self._starting, list(self._plugins.values())
            alive = [process for process in running if not process.ended.is_set()]
            if time.monotonic() > until or not (alive or starting):
                return
            for process in alive:
                self.lives.step(process.identity, Trigger.STOP)
            if alive:
                stop_together(alive, timeout, Cause.HOST_SHUTDOWN)
            else:
                time.sleep(_PAUSE_SECONDS)  # a load is between verification and its process

    def forget(self) -> None:
        """Belong to nobody: this is a forked copy, and threads and children are the original's."""
        self._copied = True
        self._workspace.locks.forget()
        self._services.copied()
        self._events.forget()
        for process in self._plugins.values():
            process.copied = True

    def _append(self, event: str, plugin: str, detail: str) -> None:
        self._journal.append(event, plugin, detail)

    def works(self, within: float) -> bool:
        """Tell whether the watchdog looked after the plugins less than so many seconds ago."""
        return self._opened and self._keeper.works(within)

    def reconfigure(self, config: HostConfig) -> None:
        """Load from now on by another configuration; what is made only once stays as it is.

        Raises:
            UsageError: the host is not open.
            HistoryError, JournalError: the change cannot be written down; all stays as it was.
        """
        self._check_open()
        self._admissions.start(config)
        self._launcher.reconfigure(config)
        self._health.reconfigure(config, self.plugins())
        self.config = config

    @property
    def data(self) -> DataDirectories:
        """The data directories of all plugins, loaded or not.

        Raises:
            UsageError: the host is not open.
        """
        self._check_open()
        return self._data

    # -- events -----------------------------------------------------------------------------

    @property
    def events(self) -> EventDesk:
        """What is done with events.

        Raises:
            UsageError: the host is not open.
        """
        self._check_open()
        return self._events

    def subscriptions(self) -> tuple[SubscriptionInfo, ...]:
        """Return the counters of everybody who gets events: plugins first, by name.

        Raises:
            UsageError: the host is not open.
        """
        infos = self.events.infos()
        handling = [process for process in self.plugins() if process.handles]
        return (*(p.talk.events.info(p.identity, p.handles) for p in handling), *infos)

    def offer(self, name: str, function: Callable[..., Any]) -> None:
        """Have plugins that were granted it ask for a function by a name.

        Raises:
            UsageError: the name is malformed or taken, or a parameter has no annotation.
        """
        self._services.offer(name, function)

"""Who is loaded in a host, how each of them is doing, and what becomes of one that ends."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sandbox_host.backends.worker import Worker
from sandbox_host.bundle import stage
from sandbox_host.errors import (
    PluginNotFoundError,
    SandboxHostError,
    UsageError,
)
from sandbox_host.health.alerts import Severity
from sandbox_host.health.record import NOT_YET, PluginHealth
from sandbox_host.health.sources import HEALTH
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.model import Cause, State, identity_of
from sandbox_host.observe.dossiers import DossierStore
from sandbox_host.runtime.alerting import AlertDesk
from sandbox_host.runtime.audience import Audience
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.dependencies import Dependencies
from sandbox_host.runtime.disk import DiskWatch
from sandbox_host.runtime.health_rounds import HealthRounds
from sandbox_host.runtime.lives import Lives
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.slot import Slot
from sandbox_host.runtime.supervisor import Supervisor
from sandbox_host.runtime.workspace import Workspace, remove_tree
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from sandbox_host.backends.base import Places
    from sandbox_host.config import HostConfig
    from sandbox_host.health.hysteresis import StatusChange
    from sandbox_host.supervision.lifecycle import PluginLife

_log = logging.getLogger("sandbox_host")


class Residents(Audience):
    """The loaded plugins of one host. Methods may be called from any thread."""

    config: HostConfig
    lives: Lives
    _accepting: bool
    _copied: bool
    _lock: threading.RLock
    _plugins: dict[str, PluginProcess]
    _slots: weakref.WeakValueDictionary[str, Slot]
    _dependencies: Dependencies
    _supervisor: Supervisor
    _alerts: AlertDesk
    _health: HealthRounds
    _disk: DiskWatch
    _dossiers: DossierStore
    _workspace: Workspace
    _janitor: Worker
    _closer: Worker

    def _check_open(self) -> None:
        if self._copied:
            text = "This host belongs to the process that this one was forked from."
            raise UsageError(text, remedy="Make a host of its own after the fork.")
        if not self._accepting:
            text = "The host is not open; use it in a `with` block."
            raise UsageError(text)

    # -- who is there -----------------------------------------------------------------------

    def get(self, name: str) -> PluginProcess:
        """Return the plugin of that name, in whichever spelling; it may have ended.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        identity = identity_of(name)
        with self._lock:
            process = self._plugins.get(identity)
            loaded = ", ".join(sorted(self._plugins)) or "none"
        if process is None:
            text = f"No plugin named {name!r} is loaded; there are: {loaded}."
            raise PluginNotFoundError(text, plugin=identity, remedy="Load it first.")
        return process

    def slot(self, process: PluginProcess) -> Slot:
        """Return the place of a plugin, which a process of it has taken."""
        with self._lock:
            slot = self._slots.get(process.identity)
            if slot is None:
                slot = self._slots[process.identity] = Slot(process)
            return slot

    def place(self, name: str) -> Slot:
        """Return the place of the plugin of that name.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        return self.slot(self.get(name))

    def plugins(self) -> list[PluginProcess]:
        """Return all loaded plugins, those that failed included, by name."""
        with self._lock:
            return [process for _, process in sorted(self._plugins.items())]

    def loaded(self) -> list[PluginProcess]:
        """Return the same in the order in which they were loaded."""
        with self._lock:
            return list(self._plugins.values())

    def known_lives(self) -> tuple[PluginLife, ...]:
        """Return where each plugin stands; see `SandboxHost.lives`."""
        self._check_open()
        return self.lives.all()

    @property
    def dependencies(self) -> Dependencies:
        """What the loaded plugins need of each other."""
        return self._dependencies

    def quarantined(self, name: str) -> str:
        """Return why a plugin is not started again any more; "" where it is.

        Raises:
            UsageError: the host is not open.
        """
        self._check_open()
        return self._supervisor.quarantined(name)

    def release(self, name: str) -> None:
        """Start a plugin in quarantine again.

        Raises:
            PluginNotFoundError: none of that name is in quarantine.
            UsageError: the host is not open.
        """
        self._check_open()
        self._supervisor.release(name)

    # -- health -----------------------------------------------------------------------------

    def health(self, name: str) -> PluginHealth:
        """Return how a plugin is doing, as of the last look; see `SandboxHost.health`."""
        process = self.get(name)
        health = process.health
        if health is None:  # it is starting, or did not
            status = HealthStatus.UNHEALTHY if process.life.over else HealthStatus.HEALTHY
            text = process.cause_text or NOT_YET
            return PluginHealth(process.identity, status, text, datetime.now(UTC))
        return health

    def _turned(self, process: PluginProcess, change: StatusChange) -> None:
        """A plugin's health is another: write it down, and tell whoever is to know."""
        identity, text = process.identity, f"{change.after}: {change.message}"
        self._chronicle.turned(process, change)
        better = change.after is HealthStatus.HEALTHY
        step = Trigger.RECOVER if better else Trigger.WORSEN
        self.lives.step(identity, step, text, journalled=True)
        if better:
            self._alerts.well(identity, HEALTH, text)
        else:
            grave = change.after is HealthStatus.UNHEALTHY
            severity = Severity.ERROR if grave else Severity.WARNING
            self._alerts.trouble(identity, HEALTH, severity, text)

    def _unresponsive(self, process: PluginProcess, why: str) -> None:
        """End what does not answer, where another process takes its place; else it is told only."""
        if self._supervisor.watches(process.identity):
            process.end(Ending(Cause.UNRESPONSIVE, why))

    # -- one that ends ----------------------------------------------------------------------

    def ended(self, process: PluginProcess) -> None:
        """A plugin has ended, from whatever cause. Called by the keeper."""
        identity = process.identity
        self._disk.remove(process)
        self._broker.unregister(process.talk.events.deliver)
        failed = process.state is State.FAILED
        if failed and process.cause is not Cause.START_FAILED:  # whoever loads it is told
            _log.warning("%s", process.cause_text)
        if process.interface is not None:
            self._tell("plugin_unloaded", {"plugin": identity, "cause": str(process.cause)})
        self._health.ended(process)
        self._chronicle.ended(process)
        self._live_on_without(process)
        self._supervisor.ended(process)

    def _live_on_without(self, process: PluginProcess) -> None:
        with self._lock:
            if self._plugins.get(process.identity) is not process:
                return  # another version has its place, or it never had one
        if process.state is State.STOPPED:
            self.lives.step(process.identity, Trigger.STOP)  # of its own accord, if not before
            step = Trigger.END
        else:
            step = Trigger.FAIL
        self.lives.step(process.identity, step, process.cause_text, journalled=True)

    def gone(self, process: PluginProcess) -> None:
        """Nothing of a process is left: give back what was taken for it. Called by the keeper.

        Elsewhere, because the keeper has others to look after: a plugin may have left a hundred
        thousand files, and a control group or a nursery may take long to end.
        """
        # The next process may have the lock once the store of this one is closed.
        self._services.forget(process, lambda: self._workspace.locks.give_back(process.identity))
        self._janitor.submit(lambda: _remove(process.places))
        self._closer.submit(lambda: self._put_away(process))

    def _put_away(self, process: PluginProcess) -> None:
        """Write the dossier first: whoever sees that a plugin has ended finds it."""
        try:
            dossier = process.dossier()
            if dossier is not None:
                process.dossier_path = self._dossiers.path(self._dossiers.write(dossier))
                _log.warning("%s: its dossier is %s", process.identity, process.dossier_path)
        except Exception as error:  # noqa: BLE001 - a full disk, perhaps; the plugin ended all the same
            _log.error("%s: no dossier was written: %s", process.identity, error)
        self._supervisor.examined(process)
        try:
            process.release()
        except Exception:  # noqa: BLE001 - nobody waits for this who could do more
            _log.exception("%s: not everything could be given back", process.identity)


def _remove(places: Places) -> None:
    with contextlib.suppress(SandboxHostError):
        stage.remove(places.package_dir)
    remove_tree(places.scratch_dir)

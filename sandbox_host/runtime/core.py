"""The host itself: blocking and thread-safe. `host` and `blocking` are its two faces."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.backends.select import select_backend
from sandbox_host.backends.worker import Worker
from sandbox_host.bundle import stage
from sandbox_host.catalog.environment import environment_fault
from sandbox_host.errors import (
    AlreadyLoadedError,
    ConfigError,
    PluginError,
    PluginNotFoundError,
    ReloadError,
    SandboxHostError,
    UsageError,
)
from sandbox_host.health.alerts import Severity
from sandbox_host.health.record import NOT_YET, PluginHealth
from sandbox_host.health.sources import HEALTH
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.model import Cause, State, identity_of, plugin_of
from sandbox_host.observe.dossiers import DossierStore
from sandbox_host.runtime.admissions import Admissions
from sandbox_host.runtime.alert_sinks import sinks_of
from sandbox_host.runtime.alerting import AlertDesk
from sandbox_host.runtime.audience import Audience
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.chronicle import Chronicle
from sandbox_host.runtime.data import DataDirectories
from sandbox_host.runtime.dependencies import Dependencies, stop_in_levels
from sandbox_host.runtime.disk import DiskWatch
from sandbox_host.runtime.events import EventDesk
from sandbox_host.runtime.group import Group
from sandbox_host.runtime.health_rounds import HealthRounds
from sandbox_host.runtime.keeper import Keeper
from sandbox_host.runtime.launch import Launcher, base_python
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.runtime.lives import Lives
from sandbox_host.runtime.nested import NestedCalls
from sandbox_host.runtime.offers import options_of
from sandbox_host.runtime.own_services import OwnServices
from sandbox_host.runtime.pool import Pools
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.recorded import begun_recording
from sandbox_host.runtime.reloading import Candidate, drain, handed_over
from sandbox_host.runtime.services import Services
from sandbox_host.runtime.slot import Slot
from sandbox_host.runtime.stopping import stop_together
from sandbox_host.runtime.supervisor import Supervisor
from sandbox_host.runtime.updates import Update
from sandbox_host.runtime.workspace import Workspace, remove_tree
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.admission.instances import Instance
    from sandbox_host.backends.base import Backend, Places
    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.config import HostConfig
    from sandbox_host.health.hysteresis import StatusChange
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.group import Heed, Loaded
    from sandbox_host.runtime.recorded import Record
    from sandbox_host.runtime.rehearsal import Rehearsal
    from sandbox_host.runtime.reloading import Probe
    from sandbox_host.supervision.lifecycle import PluginLife
    from sandbox_host.supervision.restart import RestartPolicy

_log = logging.getLogger("sandbox_host")

_PAUSE_SECONDS: Final = 0.01
_DYING_SECONDS: Final = 2.0

_open_hosts: weakref.WeakSet[HostCore] = weakref.WeakSet()


def _forget_hosts() -> None:
    for host in list(_open_hosts):
        host.forget()


# A fork copies the memory, not the threads: the copy must not stop the original's plugins.
os.register_at_fork(after_in_child=_forget_hosts)


class HostCore(Audience):
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
            self._supervisor = Supervisor(self.lives)
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

    def _check_open(self) -> None:
        if self._copied:
            text = "This host belongs to the process that this one was forked from."
            raise UsageError(text, remedy="Make a host of its own after the fork.")
        if not self._accepting:
            text = "The host is not open; use it in a `with` block."
            raise UsageError(text)

    def forget(self) -> None:
        """Belong to nobody: this is a forked copy, and threads and children are the original's."""
        self._copied = True
        self._workspace.locks.forget()
        self._services.copied()
        self._events.forget()
        for process in self._plugins.values():
            process.copied = True

    # -- plugins ----------------------------------------------------------------------------

    def load(
        self,
        path: str | os.PathLike[str],
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
        instance: Instance | None = None,
    ) -> PluginProcess:
        """Verify, admit, confine, attest and start the plugin in a directory.

        Args:
            path: where it is, or its archive.
            downgrades: the operator's word for versions that history speaks against.
            record: where to record what is said to it and by it; None records nothing.
            restart: when to start it again where it ends by itself; None leaves it as it is then.
            instance: which of several it is to be; None for the plugin itself.

        Raises:
            RecordingError: that file cannot be made; nothing was executed.
            RefusedError: it was not admitted; nothing of it was executed.
            TrustStoreError: the trust store cannot be used; nothing was executed.
            HistoryError: what was admitted before cannot be used; nothing was executed.
            ConfinementError: a layer of confinement is missing, or the watchdog has broken down;
                nothing was executed.
            AttestationError: it was not confined as planned; nothing was executed.
            DependencyError: what is loaded of what it needs will not do; nothing was executed.
            PluginError: it was admitted, and did not become ready.
        """
        check = self._dependencies.check_one
        process = self._load_watched(path, downgrades, record, restart, check, instance)
        self._tell_lacking(process)
        return process

    def load_all(
        self,
        paths: Iterable[str | os.PathLike[str]],
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
        *,
        others: Iterable[tuple[Manifest, str]] = (),
        heed: Heed | None = None,
    ) -> Loaded:
        """Load plugins in the order of what they need; see `SandboxHost.load_all`.

        Args:
            paths: where they are.
            downgrades: as of `load`.
            record: likewise.
            restart: likewise.
            others: verified ones that are there and not to run, with the reasons.
            heed: is told of each plugin that was or was not started; False begins no more.
        """
        self._check_open()
        check = self._dependencies.check_strictly
        group = Group(
            lambda path: self._launcher.look(path, downgrades).manifest,
            lambda path: self._load_watched(path, downgrades, record, restart, check),
            self._dependencies,
            heed,
        )
        return group.load([Path(path) for path in paths], others)

    def load_strictly(
        self, path: str | os.PathLike[str], restart: RestartPolicy | None = None
    ) -> PluginProcess:
        """Load a plugin as `load`, but only if everything that it needs runs.

        Raises:
            DependencyError: something of that does not; nothing was executed.
        """
        return self._load_watched(path, (), None, restart, self._dependencies.check_strictly)

    def _load_watched(
        self,
        path: str | os.PathLike[str],
        downgrades: Collection[Downgrade],
        record: Record | None,
        restart: RestartPolicy | None,
        check: Callable[[Manifest], None],
        instance: Instance | None = None,
    ) -> PluginProcess:
        process = self._load(path, downgrades, record, check, instance)
        self._supervisor.forget(process.identity)
        if restart is not None:
            again = functools.partial(self._load, path, downgrades, instance=instance)
            self._supervisor.watch(self.slot(process), again, restart)
        return process

    def _tell_lacking(self, process: PluginProcess) -> None:
        for lack in self._dependencies.lacking(process.plan.manifest):
            _log.warning("%s runs without something that it needs: %s", process.identity, lack)
            self._journal.append("dependency_missing", process.identity, lack[:500])

    def _load(
        self,
        path: str | os.PathLike[str],
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        check: Callable[[Manifest], None] | None = None,
        instance: Instance | None = None,
    ) -> PluginProcess:
        """Load it; without `check`, because another process of it is to take an ended one's place.

        Raises:
            DependencyError: what it needs, or who needs it, speaks against that.
        """
        self._check_open()
        self._keeper.check()
        check = check or self._dependencies.check_version
        with self.lives.arrive() as arrival:
            plan, bundle = self._launcher.admit(Path(path), downgrades, arrival.verified, instance)
            with self._reserved(plan.identity), begun_recording(record, plan) as recorder:
                self._check_needs(check, plan.manifest)
                arrival.starting()
                process = self._launcher.start(plan, bundle, self)
                if recorder is not None:
                    process.record(recorder)
                with self._lock:
                    again = self._plugins.pop(plan.identity, None) is not None
                    self._plugins[plan.identity] = process  # the last one now, in load order
                try:
                    check(plan.manifest)  # again: whoever unloads sees it from now on
                    self._become_ready(process, again=again)
                except BaseException as error:
                    self._give_up(process, error)
                    raise
                arrival.ready()
        self._tell("plugin_loaded", {"plugin": plan.identity})
        return process

    def _become_ready(self, process: PluginProcess, *, again: bool) -> None:
        self._disk.add(process)
        self._launcher.become_ready(process)
        self._register(process)
        self._chronicle.started(process, again=again)
        self.slot(process).take(process)

    def _check_needs(self, check: Callable[[Manifest], None], manifest: Manifest) -> None:
        try:
            check(manifest)
        except PluginError as error:
            self._journal.append("start_failed", manifest.identity, error.message[:500])
            raise

    def _settled(self, process: PluginProcess) -> PluginProcess:
        """Return the plugin's process when none is being started any more: again, or beside it.

        Who unloads it would else end the old one, and have the new one run.
        """
        until = time.monotonic() + self.config.start_timeout_seconds
        while time.monotonic() < until:
            with self._lock:
                if process.identity not in self._starting:
                    return self._plugins.get(process.identity, process)
            time.sleep(_PAUSE_SECONDS)
        return process

    @contextlib.contextmanager
    def _reserved(self, identity: str, beside: PluginProcess | None = None) -> Iterator[None]:
        """Hold the name while it is loaded, so that two loads of one plugin cannot both start.

        Args:
            identity: the name.
            beside: the process that may run, and has to.
        """
        with self._lock:
            self._check_open()
            current = self._plugins.get(identity)
            if beside is not None and current is beside and identity not in self._starting:
                current = None
            if identity in self._starting or (current and current.state not in ENDED):
                text = f"{identity} is loaded already."
                remedy = "Unload it first; two names of one snake-case form are one plugin."
                raise AlreadyLoadedError(text, plugin=identity, remedy=remedy)
            if current and not current.gone:
                raise _lives_on(AlreadyLoadedError, current)
            self._starting.add(identity)
        try:
            yield
        finally:
            with self._lock:
                self._starting.discard(identity)

    def _register(self, process: PluginProcess, instead_of: PluginProcess | None = None) -> None:
        """Deliver to its handlers what they handle, unless it has ended meanwhile."""
        talk = process.talk
        old = instead_of.talk if instead_of is not None else None
        before = (old.events.deliver, old.leave) if old is not None else None
        self._broker.register(process.handles, talk.events.deliver, talk.relieve, before)
        self._health.add(process)
        if process.ended.is_set():  # it unregistered before it was registered
            self._broker.unregister(process.talk.events.deliver)
            self._health.ended(process)

    def _give_up(self, process: PluginProcess, error: BaseException) -> None:
        """End a plugin that did not become ready, and forget it."""
        identity = process.identity
        text = f"{identity} did not start: {type(error).__name__}."
        if isinstance(error, SandboxHostError):
            text = error.message
        process.end(Ending(Cause.START_FAILED, text), at_once=True)
        process.ended.wait(self.config.stop_timeout_seconds)
        with self._lock:
            if self._plugins.get(identity) is process:
                del self._plugins[identity]
        with contextlib.suppress(SandboxHostError):
            self._journal.append("start_failed", identity, str(error)[:500])

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

    def unload(self, name: str, *, dependants: bool = False) -> tuple[str, ...]:
        """Let the plugin finish, clean up and leave; end it at the stop timeout.

        Args:
            name: the plugin's, in whichever spelling.
            dependants: unload those that need it before it.

        Returns:
            Who was unloaded, in that order.

        Raises:
            PluginNotFoundError: none of that name is loaded.
            NeededError: others need it, and are to stay.
            PluginError: a process could not be ended.
        """
        self._check_open()
        identity = self.get(name).identity
        if plugin_of(identity)[1]:
            self.put_out(identity)  # others need the plugin, whichever process of it that is
            return (identity,)
        with self._dependencies.leaving(identity, dependants=dependants) as levels:
            stop_in_levels(levels, self.put_out)
        return tuple(one for level in levels for one in level)

    def put_out(self, name: str) -> None:
        """Unload one whatever needs it."""
        process = self.get(name)
        self._supervisor.forget(process.identity)
        process = self._settled(process)
        if not self.lives.step(process.identity, Trigger.STOP):
            self.lives.forget(process.identity)
        process.stop(self.config.stop_timeout_seconds, Cause.UNLOADED)
        if not process.gone:
            raise _lives_on(PluginError, process)
        self._janitor.submit(lambda: None).result()  # its files are gone when this returns
        with self._lock:
            if self._plugins.get(process.identity) is process:
                del self._plugins[process.identity]

    def reload(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        downgrades: Collection[Downgrade] = (),
        probe: Probe | None = None,
        rehearsal: Rehearsal | None = None,
    ) -> PluginProcess:
        """Have another version take a running plugin's place; see `SandboxHost.reload`."""
        self._check_open()
        self._keeper.check()
        old = self.get(name)
        source = Path(path) if path is not None else old.places.code[0]
        candidate = Candidate(old, self._launcher, source)
        update = Update(old.identity, self._chronicle.tell)
        with self._reserved(old.identity, beside=old), update:
            plan, bundle = candidate.admit(downgrades)
            self._check_needs(self._dependencies.check_reload, plan.manifest)
            if rehearsal is not None:
                candidate.rehearse(rehearsal, bundle, self.config)
            update.starting(plan.manifest.version)
            new = self._launcher.start(plan, bundle, self, beside=True)
            try:
                self._disk.add(new)
                self._launcher.become_ready(new)
                update.started()
                candidate.prove(new, probe)
                self._chronicle.started(new, again=True)
                with handed_over(old, new, self.slot(old), update):
                    self._dependencies.check_reload(plan.manifest)  # before it is remembered
                    candidate.remember()
                    self._swap(old, new)
                    update.swapped()
            except BaseException as error:
                self._give_up(new, error)
                raise
        self.lives.replace(new.identity)
        again = functools.partial(self._load, source, downgrades, instance=old.plan.instance)
        self._supervisor.renew(new, again)
        self._tell_lacking(new)
        self._tell("plugin_loaded", {"plugin": new.identity})
        drain(old, self.config.stop_timeout_seconds)
        update.drained()
        return new

    def _swap(self, old: PluginProcess, new: PluginProcess) -> None:
        """Give one process the place of another, for calls and events that come from now on."""
        with self._lock:
            if self._plugins.get(new.identity) is not old or old.state is State.DRAINING:
                text = f"{old.identity} was unloaded meanwhile; its new version was not taken."
                raise ReloadError(text, plugin=old.identity)
            self._dependencies.check_reload(new.plan.manifest)  # others were loaded meanwhile
            self._plugins[new.identity] = new
        self._register(new, instead_of=old)
        self.slot(new).take(new)

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
        try:
            process.release()
        except Exception:  # noqa: BLE001 - nobody waits for this who could do more
            _log.exception("%s: not everything could be given back", process.identity)


def _remove(places: Places) -> None:
    with contextlib.suppress(SandboxHostError):
        stage.remove(places.package_dir)
    remove_tree(places.scratch_dir)


def _lives_on(kind: type[PluginError], process: PluginProcess) -> PluginError:
    """Return the error for whoever wants a plugin gone that cannot be ended."""
    identity, pid = process.identity, process.receipt.pid
    text = f"{identity} still has a process ({pid}), which was killed and has not ended."
    remedy = "Find out what holds that process; then try again, or restart the application."
    return kind(text, plugin=identity, remedy=remedy)

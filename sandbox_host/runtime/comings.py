"""Plugins that come into a host, leave it, and take another one's place."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import (
    AlreadyLoadedError,
    PluginError,
    ReloadError,
    SandboxHostError,
)
from sandbox_host.model import Cause, State, plugin_of
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.dependencies import stop_in_levels
from sandbox_host.runtime.group import Group
from sandbox_host.runtime.keeper import Keeper
from sandbox_host.runtime.launch import Launcher
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.runtime.process import PluginProcess
from sandbox_host.runtime.recorded import begun_recording
from sandbox_host.runtime.reloading import Candidate, drain, handed_over
from sandbox_host.runtime.residents import Residents
from sandbox_host.runtime.updates import Update
from sandbox_host.supervision.lifecycle import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.admission.instances import Instance
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.group import Heed, Loaded
    from sandbox_host.runtime.members import Members
    from sandbox_host.runtime.recorded import Record
    from sandbox_host.runtime.rehearsal import Rehearsal
    from sandbox_host.runtime.reloading import Probe
    from sandbox_host.supervision.restart import RestartPolicy

_log = logging.getLogger("sandbox_host")

_PAUSE_SECONDS: Final = 0.01


class Comings(Residents):
    """Loads, unloads and reloads plugins. Methods may be called from any thread."""

    _launcher: Launcher
    _keeper: Keeper
    _starting: set[str]

    # -- one that comes ---------------------------------------------------------------------

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
        members: Members | None = None,
    ) -> Loaded:
        """Load plugins in the order of what they need; see `SandboxHost.load_all`.

        Args:
            paths: where they are.
            downgrades: as of `load`.
            record: likewise.
            restart: likewise.
            others: verified ones that are there and not to run, with the reasons.
            heed: is told of each plugin that was or was not started; False begins no more.
            members: which instances of each there are to be; None for the plugins themselves.
        """
        self._check_open()
        check = self._dependencies.check_strictly

        def look(path: Path) -> Manifest:
            manifest = self._launcher.look(path, downgrades).manifest
            return manifest if members is None else members.read(path, manifest)

        def load(path: Path, instance: Instance | None = None) -> PluginProcess:
            return self._load_watched(path, downgrades, record, restart, check, instance)

        group = Group(
            look,
            load if members is None else functools.partial(members.load, load),
            self._dependencies,
            heed,
        )
        return group.load([Path(path) for path in paths], others)

    def load_strictly(
        self,
        path: str | os.PathLike[str],
        restart: RestartPolicy | None = None,
        instance: Instance | None = None,
    ) -> PluginProcess:
        """Load a plugin as `load`, but only if everything that it needs runs.

        Raises:
            DependencyError: something of that does not; nothing was executed.
        """
        check = self._dependencies.check_strictly
        return self._load_watched(path, (), None, restart, check, instance)

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

    # -- one that goes ----------------------------------------------------------------------

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
        return self.unload_of(identity, (identity,), dependants=dependants)

    def unload_of(
        self, plugin: str, processes: Sequence[str], *, dependants: bool = True
    ) -> tuple[str, ...]:
        """Unload some processes of a plugin; who needs it goes before the last of them.

        Args:
            plugin: its identity.
            processes: theirs, at least one.
            dependants: unload those that need it; else they refuse it.

        Returns:
            Who was unloaded, in that order.

        Raises:
            PluginNotFoundError: none of these is loaded.
            NeededError: others need it, and are to stay.
            PluginError: a process could not be ended.
        """
        self._check_open()
        gone: dict[str, Sequence[str]] = {}

        def stop(one: str) -> None:
            every = [p.identity for p in self.plugins() if p.plan.manifest.identity == one]
            gone[one] = list(processes) if one == plugin else sorted(every) or [one]
            stop_in_levels((tuple(gone[one]),), self.put_out)

        with self._dependencies.leaving(plugin, processes, dependants=dependants) as levels:
            stop_in_levels(levels, stop)
        return tuple(name for level in levels for one in level for name in gone[one])

    def put_out(self, name: str) -> None:
        """Unload one whatever needs it."""
        process = self.get(name)
        self._supervisor.forget(process.identity)
        self._put_out(self._settled(process))

    def _put_out(self, process: PluginProcess) -> None:
        if not self.lives.step(process.identity, Trigger.STOP):
            self.lives.forget(process.identity)
        process.stop(self.config.stop_timeout_seconds, Cause.UNLOADED)
        if not process.gone:
            raise _lives_on(PluginError, process)
        self._janitor.submit(lambda: None).result()  # its files are gone when this returns
        with self._lock:
            if self._plugins.get(process.identity) is process:
                del self._plugins[process.identity]

    # -- a new version ----------------------------------------------------------------------

    def reload(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        downgrades: Collection[Downgrade] = (),
        probe: Probe | None = None,
        rehearsal: Rehearsal | None = None,
        instance: Instance | None = None,
    ) -> PluginProcess:
        """Have another version take a running plugin's place; see `SandboxHost.reload`.

        An instance stays what it is, unless it is to be another one of the same name.
        """
        self._check_open()
        self._keeper.check()
        old = self.get(name)
        source = Path(path) if path is not None else old.places.code[0]
        candidate = Candidate(old, self._launcher, source, instance or old.plan.instance)
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
        again = functools.partial(self._load, source, downgrades, instance=new.plan.instance)
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


def _lives_on(kind: type[PluginError], process: PluginProcess) -> PluginError:
    """Return the error for whoever wants a plugin gone that cannot be ended."""
    identity, pid = process.identity, process.receipt.pid
    text = f"{identity} still has a process ({pid}), which was killed and has not ended."
    remedy = "Find out what holds that process; then try again, or restart the application."
    return kind(text, plugin=identity, remedy=remedy)

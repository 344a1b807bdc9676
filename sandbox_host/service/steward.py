"""Does what a watched plugin directory says: loads, reloads and unloads, each plugin by itself.

The last word about a plugin counts. What is done is always the way from what runs to what should
run, so that words which came meanwhile, twice or not at all, change nothing about the end. Plugins
are worked on at the same time, one never by two. One that needs another waits until that runs, and
what waits is looked at again whenever something else runs than before. Who needs what is to go,
goes before it, and waits. A plugin of which instances are declared is these, each by itself: the
last word about the plugin is about all of them, and one that is not declared any more goes when the
others have come.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandbox_host.catalog.roster import ChangeKind
from sandbox_host.errors import (
    DependencyError,
    PluginNotFoundError,
    ReloadError,
    SandboxHostError,
)
from sandbox_host.model import State, identity_of, plugin_of
from sandbox_host.reading import escaped, sentence
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.service.declared import Declared
from sandbox_host.service.troubles import MAX_REASON, Troubles
from sandbox_host.service.waiting import Target, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from sandbox_host.catalog.roster import Change, Judged
    from sandbox_host.runtime.blocking import BlockingPlugin
    from sandbox_host.service.hosting import ServedHost
    from sandbox_host.supervision.restart import RestartPolicy

_log = logging.getLogger("sandbox_host")

_WORKERS: Final = 4
_NOT_THERE: Final = "it is in [instances] or [replicas], and no plugin of that name is there."
_RUNS: Final = frozenset({ChangeKind.ADDED, ChangeKind.CHANGED, ChangeKind.ENABLED})
_ENDS: Final = frozenset({ChangeKind.REMOVED, ChangeKind.DISABLED})
_TOLD: Final = frozenset({ChangeKind.REFUSED, ChangeKind.RESTLESS, ChangeKind.WATCH})


class Steward:
    """Keeps what runs in step with one plugin directory.

    Args:
        host: runs the plugins.
        restart: for what it loads; None for no restarts.
        tell: is told what was done and what failed, in a line for people each.
        declared: which instances there are to be.

    Attributes:
        declared: the same.
    """

    def __init__(
        self,
        host: ServedHost,
        restart: RestartPolicy | None,
        tell: Callable[[str], object],
        declared: Declared | None = None,
    ) -> None:
        self.declared = declared or Declared()
        self._host = host
        self._restart = restart
        self._tell = tell
        self._lock = threading.RLock()
        self._targets: dict[str, Target] = {}
        self._busy: set[str] = set()
        self._own: dict[str, Path] = {}
        self._parted: set[str] = set()
        self._leaving: dict[str, Target] = {}
        self._troubles = Troubles()
        self._waiting = Waiting()
        self._seen: object = None
        self._looked = False
        self._others: set[str] = set()
        self._workers = ThreadPoolExecutor(_WORKERS, "sandbox-host-steward")
        self._idle = threading.Condition(self._lock)
        self._closing = False

    # -- what is known from the start -------------------------------------------------------

    def loaded(self, identity: str, path: Path) -> None:
        """Say that a plugin of the directory, or an instance of it, is loaded already."""
        self._own[identity] = path
        self._share(plugin_of(identity)[0])

    def failed(self, path: Path, reason: str, instance: str = "") -> None:
        """Say that what lies there was tried, and why it does not run: nobody is told again."""
        self._troubles.add(path, reason, instance)

    def waits(self, identity: str, path: Path, reason: str) -> None:
        """Say that what lies there waits for what it needs: nobody is told of that again."""
        for one in self.declared.members(identity):
            self._waiting.wait(one, path, reason)

    def disowned(self, name: str) -> None:
        """Say that an operator unloaded a plugin: its files do not bring it back until changed."""
        identity = identity_of(name)
        with self._lock:
            self._own.pop(identity, None)
            self._parted.add(identity)
            self._waiting.give_up(identity, "its operator unloaded it")

    def lost(self, names: Iterable[str]) -> None:
        """Say that plugins were unloaded because one that they need was: they wait for that."""
        with self._lock:
            for name in names:
                self._own.pop(name, None)
                if (target := self._waiting.wanted.get(name)) is not None:
                    self._waiting.wait(name, target.path)
        self._again()

    def retry(self) -> None:
        """Say that what failed may do better now: the configuration is another."""
        with self._lock:
            self._troubles.clear()

    def declare(self, declared: Declared) -> None:
        """Take what is declared now: it counts from the next word about each plugin on."""
        with self._lock:
            self._others |= declared.differing(self.declared)
            self.declared = declared

    def look_again(self) -> None:
        """Have what is declared run where no watch says anything, from where the plugin lies."""
        running = self._host.plugins
        with self._lock:
            self._looked = True
            others, self._others = self._others, set()
            for identity, path in sorted(self._own.items()):
                plugin = plugin_of(identity)[0]
                one = running.get(identity)
                if plugin in others and one is not None:
                    others.discard(plugin)
                    target = Target(path, one.plan.root_digest, manifest=one.plan.manifest)
                    self._aim_all(plugin, target)

    @property
    def problems(self) -> dict[str, str]:
        """Why what lies in the directory does not run, by path; without what is gone."""
        with self._lock:
            return self._troubles.all()

    @property
    def waiting(self) -> list[dict[str, str]]:
        """What waits for other plugins, or is declared and not there: name, path, and for what."""
        here = {plugin_of(identity)[0] for identity in self._host.plugins}
        with self._lock:
            found = [
                {"plugin": identity, "path": str(one.path), "reason": one.why}
                for identity, one in sorted(self._waiting.waits.items())
                if one.why and os.path.lexists(one.path)
            ]
            here |= self._waiting.plugins() | {plugin_of(one)[0] for one in self._own}
            missing = self.declared.plugins - here if self._looked else ()
        return [*found, *({"plugin": o, "path": "", "reason": _NOT_THERE} for o in sorted(missing))]

    def tend(self) -> None:
        """See whether something runs now that others wait for; to be called again and again."""
        if not self._waiting.waits:
            return
        ones = self._host.plugins.values()
        seen = frozenset((one.name, one.version, one.state is State.READY) for one in ones)
        if seen == self._seen:
            return
        self._seen = seen
        running = {name for name, _, ready in seen if ready}
        with self._lock:
            for identity in self._waiting.waits.keys() - self._waiting.wanted.keys():
                if identity in running:  # an operator loaded it
                    self._waiting.forget(identity)
        self._again()

    # -- what the watch says ----------------------------------------------------------------

    def take_first(self, changes: Iterable[Change], *, load: bool) -> None:
        """Take what the first look found: what was tried is not tried, nor told, again.

        Args:
            changes: of `PluginWatch.look`.
            load: whether what is not loaded is to be.
        """
        with self._lock:  # nothing begins before all is known: chains would end too soon
            self._take_first(changes, load=load)

    def _take_first(self, changes: Iterable[Change], *, load: bool) -> None:
        self._looked = True
        for change in changes:
            if change.kind in _TOLD:
                if not self._troubles.get(change.path):
                    self.take(change)
                continue
            left_out = self._left_out(change, load=load)
            for identity, why in left_out.items():
                self._waiting.fail(identity, change.manifest, why)
            if left_out.keys() != self.declared.members(change.identity).keys():
                self._take(change, left_out)

    def _left_out(self, change: Change, *, load: bool) -> dict[str, str]:
        """Return what of a plugin is not to be tried now, with the reasons."""
        left_out: dict[str, str] = {}
        if change.kind is not ChangeKind.ADDED:
            return left_out
        load = load or any(plugin_of(one)[0] == change.identity for one in self._own)
        off = "" if change.enabled else change.reason
        for identity in self.declared.members(change.identity):
            known = self._troubles.get(change.path, identity)
            tried = load or identity in self._waiting.waits
            if identity not in self._own and (known or not tried or identity in self._parted):
                left_out[identity] = known or off or "it was not loaded"
        return left_out

    def settle(self, present: Iterable[Judged]) -> None:
        """Unload what was loaded from the directory, and is gone from it or disabled.

        For a watch that was begun anew: what happened in between nobody told.
        """
        enabled = {one.identity for one in present if one.enabled}
        known = {one.identity for one in present}
        for identity, path in list(self._own.items()):
            plugin = plugin_of(identity)[0]
            gone = plugin not in known and not os.path.lexists(path)
            if gone or (plugin in known and plugin not in enabled):
                why = "it is gone" if gone else "it is disabled"
                self._aim(identity, Target(path, "", why, disabled=not gone))

    def take(self, change: Change) -> None:
        """Take one change; what follows is done elsewhere."""
        if change.kind in _TOLD:
            self._take_trouble(change)
        else:
            self._take(change, ())

    def _take(self, change: Change, left_out: Collection[str]) -> None:
        """Take one change, but for what of the plugin is not to be tried."""
        with self._lock:
            every = {*self.declared.members(change.identity), *self._known(change.identity)}
            self._parted -= every.difference(left_out)
            if not left_out:
                self._troubles.forget(change.path)
            runs = change.kind is ChangeKind.ENABLED or change.enabled
            if change.kind in _RUNS and runs:
                target = Target(change.path, change.digest, manifest=change.manifest)
                self._aim_all(change.identity, target, left_out)
            elif change.kind in _ENDS or change.kind in _RUNS:
                why = change.reason or f"it was {change.kind}"
                there = change.kind is not ChangeKind.REMOVED
                target = Target(change.path, "", why, change.manifest, disabled=there)
                for identity in sorted(every):
                    self._leaving.pop(identity, None)
                    self._aim(identity, target, there=there)

    def _known(self, plugin: str) -> set[str]:
        """Return what of a plugin runs of the directory's, or is to."""
        ones = (*self._own, *self._waiting.wanted)
        return {identity for identity in ones if plugin_of(identity)[0] == plugin}

    def _aim_all(self, plugin: str, target: Target, left_out: Collection[str] = ()) -> None:
        """Have what is declared of a plugin run, and nothing else of it; with the lock held."""
        members = self.declared.members(plugin)
        for identity in self._known(plugin) - members.keys():
            self._waiting.forget(identity)
            why = "instances of it are declared" if identity == plugin else "it is not declared"
            self._leaving[identity] = replace(target, digest="", why=why)
        for identity, instance in members.items():
            self._leaving.pop(identity, None)
            if identity not in left_out:
                self._aim(identity, replace(target, instance=instance))
        self._begin_leaving(plugin)

    def _begin_leaving(self, plugin: str) -> None:
        """End what is not declared any more, once the others have come; with the lock held."""
        if plugin not in {plugin_of(identity)[0] for identity in self._busy}:
            for identity in [i for i in self._leaving if plugin_of(i)[0] == plugin]:
                self._begin(identity, self._leaving.pop(identity))

    def _take_trouble(self, change: Change) -> None:
        with self._lock:
            self._troubles.forget(change.path)
            if change.reason:
                self._troubles.add(change.path, change.reason)
        reason = change.reason or "it is watched as it should be again"
        self._tell(sentence(f"{escaped(str(change.path), MAX_REASON)}: {reason}"))

    def _aim(self, identity: str, target: Target, *, there: bool = True) -> None:
        with self._lock:
            before = self._waiting.waits.get(identity)
            self._waiting.aim(identity, target, there=there)
            if before is not None and target.digest:
                self._waiting.wait(identity, target.path, before.why)  # was told already
            self._begin(identity, target)

    def _again(self) -> None:
        """Try what waits once more: something else runs, or does not run any more."""
        with self._lock:
            for identity in list(self._waiting.waits):
                target = self._waiting.wanted.get(identity)
                if target is not None and identity not in self._targets:
                    self._begin(identity, target)

    def _begin(self, identity: str, target: Target) -> None:
        """Work on a plugin, or have whoever does see that there is more; with the lock held."""
        if self._closing:
            return
        self._targets[identity] = target
        if identity not in self._busy:
            self._busy.add(identity)
            self._workers.submit(self._work, identity)

    # -- what is done -----------------------------------------------------------------------

    def _work(self, identity: str) -> None:
        while True:
            with self._lock:
                target = self._targets.pop(identity, None)
                if target is None or self._closing:
                    self._busy.discard(identity)
                    self._begin_leaving(plugin_of(identity)[0])
                    self._idle.notify_all()
                    return
            changed = True
            try:
                changed = self._reach(identity, target)
            except SandboxHostError as error:
                self._failed(identity, target, str(error))
            except Exception as error:  # noqa: BLE001 - a fault with one must not stop the others
                _log.exception("%s could not be brought up to date", identity)
                fault = f"a fault of the host's: {type(error).__name__}: {error}"
                self._failed(identity, target, fault)
            if changed:
                self._again()

    def _failed(self, identity: str, target: Target, why: str) -> None:
        if self._closing:
            return
        with self._lock:
            instance = identity if target.instance is not None else ""
            self._troubles.add(target.path, why, instance)
            self._waiting.fail(identity, target.manifest, why)
        of = f"{instance}, of " if instance else ""
        self._tell(f"{of}{escaped(str(target.path), MAX_REASON)}: {why}")

    def _waits(self, identity: str, target: Target, why: str, *, told: bool = True) -> bool:
        """Note that it waits; tell whether that is news, also for those that need it."""
        with self._lock:
            if self._waiting.wanted.get(identity) is not target:
                return False  # there is another word about it
            self._troubles.forget(target.path, identity if target.instance is not None else "")
            news = self._waiting.wait(identity, target.path, escaped(why, MAX_REASON))
        if news and told:
            self._tell(f"{escaped(str(target.path), MAX_REASON)}: {why}")
        return news

    def _reach(self, identity: str, target: Target) -> bool:
        """Go from what runs to what should run; tell whether anything was done.

        Raises:
            SandboxHostError: it could not be done, and trying again will not help.
        """
        running = self._host.plugins.get(identity)
        if not target.digest:
            self._end(identity, target, runs=running is not None)
            return True  # who waits for it may have another reason now
        if why := self._host.quarantined(identity):
            # Not even other files lead out of there: whoever writes the plugin makes those.
            text = f"{identity} is in quarantine: {sentence(why)}"
            text += f" `sandbox-host release {identity}` starts it."
            self._failed(identity, target, text)
            return True
        ended = running is None or running.state in ENDED
        if running is not None and not ended and _is_as_wanted(running, target):
            self._runs(identity, target)
            return False
        replica = bool(self.declared.replicas(plugin_of(identity)[0]))
        try:
            if running is not None and running.state is State.READY:
                if target.manifest is not None:
                    self._host.check_reload(target.manifest)
                self._host.renew(identity, target.path, instance=target.instance, replica=replica)
                what = "reloaded"
            else:
                why, told = self._obstacle(identity, target)
                if why:
                    return self._waits(identity, target, why, told=told)
                if running is not None:
                    self._make_room(identity, ended=ended)
                self._host.load_strictly(
                    target.path,
                    restart=self._restart,
                    instance=target.instance,
                    replica=replica,
                )
                what = "loaded"
        except (DependencyError, ReloadError) as error:
            if isinstance(error, ReloadError) and not error.dependants:
                raise
            return self._waits(identity, target, str(error))
        self._runs(identity, target)
        self._tell(f"{identity}: {what} {self._host.plugin(identity).version}.")
        return True

    def _runs(self, identity: str, target: Target) -> None:
        with self._lock:
            self._own[identity] = target.path
            self._waiting.runs(identity)
            self._troubles.forget(target.path, identity if target.instance is not None else "")
        self._share(plugin_of(identity)[0])

    def _share(self, plugin: str) -> None:
        """Have calls of a plugin's name go to its replicas, where there are any."""
        self._host.share(plugin, self.declared.replicas(plugin))

    def _end(self, identity: str, target: Target, *, runs: bool) -> None:
        plugin = plugin_of(identity)[0]
        if runs and identity in self._own:
            self._unload(identity, target.why)
        if target.disabled:
            if names := self._host.processes_of(plugin):  # by hand, but of what is disabled
                self._unload_all(names, target.why)
            self._host.disabled(plugin, target.why)

    def _obstacle(self, identity: str, target: Target) -> tuple[str, bool]:
        """Return what keeps it from starting now, and whether that is worth telling."""
        standing = self._host.standing()
        with self._lock:
            if self._waiting.wanted.get(identity) is not target:
                return "there is another word about it", False
            return self._waiting.obstacle(identity, standing)

    def _make_room(self, identity: str, *, ended: bool) -> None:
        if not ended:
            self._unload(identity, "another version is there")
            return
        # Waits for its restart, perhaps: with the files as they are now.
        with contextlib.suppress(PluginNotFoundError):
            self._host.put_out(identity)

    def _unload(self, identity: str, why: str) -> None:
        self._own.pop(identity, None)
        self._unload_all((identity,), why)

    def _unload_all(self, identities: Sequence[str], why: str) -> None:
        """Unload processes of one plugin, and with the last of it those that need it."""
        plugin = plugin_of(identities[0])[0]
        names: tuple[str, ...] = ()
        with contextlib.suppress(PluginNotFoundError):
            names = self._host.unload_of(plugin, identities)
        lost = [name for name in names if name not in identities]
        for name in lost:
            self._tell(f"{name}: unloaded, because {plugin}, which it needs, is.")
        for identity in identities:
            self._tell(f"{identity}: unloaded, because {sentence(why)}")
        self._share(plugin)
        self.lost(lost)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is being done; tell whether that was so in time. For tests."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._busy, seconds)

    def close(self) -> None:
        """Begin nothing any more; what is being done ends with the host."""
        with self._lock:
            self._closing = True
            self._targets.clear()
        self._workers.shutdown(wait=False, cancel_futures=True)


def _is_as_wanted(running: BlockingPlugin, target: Target) -> bool:
    plan = running.plan
    return plan.root_digest == target.digest and plan.instance == target.instance

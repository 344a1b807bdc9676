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

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandbox_host.catalog.roster import ChangeKind
from sandbox_host.model import State, identity_of, plugin_of
from sandbox_host.reading import escaped, sentence
from sandbox_host.service.declared import Declared
from sandbox_host.service.errands import Errands
from sandbox_host.service.troubles import MAX_REASON
from sandbox_host.service.waiting import Target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from sandbox_host.catalog.roster import Change, Judged

_NOT_THERE: Final = "it is in [instances] or [replicas], and no plugin of that name is there."
_RUNS: Final = frozenset({ChangeKind.ADDED, ChangeKind.CHANGED, ChangeKind.ENABLED})
_ENDS: Final = frozenset({ChangeKind.REMOVED, ChangeKind.DISABLED})
_TOLD: Final = frozenset({ChangeKind.REFUSED, ChangeKind.RESTLESS, ChangeKind.WATCH})


class Steward(Errands):
    """Keeps what runs in step with one plugin directory: says what should run; see `Errands`."""

    # -- what is known from the start -------------------------------------------------------

    def loaded(self, identity: str, path: Path) -> None:
        """Say that a plugin of the directory, or an instance of it, is loaded already."""
        with self._lock:
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

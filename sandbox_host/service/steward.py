"""Does what a watched plugin directory says: loads, reloads and unloads, each plugin by itself.

The last word about a plugin counts. What is done is always the way from what runs to what should
run, so that words which came meanwhile, twice or not at all, change nothing about the end. Plugins
are worked on at the same time, one never by two. One that needs another waits until that runs, and
what waits is looked at again whenever something else runs than before. Who needs what is to go,
goes before it, and waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from sandbox_host.catalog.roster import ChangeKind
from sandbox_host.errors import (
    DependencyError,
    PluginNotFoundError,
    ReloadError,
    SandboxHostError,
)
from sandbox_host.model import State, identity_of
from sandbox_host.reading import escaped, sentence
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.service.waiting import Target, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sandbox_host.catalog.roster import Change, Judged
    from sandbox_host.service.hosting import ServedHost
    from sandbox_host.supervision.restart import RestartPolicy

_log = logging.getLogger("sandbox_host")

_WORKERS: Final = 4
_MAX_REASON: Final = 1_000
_RUNS: Final = frozenset({ChangeKind.ADDED, ChangeKind.CHANGED, ChangeKind.ENABLED})
_ENDS: Final = frozenset({ChangeKind.REMOVED, ChangeKind.DISABLED})
_TOLD: Final = frozenset({ChangeKind.REFUSED, ChangeKind.RESTLESS, ChangeKind.WATCH})


class Steward:
    """Keeps what runs in step with one plugin directory.

    Args:
        host: runs the plugins.
        restart: for what it loads; None for no restarts.
        tell: is told what was done and what failed, in a line for people each.
    """

    def __init__(
        self, host: ServedHost, restart: RestartPolicy | None, tell: Callable[[str], object]
    ) -> None:
        self._host = host
        self._restart = restart
        self._tell = tell
        self._lock = threading.RLock()
        self._targets: dict[str, Target] = {}
        self._busy: set[str] = set()
        self._own: dict[str, Path] = {}
        self._parted: set[str] = set()
        self._problems: dict[Path, str] = {}
        self._waiting = Waiting()
        self._seen: object = None
        self._workers = ThreadPoolExecutor(_WORKERS, "sandbox-host-steward")
        self._idle = threading.Condition(self._lock)
        self._closing = False

    # -- what is known from the start -------------------------------------------------------

    def loaded(self, identity: str, path: Path) -> None:
        """Say that a plugin of the directory is loaded already."""
        self._own[identity] = path

    def failed(self, path: Path, reason: str) -> None:
        """Say that what lies there was tried, and why it does not run: nobody is told again."""
        self._problems[path] = escaped(reason, _MAX_REASON)

    def waits(self, identity: str, path: Path, reason: str) -> None:
        """Say that what lies there waits for what it needs: nobody is told of that again."""
        self._waiting.wait(identity, path, reason)

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
            self._problems.clear()

    @property
    def problems(self) -> dict[str, str]:
        """Why what lies in the directory does not run, by path; without what is gone."""
        with self._lock:
            self._problems = {p: w for p, w in self._problems.items() if os.path.lexists(p)}
            return {str(path): why for path, why in sorted(self._problems.items())}

    @property
    def waiting(self) -> list[dict[str, str]]:
        """What of the directory waits for other plugins: name, path, and for what."""
        with self._lock:
            return [
                {"plugin": identity, "path": str(one.path), "reason": one.why}
                for identity, one in sorted(self._waiting.waits.items())
                if one.why and os.path.lexists(one.path)
            ]

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
        for change in changes:
            known = change.path in self._problems
            new = change.kind is ChangeKind.ADDED and change.identity not in self._own
            waits = change.identity in self._waiting.waits
            left_out = not (load or waits) or known or change.identity in self._parted
            if new and left_out:
                off = "" if change.enabled else change.reason
                why = self._problems.get(change.path) or off or "it was not loaded"
                self._waiting.fail(change.identity, change.manifest, why)
            if not (new and left_out) and not (known and change.kind in _TOLD):
                self.take(change)

    def settle(self, present: Iterable[Judged]) -> None:
        """Unload what was loaded from the directory, and is gone from it or disabled.

        For a watch that was begun anew: what happened in between nobody told.
        """
        enabled = {one.identity for one in present if one.enabled}
        known = {one.identity for one in present}
        for identity, path in list(self._own.items()):
            gone = identity not in known and not os.path.lexists(path)
            if gone or (identity in known and identity not in enabled):
                why = "it is gone" if gone else "it is disabled"
                self._aim(identity, Target(path, "", why, disabled=not gone))

    def take(self, change: Change) -> None:
        """Take one change; what follows is done elsewhere."""
        if change.kind in _TOLD:
            self._take_trouble(change)
            return
        with self._lock:
            self._problems.pop(change.path, None)
            self._parted.discard(change.identity)
        runs = change.kind is ChangeKind.ENABLED or change.enabled
        if change.kind in _RUNS and runs:
            target = Target(change.path, change.digest, manifest=change.manifest)
            self._aim(change.identity, target)
        elif change.kind in _ENDS or change.kind in _RUNS:
            why = change.reason or f"it was {change.kind}"
            there = change.kind is not ChangeKind.REMOVED
            target = Target(change.path, "", why, change.manifest, disabled=there)
            self._aim(change.identity, target, there=there)

    def _take_trouble(self, change: Change) -> None:
        with self._lock:
            if change.reason:
                self._problems[change.path] = escaped(change.reason, _MAX_REASON)
            else:
                self._problems.pop(change.path, None)
        reason = change.reason or "it is watched as it should be again"
        self._tell(sentence(f"{escaped(str(change.path), _MAX_REASON)}: {reason}"))

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
            self._problems[target.path] = escaped(why, _MAX_REASON)
            self._waiting.fail(identity, target.manifest, why)
        self._tell(f"{escaped(str(target.path), _MAX_REASON)}: {why}")

    def _waits(self, identity: str, target: Target, why: str, *, told: bool = True) -> bool:
        """Note that it waits; tell whether that is news, also for those that need it."""
        with self._lock:
            if self._waiting.wanted.get(identity) is not target:
                return False  # there is another word about it
            self._problems.pop(target.path, None)
            news = self._waiting.wait(identity, target.path, escaped(why, _MAX_REASON))
        if news and told:
            self._tell(f"{escaped(str(target.path), _MAX_REASON)}: {why}")
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
        if running is not None and not ended and running.plan.root_digest == target.digest:
            self._own[identity] = target.path
            with self._lock:
                self._waiting.runs(identity)
            return False
        try:
            if running is not None and running.state is State.READY:
                if target.manifest is not None:
                    self._host.check_reload(target.manifest)
                self._host.reload(identity, target.path)
                what = "reloaded"
            else:
                why, told = self._obstacle(identity, target)
                if why:
                    return self._waits(identity, target, why, told=told)
                if running is not None:
                    self._make_room(identity, ended=ended)
                self._host.load_strictly(target.path, restart=self._restart)
                what = "loaded"
        except (DependencyError, ReloadError) as error:
            if isinstance(error, ReloadError) and not error.dependants:
                raise
            return self._waits(identity, target, str(error))
        self._own[identity] = target.path
        with self._lock:
            self._waiting.runs(identity)
        self._tell(f"{identity}: {what} {self._host.plugin(identity).version}.")
        return True

    def _end(self, identity: str, target: Target, *, runs: bool) -> None:
        if runs and identity in self._own:
            self._unload(identity, target.why)
        if target.disabled:
            self._host.unload_instances(identity)
            self._host.disabled(identity, target.why)

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
        names: tuple[str, ...] = ()
        with contextlib.suppress(PluginNotFoundError):
            names = self._host.unload(identity, dependants=True)
        lost = [name for name in names if name != identity]
        for name in lost:
            self._tell(f"{name}: unloaded, because {identity}, which it needs, is.")
        self._tell(f"{identity}: unloaded, because {sentence(why)}")
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

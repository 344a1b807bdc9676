"""Has what runs of a plugin be what should run: loads, reloads and unloads, several at a time.

Plugins are worked on at the same time, one never by two, and each instance counts as one. What is
done is always the way from what runs to what should run, so that words which came meanwhile, twice
or not at all, change nothing about the end. `sandbox_host.service.steward` says what should.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import (
    DependencyError,
    PluginNotFoundError,
    ReloadError,
    SandboxHostError,
)
from sandbox_host.model import State, plugin_of
from sandbox_host.reading import escaped, sentence
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.service.declared import Declared
from sandbox_host.service.troubles import MAX_REASON, Troubles
from sandbox_host.service.waiting import Target, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sandbox_host.runtime.blocking import BlockingPlugin
    from sandbox_host.service.hosting import ServedHost
    from sandbox_host.supervision.restart import RestartPolicy

_log = logging.getLogger("sandbox_host")

_WORKERS: Final = 4


class Errands:
    """Does what is to be done for one plugin directory.

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
        self._sharing = threading.Lock()
        self._closing = False

    def lost(self, names: Iterable[str]) -> None:
        """Say that plugins were unloaded because one that they need was: they wait for that."""
        with self._lock:
            for name in names:
                self._own.pop(name, None)
                if (target := self._waiting.wanted.get(name)) is not None:
                    self._waiting.wait(name, target.path)
        self._again()

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

    def _begin_leaving(self, plugin: str) -> None:
        """End what is not declared any more, once the others have come; with the lock held."""
        if plugin not in {plugin_of(identity)[0] for identity in self._busy}:
            for identity in [i for i in self._leaving if plugin_of(i)[0] == plugin]:
                self._begin(identity, self._leaving.pop(identity))

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
        with self._sharing:  # the last one sees all that were loaded before
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
        with self._lock:
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

"""Does what a watched plugin directory says: loads, reloads and unloads, each plugin by itself.

The last word about a plugin counts. What is done is always the way from what runs to what should
run, so that words which came meanwhile, twice or not at all, change nothing about the end. Plugins
are worked on at the same time, one never by two, and none waits for another's failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.catalog.roster import ChangeKind
from sandbox_host.errors import PluginNotFoundError, SandboxHostError
from sandbox_host.model import State, identity_of
from sandbox_host.reading import escaped, sentence
from sandbox_host.runtime.lifecycle import ENDED

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


@dataclass(frozen=True, slots=True)
class Target:
    """What should be of one plugin.

    Attributes:
        path: where it lies.
        digest: of the files that should run; "" where it should not.
        why: what is told when it is ended.
        disabled: it is there, and its operator or its configuration says that it is not to run.
    """

    path: Path
    digest: str
    why: str = ""
    disabled: bool = False


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
        self._lock = threading.Lock()
        self._targets: dict[str, Target] = {}
        self._busy: set[str] = set()
        self._own: dict[str, Path] = {}
        self._parted: set[str] = set()
        self._problems: dict[Path, str] = {}
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

    def disowned(self, name: str) -> None:
        """Say that an operator unloaded a plugin: its files do not bring it back until changed."""
        with self._lock:
            self._own.pop(identity_of(name), None)
            self._parted.add(identity_of(name))

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

    # -- what the watch says ----------------------------------------------------------------

    def take_first(self, changes: Iterable[Change], *, load: bool) -> None:
        """Take what the first look found: what was tried is not tried, nor told, again.

        Args:
            changes: of `PluginWatch.look`.
            load: whether what is not loaded is to be.
        """
        for change in changes:
            known = change.path in self._problems
            new = change.kind is ChangeKind.ADDED and change.identity not in self._own
            left_out = not load or known or change.identity in self._parted
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
            self._aim(change.identity, Target(change.path, change.digest))
        elif change.kind in _ENDS or change.kind in _RUNS:
            why = change.reason or f"it was {change.kind}"
            disabled = change.kind is not ChangeKind.REMOVED
            self._aim(change.identity, Target(change.path, "", why, disabled=disabled))

    def _take_trouble(self, change: Change) -> None:
        with self._lock:
            if change.reason:
                self._problems[change.path] = escaped(change.reason, _MAX_REASON)
            else:
                self._problems.pop(change.path, None)
        reason = change.reason or "it is watched as it should be again"
        self._tell(sentence(f"{escaped(str(change.path), _MAX_REASON)}: {reason}"))

    def _aim(self, identity: str, target: Target) -> None:
        with self._lock:
            if self._closing:
                return
            self._targets[identity] = target
            if identity in self._busy:
                return
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
            try:
                self._reach(identity, target)
            except SandboxHostError as error:
                self._failed(target, str(error))
            except Exception as error:  # noqa: BLE001 - a fault with one must not stop the others
                _log.exception("%s could not be brought up to date", identity)
                self._failed(target, f"a fault of the host's: {type(error).__name__}: {error}")

    def _failed(self, target: Target, why: str) -> None:
        if self._closing:
            return
        with self._lock:
            self._problems[target.path] = escaped(why, _MAX_REASON)
        self._tell(f"{escaped(str(target.path), _MAX_REASON)}: {why}")

    def _reach(self, identity: str, target: Target) -> None:
        """Go from what runs to what should run."""
        running = self._host.plugins.get(identity)
        if not target.digest:
            if running is not None and identity in self._own:
                self._unload(identity, target.why)
            if target.disabled:
                self._host.disabled(identity, target.why)
            return
        if self._host.quarantined(identity):
            # Not even other files lead out of there: whoever writes the plugin makes those.
            text = f"{identity} is in quarantine; `sandbox-host release {identity}` starts it."
            self._failed(target, text)
            return
        ended = running is None or running.state in ENDED
        if running is not None and not ended and running.plan.root_digest == target.digest:
            self._own[identity] = target.path
            return
        if running is not None and running.state is State.READY:
            self._host.reload(identity, target.path)
            what = "reloaded"
        else:
            if running is not None and not ended:
                self._unload(identity, "another version is there")
            elif running is not None:
                # Waits for its restart, perhaps: with the files as they are now.
                with contextlib.suppress(PluginNotFoundError):
                    self._host.unload(identity)
            self._host.load(target.path, restart=self._restart)
            what = "loaded"
        self._own[identity] = target.path
        self._tell(f"{identity}: {what} {self._host.plugin(identity).version}.")

    def _unload(self, identity: str, why: str) -> None:
        self._own.pop(identity, None)
        with contextlib.suppress(PluginNotFoundError):
            self._host.unload(identity)
        self._tell(f"{identity}: unloaded, because {sentence(why)}")

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

"""Several plugins loaded together: in the order of what they need, and apart in their failures.

All are read and verified first, for an unsigned plugin.json decides nothing. Then they start in
rounds: at the same time all those whose needs run. Who fails keeps back only those that cannot do
without it, and these are told through whom.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from sandbox_host.backends.worker import each
from sandbox_host.errors import AlreadyLoadedError, SandboxHostError
from sandbox_host.runtime.dependencies import dependency_error

if TYPE_CHECKING:
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.dependencies import Dependencies
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.supervision.resolve import Resolution

STARTERS: Final = 8
"""So many are read, or started, at the same time."""

Heed = Callable[[Path, "PluginProcess | SandboxHostError"], bool]

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class LoadedAll(Generic[P]):
    """What became of plugins that were loaded together.

    Attributes:
        plugins: those that run, by name, in the order in which they were ready.
        failed: why the others do not, by path, in the order in which these were given.
    """

    plugins: dict[str, P]
    failed: dict[Path, SandboxHostError]


@dataclass(slots=True)
class Loaded:
    """What became of them.

    Attributes:
        started: those that run, in the order in which they were ready.
        failed: why the others do not, in the order of the paths.
    """

    started: dict[Path, PluginProcess] = field(default_factory=dict)
    failed: dict[Path, SandboxHostError] = field(default_factory=dict)


class Group:
    """One such load.

    Args:
        look: reads and verifies a plugin, and executes nothing of it.
        load: loads it, if everything that it needs runs.
        dependencies: of the host.
        heed: is told of each as it happens, one at a time; where it says False, no more begin.
    """

    def __init__(
        self,
        look: Callable[[Path], Manifest],
        load: Callable[[Path], PluginProcess],
        dependencies: Dependencies,
        heed: Heed | None = None,
    ) -> None:
        self._look = look
        self._load = load
        self._dependencies = dependencies
        self._heed = heed
        self._lock = threading.Lock()
        self._going_on = True
        self._loaded = Loaded()
        self._read: dict[Path, Manifest] = {}
        self._waiting: dict[str, Path] = {}
        self._broken: dict[str, tuple[Manifest, str]] = {}
        self._fault: BaseException | None = None

    def load(self, paths: list[Path], others: Iterable[tuple[Manifest, str]]) -> Loaded:
        """Load them; nothing that is wrong with one of them is raised.

        Args:
            paths: of directories and archives.
            others: verified ones that are there and will not run, with the reasons.
        """
        known = list(dict.fromkeys(paths))
        self._broken = {one.identity: (one, why) for one, why in others}
        each(self._guarded(self._read_one), known, STARTERS)
        self._tell_apart(known)
        while self._going_on and self._waiting and self._fault is None:
            resolution = self._resolve()
            due = self._due(resolution)
            if not due:
                break
            each(self._guarded(self._start_one), due, STARTERS)
        if self._fault is not None:
            raise self._fault
        if self._going_on:
            self._give_up_waiting()
        failed = self._loaded.failed
        self._loaded.failed = {path: failed[path] for path in known if path in failed}
        return self._loaded

    def _guarded(self, step: Callable[[Path], None]) -> Callable[[Path], None]:
        """Return a step that keeps a fault of ours for the end."""

        def take(path: Path) -> None:
            if not self._going_on or self._fault is not None:
                return
            try:
                step(path)
            except SandboxHostError as error:
                self._failed(path, error)
            except BaseException as error:  # noqa: BLE001 - raised by `load`
                self._fault = error

        return take

    # -- before anything starts -------------------------------------------------------------

    def _read_one(self, path: Path) -> None:
        manifest = self._look(path)
        with self._lock:
            self._read[path] = manifest

    def _tell_apart(self, paths: list[Path]) -> None:
        """Refuse two of one name, and what runs already."""
        homes: dict[str, list[Path]] = {}
        for path in paths:
            if path in self._read:
                homes.setdefault(self._read[path].identity, []).append(path)
        running = self._dependencies.taken()
        for identity, same in homes.items():
            if len(same) > 1:
                manifest = self._read[same[0]]
                self._broken[identity] = (manifest, "several plugins have its name")
                for path in same:
                    self._failed(path, _clash(identity, path, same))
            elif identity in running:
                self._failed(same[0], _loaded_already(identity))
            else:
                self._broken.pop(identity, None)
                self._waiting[identity] = same[0]

    # -- round by round ---------------------------------------------------------------------

    def _resolve(self) -> Resolution:
        standing = self._dependencies.standing()
        for identity in self._waiting.keys() & self._dependencies.taken():
            # Somebody else has loaded it meanwhile.
            self._failed(self._waiting[identity], _loaded_already(identity))
        broken = {i: (o, why) for i, (o, why) in self._broken.items() if i not in standing.running}
        coming = [self._read[path] for path in self._waiting.values()]
        coming += [one for one, _ in broken.values()]
        return standing.resolve(coming, {i: why for i, (_, why) in broken.items()})

    def _due(self, resolution: Resolution) -> list[Path]:
        """Return those that lack nobody who has yet to start."""
        able = {identity for level in resolution.levels for identity in level}
        due = []
        for identity, path in self._waiting.items():
            if identity not in able or self._waiting.keys() & set(resolution.uses(identity)):
                continue
            due.append(path)
        return due

    def _start_one(self, path: Path) -> None:
        identity = self._read[path].identity
        process = self._load(path)
        with self._lock:
            self._waiting.pop(identity, None)
            self._loaded.started[path] = process
            self._going_on = self._going_on and self._heeded(path, process)

    def _failed(self, path: Path, error: SandboxHostError) -> None:
        manifest = self._read.get(path)
        with self._lock:
            if manifest is not None and self._waiting.pop(manifest.identity, None) is not None:
                self._broken[manifest.identity] = (manifest, error.message)
            self._loaded.failed[path] = error
            self._going_on = self._going_on and self._heeded(path, error)

    def _heeded(self, path: Path, outcome: PluginProcess | SandboxHostError) -> bool:
        return self._heed is None or self._heed(path, outcome)

    def _give_up_waiting(self) -> None:
        resolution = self._resolve()
        for identity, path in list(self._waiting.items()):
            self._failed(path, dependency_error(resolution.explain(identity)))


def _loaded_already(identity: str) -> AlreadyLoadedError:
    text = f"{identity} is loaded already."
    return AlreadyLoadedError(text, plugin=identity, remedy="Reload it for another version of it.")


def _clash(identity: str, path: Path, same: list[Path]) -> AlreadyLoadedError:
    others = ", ".join(str(other) for other in same if other != path)
    text = f"{path} has the name of another one that is to be loaded: {identity}, in {others}."
    return AlreadyLoadedError(text, plugin=identity, remedy="Leave out one of them.")

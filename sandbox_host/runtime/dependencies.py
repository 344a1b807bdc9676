"""What the loaded plugins of one host need of each other: asked before each start, stop and swap.

What follows from what is decided in `sandbox_host.supervision.standing`. Here is what stands there
now, and that who comes and who goes see each other: whoever is loaded is listed first and asks
then, whoever is unloaded is marked first and asks then, so that one of them is refused.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.worker import each
from sandbox_host.errors import (
    DependencyError,
    NeededError,
    PluginError,
    PluginNotFoundError,
    ReloadError,
)
from sandbox_host.model import INSTANCE_MARK, State, plugin_of
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.supervision.problems import Missing
from sandbox_host.supervision.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sandbox_host.model import Manifest
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.supervision.problems import Problem

    Levels = tuple[tuple[str, ...], ...]

_TOLD: Final = 8
_STOPPERS: Final = 16
_BEING_UNLOADED: Final = "it is being unloaded"
_REMEDY: Final = "Load what it needs together with it, or before it."


class Dependencies:
    """Those of one host. Thread-safe.

    Args:
        processes: returns those of all loaded plugins.
        comes_back: tells of one that has ended whether another takes its place.
    """

    def __init__(
        self,
        processes: Callable[[], list[PluginProcess]],
        comes_back: Callable[[PluginProcess], bool],
    ) -> None:
        self._processes = processes
        self._comes_back = comes_back
        self._lock = threading.Lock()
        self._leaving: dict[str, int] = {}

    def standing(self) -> Standing:
        """Return who runs now, and who is loaded and does not.

        One that is started again, or is being started, counts as running: who needs it waits for
        it, or is told at its calls.
        """
        running: list[Manifest] = []
        ended: list[tuple[Manifest, str]] = []
        for process in self._processes():
            manifest, state = process.plan.manifest, process.state
            if state is State.DRAINING or self._leaves(process):
                ended.append((manifest, _BEING_UNLOADED))
            elif state in ENDED and not self._comes_back(process):
                ended.append((manifest, process.cause_text or f"it is {state}"))
            else:
                running.append(manifest)
        return Standing(running, ended)

    def taken(self) -> frozenset[str]:
        """Return the identities of all that run, or come back: of plugins, and of instances."""
        return frozenset(
            one.identity
            for one in self._processes()
            if one.state not in ENDED or self._comes_back(one)
        )

    def _leaves(self, process: PluginProcess) -> bool:
        whole = f"{plugin_of(process.identity)[0]}{INSTANCE_MARK}"
        return process.identity in self._leaving or whole in self._leaving

    # -- one that comes ---------------------------------------------------------------------

    def lacking(self, manifest: Manifest) -> tuple[str, ...]:
        """Return what a loaded plugin needs and nobody meets now, in a sentence each."""
        return tuple(f"{problem.fault}." for problem in self.standing().lacks(manifest))

    def check_one(self, manifest: Manifest) -> None:
        """Refuse a plugin that is loaded by itself, where what is there will not do.

        What is not there at all may come later: that is told, and does not refuse it.

        Raises:
            DependencyError: of what it needs another version runs, or it is loaded and has ended.
        """
        problems = [p for p in self.standing().lacks(manifest) if not isinstance(p, Missing)]
        if problems:
            raise dependency_error(problems)
        self.check_version(manifest)

    def check_strictly(self, manifest: Manifest) -> None:
        """Refuse a plugin unless all that it needs runs.

        Raises:
            DependencyError: it does not.
        """
        if problems := self.standing().lacks(manifest):
            raise dependency_error(problems)
        self.check_version(manifest)

    def check_version(self, manifest: Manifest) -> None:
        """Refuse a version in the place of one that has ended, if others need that one.

        Raises:
            DependencyError: it would not do for them.
        """
        if spoiled := self.standing().spoils(manifest):
            told = _joined([problem.fault for problem in spoiled])
            text = f"{manifest.identity} {manifest.version} was not started: {told}."
            chains = tuple(problem.chain for problem in spoiled)
            remedy = "Unload those that need the version before, or load one that does for them."
            raise DependencyError(text, plugin=manifest.identity, chains=chains, remedy=remedy)

    def check_reload(self, manifest: Manifest) -> None:
        """Refuse a new version beside a running one, where anything would lack more than before.

        Raises:
            ReloadError: it would not do for others that are loaded.
            DependencyError: it needs something itself that the one before does not need.
        """
        standing, identity = self.standing(), manifest.identity
        text = f"{identity} {manifest.version} was not taken: "
        if spoiled := standing.spoils(manifest):
            text += f"{_joined([problem.fault for problem in spoiled])}; the one before serves on."
            remedy = "Reload those first with versions that take it, or unload them."
            users = tuple(dict.fromkeys(problem.plugin for problem in spoiled))
            raise ReloadError(text, plugin=identity, remedy=remedy, dependants=users)
        if problems := standing.newly_lacks(manifest):
            text += f"{_joined([problem.fault for problem in problems])}; the one before serves on."
            chains = tuple(problem.chain for problem in problems)
            raise DependencyError(text, plugin=identity, chains=chains, remedy=_REMEDY)

    # -- one that goes ----------------------------------------------------------------------

    @contextlib.contextmanager
    def leaving(
        self, identity: str, processes: Collection[str], *, dependants: bool
    ) -> Iterator[Levels]:
        """Have plugins count as gone inside the block, which is to stop them.

        Args:
            identity: the plugin's.
            processes: identities of those of its processes that are to stop; where another one
                goes on, nobody lacks the plugin.
            dependants: those that need it are to stop as well, before it, with all their processes.

        Yields:
            Identities of plugins: those of one level at the same time, one level after the other.

        Raises:
            NeededError: others need it, and are not to stop.
        """
        marked: list[str] = []
        try:
            # Before it is marked: the marked are nobody's any more.
            before = self.standing()
            for one in processes:
                self._mark(one, marked)
            going = {identity}
            if identity in before.running and identity not in self.standing().running:
                while new := self._dependants(identity, going):
                    if not dependants:
                        raise _needed(identity, new)
                    for chain in new:
                        self._mark(f"{chain[0]}{INSTANCE_MARK}", marked)
                        going.add(chain[0])
            yield self._standing_with(going).stop_levels(going)
        finally:
            for one in marked:
                self._unmark(one)

    def _mark(self, identity: str, marked: list[str]) -> None:
        with self._lock:
            self._leaving[identity] = self._leaving.get(identity, 0) + 1
        marked.append(identity)

    def _unmark(self, identity: str) -> None:
        with self._lock:
            self._leaving[identity] -= 1
            if not self._leaving[identity]:
                del self._leaving[identity]

    def _dependants(self, identity: str, known: set[str]) -> list[tuple[str, ...]]:
        """Return the chains from those that need it, and are not known yet; the nearest first."""
        needs = self._standing_with({identity, *known}).needed_by(identity)
        return [need.chain for need in needs if need.plugin not in known]

    def _standing_with(self, identities: set[str]) -> Standing:
        """Return who stands there, these included although they are to go."""
        standing = self.standing()
        here = [
            process.plan.manifest
            for process in self._processes()
            if process.plan.manifest.identity in identities - standing.running.keys()
        ]
        return Standing([*standing.running.values(), *here])


def dependency_error(problems: Sequence[Problem]) -> DependencyError:
    """Return the error for one plugin's problems, of which there is at least one."""
    told = " ".join(problem.text for problem in problems[:_TOLD])
    more = f" And {len(problems) - _TOLD} more." if len(problems) > _TOLD else ""
    chains = tuple(problem.chain for problem in problems)
    return DependencyError(
        f"{told}{more}", plugin=problems[0].plugin, chains=chains, remedy=_REMEDY
    )


def stop_in_levels(levels: Levels, stop: Callable[[str], object]) -> None:
    """Stop plugins, those of one level at the same time; one that cannot be stops no other.

    Raises:
        PluginError: the first one's that could not be stopped.
    """
    errors: list[PluginError] = []

    def attempt(identity: str) -> None:
        try:
            stop(identity)
        except PluginNotFoundError:
            if identity in levels[-1]:
                errors.append(_gone(identity))
        except PluginError as error:
            errors.append(error)

    for level in levels:
        if len(level) == 1:
            attempt(level[0])
        else:
            each(attempt, list(level), _STOPPERS)
    if errors:
        raise errors[0]


def _gone(identity: str) -> PluginNotFoundError:
    text = f"{identity} was unloaded by somebody else meanwhile."
    return PluginNotFoundError(text, plugin=identity)


def _needed(identity: str, chains: Sequence[tuple[str, ...]]) -> NeededError:
    users = tuple(chain[0] for chain in chains)
    shown = _joined([" -> ".join(chain) for chain in chains])
    text = f"{identity} was not unloaded, because {_listed(users)} would lack it: {shown}."
    return NeededError(
        text,
        plugin=identity,
        dependants=users,
        chains=tuple(chains),
        remedy="Unload those first, or have them go before it: `dependants=True`, or "
        "`sandbox-host unload --dependants`.",
    )


def _joined(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    return f"{'; '.join(texts[:_TOLD])}{more}"


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:_TOLD], *([f"{len(names) - _TOLD} more"] if len(names) > _TOLD else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"

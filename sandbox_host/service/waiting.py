"""What of a plugin directory is to run, what is not, and what waits for others to run first.

What is not to run counts as well: whoever waits for it is told why it does not. Only verified
plugins come here, each by itself and each instance by itself; to whoever needs the plugin it is
there as soon as one of its instances is. Not thread-safe: its one user has a lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_host.model import plugin_of
from sandbox_host.runtime.dependencies import dependency_error

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.admission.instances import Instance
    from sandbox_host.model import Manifest
    from sandbox_host.supervision.standing import Standing


@dataclass(frozen=True, slots=True)
class Target:
    """What should be of one plugin.

    Attributes:
        path: where it lies.
        digest: of the files that should run; "" where it should not.
        why: what is told when it is ended.
        manifest: its verified plugin.json; None where nobody has it.
        instance: which of several instances of the plugin; None for the plugin itself.
        disabled: it is there, and its operator or its configuration says that it is not to run.
    """

    path: Path
    digest: str
    why: str = ""
    manifest: Manifest | None = None
    disabled: bool = False
    instance: Instance | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """One that waits.

    Attributes:
        path: where it lies.
        why: for what, with the whole chain; "" until that was found out.
    """

    path: Path
    why: str


class Waiting:
    """See the module.

    Attributes:
        wanted: what is to run, by identity.
        waits: of these, those that cannot yet.
    """

    def __init__(self) -> None:
        self.wanted: dict[str, Target] = {}
        self.waits: dict[str, Waits] = {}
        self._out: dict[str, tuple[Manifest, str]] = {}

    def aim(self, identity: str, target: Target, *, there: bool) -> None:
        """Take the last word about a plugin.

        Args:
            identity: the plugin's.
            target: what should be of it.
            there: it lies in the directory; where it should not run, `target.why` says why.
        """
        self.forget(identity)
        if target.digest:
            self.wanted[identity] = target
        elif there and target.manifest is not None:
            self._out[identity] = (target.manifest, target.why)

    def fail(self, identity: str, manifest: Manifest | None, why: str) -> None:
        """Note that it will not run as it is, and why."""
        self.waits.pop(identity, None)
        if manifest is not None:
            self._out[identity] = (manifest, why)

    def give_up(self, identity: str, why: str) -> None:
        """Have it not run until there is another word about it."""
        target = self.wanted.get(identity)
        self.forget(identity)
        if target is not None and target.manifest is not None:
            self._out[identity] = (target.manifest, why)

    def forget(self, identity: str) -> None:
        """Know nothing of it any more."""
        for table in (self.wanted, self.waits, self._out):
            table.pop(identity, None)

    def plugins(self) -> set[str]:
        """Return which plugins there are, whether they are to run or not."""
        return {plugin_of(identity)[0] for identity in (*self.wanted, *self.waits, *self._out)}

    def wait(self, identity: str, path: Path, why: str = "") -> bool:
        """Note that it waits; tell whether that is news."""
        before = self.waits.get(identity)
        self.waits[identity] = Waits(path, why)
        return before is None or before.why != why

    def runs(self, identity: str) -> None:
        """Note that it runs as it should."""
        self.waits.pop(identity, None)
        self._out.pop(identity, None)

    def obstacle(self, identity: str, standing: Standing) -> tuple[str, bool]:
        """Return what keeps one that is wanted from starting now.

        Returns:
            The reason, "" where nothing does; and whether it is more than that others are on their
            way, which is not worth telling.
        """
        manifest = self.wanted[identity].manifest
        if manifest is None or not manifest.dependencies:
            return "", False
        self._out.pop(identity, None)
        running = standing.running
        coming = {
            target.manifest.identity: target.manifest
            for i, target in self.wanted.items()
            if target.manifest is not None and i not in self._out
        }
        coming = {plugin: one for plugin, one in coming.items() if plugin not in running}
        out = {one.identity: (one, why) for one, why in self._out.values()}
        out = {i: one for i, one in out.items() if i not in running and i not in coming}
        resolution = standing.resolve(
            [*coming.values(), *(one for one, _ in out.values())],
            {i: why for i, (_, why) in out.items()},
        )
        if problems := resolution.explain(manifest.identity):
            return str(dependency_error(problems)), True
        due = [one for one in resolution.uses(manifest.identity) if one not in running]
        return (f"{due[0]} is to start before it.", False) if due else ("", False)

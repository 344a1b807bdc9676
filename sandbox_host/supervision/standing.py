"""What the plugins that are loaded need of each other, and what a change of one means. Pure.

Whoever runs is a fact: what it lacks itself does not matter to those that need it. So an
application may load plugins one by one, in whichever order, and nothing that happens to one of them
takes others along; but no change that somebody asks for makes anything worse unasked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sandbox_host.bundle.plugin_json import split_dependency
from sandbox_host.supervision.resolve import resolve

if TYPE_CHECKING:
    from sandbox_host.model import Manifest
    from sandbox_host.supervision.problems import Problem, Wanted
    from sandbox_host.supervision.resolve import Need, Resolution


class Standing:
    """The plugins of a host at one moment.

    Args:
        running: manifests of those that run, or are being started.
        ended: of those that are loaded and do not, each with the reason.

    Attributes:
        running: by identity.
    """

    def __init__(
        self, running: Iterable[Manifest], ended: Iterable[tuple[Manifest, str]] = ()
    ) -> None:
        self.running: Mapping[str, Manifest] = {one.identity: one for one in running}
        # Of several processes of one plugin it is enough that one runs.
        here = self.running
        self._ended = {o.identity: (o, why) for o, why in ended if o.identity not in here}

    # -- one that comes ---------------------------------------------------------------------

    def lacks(self, manifest: Manifest) -> tuple[Problem, ...]:
        """Return what a plugin would lack, or lacks, for each dependency that nobody here meets."""
        return tuple(self._lacking(manifest.identity, manifest).values())

    def newly_lacks(self, manifest: Manifest) -> tuple[Problem, ...]:
        """Return what a new version would lack that the one before does not."""
        before = self._before(manifest.identity)
        known = set(self._lacking(manifest.identity, before)) if before is not None else set()
        lacking = self._lacking(manifest.identity, manifest)
        return tuple(problem for wanted, problem in lacking.items() if wanted not in known)

    def spoils(self, manifest: Manifest) -> tuple[Problem, ...]:
        """Return for whom a new version would not do, and the one before does.

        Args:
            manifest: of the new version; of a plugin that is not loaded it spoils nothing.
        """
        before = self._before(manifest.identity)
        users = [one for one in self.running.values() if one.dependencies]
        if before is None or all(one.identity == manifest.identity for one in users):
            return ()
        then, now = self._resolution(before), self._resolution(manifest)
        running = {*self.running, manifest.identity}
        found: list[Problem] = []
        for user in sorted(one.identity for one in users if one.identity != manifest.identity):
            known = then.lacking(user, running)
            found += [p for w, p in now.lacking(user, running).items() if w not in known]
        return tuple(found)

    def resolve(self, manifests: Iterable[Manifest], broken: Mapping[str, str]) -> Resolution:
        """Return in which order others start beside those that run.

        Args:
            manifests: of those that are to start; of none runs more than an instance.
            broken: others that are there and will not run, by identity, each with the reason.
        """
        coming = list(manifests)
        names = {one.identity for one in coming}
        # Their needs are nobody's business any more: they run.
        facts = [
            replace(one, dependencies=())
            for one in self.running.values()
            if one.identity not in names  # an instance of it runs
        ]
        gone = {i: why for i, (_, why) in self._ended.items() if i not in names}
        ended = [one for i, (one, _) in self._ended.items() if i in gone]
        return resolve([*facts, *ended, *coming], {**gone, **broken})

    # -- one that goes ----------------------------------------------------------------------

    def needed_by(self, plugin: str) -> tuple[Need, ...]:
        """Return who of those that run needs it, the nearest first."""
        return self._resolution().needed_by(plugin, self.running)

    def stop_levels(self, plugins: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Return them in the order to stop them, those of one level at the same time."""
        resolution = self._resolution()
        known = [
            self._without(one, resolution.lacking(one.identity, self.running))
            for one in self.running.values()
        ]
        levels = resolve(known).stop_levels(plugins)
        placed = {one for level in levels for one in level}
        # Who is left needs itself by others, or needs one that does.
        rest = sorted(one for one in plugins if one not in placed)
        return (*self._peeled(rest, resolution), *levels)

    def _peeled(self, rest: list[str], resolution: Resolution) -> Iterator[tuple[str, ...]]:
        """Yield those that nobody left needs but who needs them too, again and again.

        There is always one: who needs one that needs another needs that as well.
        """
        needs = {
            one: {need.plugin for need in resolution.needed_by(one, self.running)} for one in rest
        }
        while rest:
            level = [
                one for one in rest if all(one in needs[user] for user in needs[one] & {*rest})
            ]
            yield tuple(level)
            rest = [one for one in rest if one not in level]

    # -- how it is found out ----------------------------------------------------------------

    def _before(self, plugin: str) -> Manifest | None:
        return self.running.get(plugin) or self._ended.get(plugin, (None, ""))[0]

    def _lacking(self, plugin: str, manifest: Manifest) -> dict[Wanted, Problem]:
        return self._resolution(manifest).lacking(plugin, self.running)

    def _resolution(self, instead: Manifest | None = None) -> Resolution:
        """Return what there is, perhaps with one version in the place of another."""
        ones = {**{i: one for i, (one, _) in self._ended.items()}, **self.running}
        ended = {i: why for i, (_, why) in self._ended.items()}
        if instead is not None:
            ones[instead.identity] = instead
            ended.pop(instead.identity, None)
        return resolve(ones.values(), ended)

    @staticmethod
    def _without(manifest: Manifest, lacking: Collection[Wanted]) -> Manifest:
        """Return a manifest without the dependencies that nobody meets."""
        unmet = {one.name for one in lacking}
        kept = tuple(d for d in manifest.dependencies if split_dependency(d)[0] not in unmet)
        return replace(manifest, dependencies=kept)

"""In which order plugins start, from what their plugin.json say that they need. Pure.

A dependency is a name with a range of versions (PEP 440). What the name means is decided once:

1. ``core_framework`` is the plugin API, and its version that of this host.
2. Otherwise it is the plugin of that name (`identity_of`), if there is one.
3. Otherwise it is a capability. One has no version of its own: the range is about the version of
   the plugin that provides it. Of several providers **one is enough**: the dependency counts as
   met by the one that can start first, and of those that can at the same time, by the one that is
   first in the alphabet. Which one a plugin then calls is `SandboxHost.find`'s to say.

A pre-release is in a range that it lies in: the operator who installed it meant it to be used. A
version that only Semantic Versioning can read counts as the nearest that PEP 440 can
(`admission.versions`).

Plugins start in levels. Those of one level need nothing of each other, and all that they need is in
the levels before. Who cannot start has one `Problem` for each dependency that cannot be met, with
the chain that leads to the fault; the others start all the same. Nothing here recurses, and no
chain is built before somebody asks for it: of 10,000 plugins that need each other in a row, all
chains together would be 50 million names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from packaging.specifiers import SpecifierSet

from sandbox_host.admission.versions import version_key
from sandbox_host.errors import UsageError
from sandbox_host.model import PLUGIN_API_VERSION, identity_of
from sandbox_host.supervision.problems import (
    Conflict,
    Cycle,
    Missing,
    Problem,
    Unusable,
    Wanted,
    shown_chain,
)

if TYPE_CHECKING:
    from packaging.version import Version

    from sandbox_host.model import Manifest

CORE_FRAMEWORK: Final = "core_framework"

TOLD: Final = 64
"""So many others that want something of a name, and so many that go by it, a conflict tells."""

# plugin_json has checked the text; here it is only cut in two.
_DEPENDENCY: Final = re.compile(r"([A-Za-z0-9_.-]+) ?(.*)")


@dataclass(slots=True)
class _Want:
    """One name with one range, whoever has it in plugin.json.

    Attributes:
        providers: identities that meet it, in the alphabet's order, broken ones too.
        users: identities of those that depend on it.
        met_by: the provider that can start first; "" for the host itself, None for nobody yet.
    """

    name: str
    versions: str
    providers: tuple[str, ...] = ()
    users: list[str] = field(default_factory=list)
    met_by: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """A plugin that cannot go on without another one.

    Attributes:
        through: the one that it needs itself, which is or needs the one that is to stop.
    """

    plugin: str
    through: str
    _throughs: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def chain(self) -> tuple[str, ...]:
        """From it to the one that is to stop, each needing the next one."""
        names, one = [self.plugin], self.through
        while one in self._throughs:
            names.append(one)
            one = self._throughs[one]
        return (*names, one)

    def __str__(self) -> str:
        return shown_chain(self.chain)


class _Versions:
    """Whether versions are in ranges; each pair is decided once, for most are alike."""

    def __init__(self) -> None:
        self._ranges: dict[str, SpecifierSet] = {}
        self._versions: dict[str, Version] = {}
        self._met: dict[tuple[str, str], bool] = {}

    def met(self, versions: str, version: str) -> bool:
        if not versions:
            return True
        known = self._met.get((versions, version))
        if known is None:
            if versions not in self._ranges:
                self._ranges[versions] = SpecifierSet(versions)
            if version not in self._versions:
                self._versions[version] = version_key(version)[0]
            specifiers, of = self._ranges[versions], self._versions[version]
            known = self._met[versions, version] = specifiers.contains(of, prereleases=True)
        return known


class Problems(Mapping[str, tuple[Problem, ...]]):
    """The problems of each plugin that cannot start, by identity; made when they are asked for."""

    def __init__(self, resolution: Resolution, plugins: Collection[str]) -> None:
        self._resolution = resolution
        self._plugins = dict.fromkeys(plugins)

    def __getitem__(self, plugin: str) -> tuple[Problem, ...]:
        if plugin not in self._plugins:
            raise KeyError(plugin)
        return self._resolution.explain(plugin)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)


class Resolution:
    """What `resolve` found. Immutable, once made.

    Attributes:
        levels: identities of all that can start: those of one level in parallel, in the
            alphabet's order, one level after the other.
        problems: of those that cannot for want of others, in the alphabet's order. Those that the
            caller called broken are in neither.
    """

    def __init__(self, manifests: Iterable[Manifest], broken: Mapping[str, str]) -> None:
        self._manifests = {one.identity: one for one in sorted(manifests, key=_identity)}
        self._broken = broken
        self._versions = _Versions()
        self._capabilities = self._provided()
        self._wants: dict[tuple[str, str], _Want] = {}
        self._alike: dict[str, list[_Want]] = {}
        self._lacks: dict[str, tuple[_Want, str | None]] = {}
        self._depends: dict[str, tuple[_Want, ...]] = {
            one.identity: tuple(self._want(one.identity, text) for text in one.dependencies)
            for one in self._manifests.values()
        }
        self._provides: dict[str, list[_Want]] = {}
        for want in self._wants.values():
            for provider in want.providers:
                self._provides.setdefault(provider, []).append(want)
        self.levels = tuple(self._start())
        started = {identity for level in self.levels for identity in level}
        stuck = [i for i in self._manifests if i not in started and i not in broken]
        self.problems = Problems(self, stuck)

    def uses(self, plugin: str) -> tuple[str, ...]:
        """Return the plugins that meet its dependencies, in the order of plugin.json.

        Raises:
            KeyError: there is no such plugin.
        """
        met = (want.met_by for want in self._depends[plugin])
        return tuple(dict.fromkeys(one for one in met if one))

    def needed_by(self, plugin: str, running: Collection[str]) -> tuple[Need, ...]:
        """Return who of those that run could not go on if a plugin stopped.

        Who finds another provider that runs needs nobody. The nearest ones come first: those that
        need it themselves, then those that need these, each once.

        Args:
            plugin: identity of the one that is to stop.
            running: identities of all that run.
        """
        left = {one for one in running if one != plugin and one in self._manifests}
        throughs: dict[str, str] = {}
        front = [plugin]
        while front:
            lost: dict[str, str] = {}
            for gone in front:
                for user in self._losing(gone, left):
                    lost.setdefault(user, gone)
            left -= lost.keys()
            front = sorted(lost)
            throughs |= {one: lost[one] for one in front}
        return tuple(Need(one, through, throughs) for one, through in throughs.items())

    def lacking(self, plugin: str, running: Collection[str]) -> dict[Wanted, Problem]:
        """Return what one lacks that runs, or is about to: what none of those that run meets.

        Of these it does not matter what they lack themselves: they run.

        Args:
            plugin: identity of the one.
            running: identities of all that run, it among them or not.

        Raises:
            KeyError: there is no such plugin.
        """
        found: dict[Wanted, Problem] = {}
        for want in self._depends[plugin]:
            met = want.met_by == "" or any(p in running and p != plugin for p in want.providers)
            if not met:
                wanted = Wanted(plugin, want.name, want.versions)
                found[wanted] = self._lack(plugin, want, wanted)
        return found

    def stop_levels(self, plugins: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Return plugins in the order to stop them: who needs another stops before that."""
        levels = (tuple(one for one in level if one in plugins) for level in reversed(self.levels))
        return tuple(level for level in levels if level)

    def explain(self, plugin: str) -> tuple[Problem, ...]:
        """Return why a plugin cannot start: a problem for each dependency that cannot be met.

        Raises:
            KeyError: there is no such plugin.
        """
        return tuple(self._problem(plugin, w) for w in self._depends[plugin] if w.met_by is None)

    # -- what is there ---------------------------------------------------------------------------

    def _provided(self) -> dict[str, list[str]]:
        provided: dict[str, list[str]] = {}
        for identity, manifest in self._manifests.items():
            for capability in manifest.capabilities:
                provided.setdefault(capability, []).append(identity)
        return provided

    def _want(self, user: str, dependency: str) -> _Want:
        match = _DEPENDENCY.fullmatch(dependency)
        if match is None:
            raise UsageError(f"{dependency!r:.80} is no dependency")
        name, versions = match[1], match[2].strip()
        want = self._wants.get((name, versions))
        if want is None:
            want = self._wants[name, versions] = _Want(name, versions)
            self._alike.setdefault(identity_of(name), []).append(want)
            there = self._there(name)
            if name == CORE_FRAMEWORK:
                want.met_by = "" if self._versions.met(versions, PLUGIN_API_VERSION) else None
            elif there or identity_of(name) not in self._broken:
                want.providers = tuple(i for i, v in there if self._versions.met(versions, v))
            else:
                want.providers = (identity_of(name),)  # broken, and nobody knows its version
        want.users.append(user)
        return want

    def _there(self, name: str) -> list[tuple[str, str]]:
        """Return what goes by a name, with its version."""
        if name == CORE_FRAMEWORK:
            return [(CORE_FRAMEWORK, PLUGIN_API_VERSION)]
        identity = identity_of(name)
        if identity in self._manifests:
            return [(identity, self._manifests[identity].version)]
        if identity in self._broken:
            return []
        return [(one, self._manifests[one].version) for one in self._capabilities.get(name, ())]

    # -- the order -------------------------------------------------------------------------------

    def _start(self) -> Iterator[tuple[str, ...]]:
        """Yield the levels: who has all that it needs starts, and meets what others need."""
        open_wants = {
            identity: sum(want.met_by is None for want in wants)
            for identity, wants in self._depends.items()
            if identity not in self._broken
        }
        level = [identity for identity, count in open_wants.items() if not count]
        while level:
            yield tuple(level)
            following: list[str] = []
            for identity in level:
                for want in self._provides.get(identity, ()):
                    if want.met_by is None:
                        want.met_by = identity
                        following += self._served(want, open_wants)
            level = sorted(following)

    def _served(self, want: _Want, open_wants: dict[str, int]) -> Iterator[str]:
        """Count a want as met for its users, and yield those that lack nothing any more."""
        for user in want.users:
            if user in open_wants:
                open_wants[user] -= 1
                if not open_wants[user]:
                    yield user

    # -- why not ---------------------------------------------------------------------------------

    def _problem(self, plugin: str, want: _Want) -> Problem:
        """Follow what cannot be met, always the first of it, to the fault or to a cycle."""
        chain: dict[str, None] = {plugin: None}
        user, following = plugin, self._first_that_waits(want)
        while following is not None:
            if following in chain:
                names = tuple(chain)
                return Cycle(plugin, (*names, following), names[names.index(following) :])
            chain[following] = None
            user = following
            want, following = self._unmet(user)
        return self._fault(plugin, tuple(chain), user, want)

    def _unmet(self, plugin: str) -> tuple[_Want, str | None]:
        """Return what a plugin lacks first, and which plugin that would meet it waits itself."""
        known = self._lacks.get(plugin)
        if known is None:
            want = next(one for one in self._depends[plugin] if one.met_by is None)
            known = self._lacks[plugin] = (want, self._first_that_waits(want))
        return known

    def _first_that_waits(self, want: _Want) -> str | None:
        # Before one that is broken, because its own problem says more.
        return next((one for one in want.providers if one not in self._broken), None)

    def _fault(self, plugin: str, names: tuple[str, ...], user: str, want: _Want) -> Problem:
        wanted = Wanted(user, want.name, want.versions)
        if want.providers:
            broken = want.providers[0]
            return Unusable(plugin, (*names, broken), wanted, self._broken[broken])
        there = tuple(self._there(want.name)[:TOLD])
        chain = (*names, want.name)
        if not there:
            return Missing(plugin, chain, wanted)
        return Conflict(plugin, chain, wanted, self._others(want, user), there)

    def _lack(self, plugin: str, want: _Want, wanted: Wanted) -> Problem:
        others = [one for one in want.providers if one != plugin]
        if others:
            reason = self._broken.get(others[0], "it is not loaded")
            return Unusable(plugin, (plugin, others[0]), wanted, reason)
        if want.providers:
            return Cycle(plugin, (plugin, plugin), (plugin,))
        return self._fault(plugin, (plugin,), plugin, want)

    def _others(self, want: _Want, user: str) -> tuple[Wanted, ...]:
        """Return who else wants something of the name, however it is written."""
        others = (
            Wanted(one, other.name, other.versions)
            for other in self._alike[identity_of(want.name)]
            for one in other.users
            if one != user
        )
        return tuple(sorted(islice(others, TOLD), key=lambda one: (one.plugin, one.name)))

    # -- who needs whom --------------------------------------------------------------------------

    def _losing(self, gone: str, left: Collection[str]) -> Iterator[str]:
        """Yield those of the left that something lacks when one is gone."""
        for want in self._provides.get(gone, ()):
            # Two are enough to know: nobody meets its own dependency.
            others = list(islice((one for one in want.providers if one in left), 2))
            yield from (user for user in want.users if user in left and others in ([], [user]))


def resolve(manifests: Iterable[Manifest], broken: Mapping[str, str] | None = None) -> Resolution:
    """Return in which order plugins start, and why some cannot.

    Args:
        manifests: of all plugins that are to run; those of broken ones may be among them.
        broken: identities of plugins that are there and do not run, each with the reason: refused,
            disabled, held, in quarantine.

    Raises:
        UsageError: two of them have one identity.
    """
    ones = list(manifests)
    seen: set[str] = set()
    for one in ones:
        if one.identity in seen:
            raise UsageError(f"there are two plugins {one.identity}")
        seen.add(one.identity)
    return Resolution(ones, dict(broken or {}))


def _identity(manifest: Manifest) -> str:
    return manifest.identity

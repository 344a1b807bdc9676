"""When a plugin that is being copied, changed or removed is at rest. Pure: marks and a clock in.

Nobody says when a copy is complete. It is taken for complete when nothing of it changed for a
quiet period, and then verification, which is somebody else's, has the last word. That a name is
gone has to last as long, because what replaces a plugin may take it away for a moment.

A plugin that is changed again soon after it came to rest has to be quiet for longer the next time,
and one that never comes to rest is looked at more and more seldom, so that neither costs much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.catalog.fingerprint import Mark

CALM_SECONDS: Final = 60.0
"""At rest for so long, a plugin is trusted to stay so: its next change has the short period."""

_SELDOM: Final = 8
"""What has not come to rest for 8 seconds is looked at every second, and so on."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A name came to rest.

    Attributes:
        name: in the plugin directory.
        mark: of what is there; None where nothing is any more.
    """

    name: str
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Restless:
    """A name has been changing for longer than anybody should need; told once until it rests.

    Attributes:
        name: in the plugin directory.
        seconds: for how long.
    """

    name: str
    seconds: float


@dataclass(slots=True)
class _Name:
    """What is known of one name.

    Attributes:
        mark: as it was seen last; None for nothing there.
        since: when this mark was seen first.
        told: the mark that it came to rest with last; None before that.
        unrest_since: when it was first seen to differ from `told`.
        rested: when it came to rest last.
        quiet: how long it has to stay as it is.
        look: when to look at it next, if it is not at rest.
        restless: that was told.
    """

    mark: Mark | None
    since: float
    quiet: float
    look: float
    unrest_since: float
    told: Mark | None = None
    rested: float | None = None
    restless: bool = False


class Settling:
    """What is at rest in one plugin directory.

    Args:
        quiet: seconds without a change after which a name is at rest.
        patience: seconds of change after which that is told.
        longest: the most seconds between two looks at what is not at rest, and the longest that
            a name has to be quiet.
    """

    def __init__(self, quiet: float, patience: float = 30.0, longest: float = 30.0) -> None:
        self._quiet = quiet
        self._patience = patience
        self._longest = max(longest, quiet)
        self._names: dict[str, _Name] = {}
        self._unrest: set[str] = set()

    @property
    def names(self) -> Iterable[str]:
        """Every name that is there, or was told to be."""
        return self._names.keys()

    def told(self, name: str) -> Mark | None:
        """Return the mark that a name came to rest with last; None if it never did."""
        known = self._names.get(name)
        return known.told if known else None

    def take(self, name: str, mark: Mark, now: float) -> Settled:
        """Take a name for settled at once, as it is when the watching begins."""
        known = _Name(mark, now, self._quiet, now, now, told=mark, rested=now)
        self._names[name] = known
        self._unrest.discard(name)
        return Settled(name, mark)

    def see(self, name: str, mark: Mark | None, now: float) -> Settled | Restless | None:
        """Note what a look at a name found, and return what follows from it, if anything does.

        Args:
            name: in the plugin directory.
            mark: what was found; None for nothing.
            now: a clock's seconds, never less than the last time.
        """
        known = self._names.get(name)
        if known is None:
            if mark is not None:
                self._names[name] = _Name(mark, now, self._quiet, now + self._quiet, now)
                self._unrest.add(name)
            return None
        if mark is None and known.told is None:
            self._forget(name)  # it came and went before anybody was told
            return None
        if mark != known.mark:
            return self._changed(name, known, mark, now)
        if mark == known.told:
            self._unrest.discard(name)
            return None
        if now - known.since < known.quiet:
            known.look = known.since + known.quiet
            return None
        return self._rest(name, known, now)

    def _changed(self, name: str, known: _Name, mark: Mark | None, now: float) -> Restless | None:
        if known.mark == known.told:
            known.unrest_since = now
            soon = known.rested is not None and now - known.rested < CALM_SECONDS
            known.quiet = min(known.quiet * 2, self._longest) if soon else self._quiet
        known.mark, known.since = mark, now
        self._unrest.add(name)
        unrest = now - known.unrest_since
        known.look = now + min(max(known.quiet, unrest / _SELDOM), self._longest)
        if unrest < self._patience or known.restless:
            return None
        known.restless = True
        return Restless(name, unrest)

    def _rest(self, name: str, known: _Name, now: float) -> Settled:
        self._unrest.discard(name)
        known.told, known.rested, known.restless = known.mark, now, False
        if known.mark is None:
            self._forget(name)
        return Settled(name, known.mark)

    def _forget(self, name: str) -> None:
        del self._names[name]
        self._unrest.discard(name)

    def wanted(self, now: float) -> list[str]:
        """Return the names that are not at rest, and that it is time to look at."""
        return sorted(name for name in self._unrest if self._names[name].look <= now)

    def next_look(self) -> float | None:
        """Return when the next of them is to be looked at; None if all are at rest."""
        return min((self._names[name].look for name in self._unrest), default=None)

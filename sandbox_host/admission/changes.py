"""What an update asks for, beside what the version before it asked for. Pure.

Wider is held for the operator, the same or narrower goes through. When that cannot be told, it is
wider. "Narrower or the same" is an order: what is narrower than something narrower is narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.admission.requests import covers_path
from sandbox_host.bundle.plugin_json import split_dependency
from sandbox_host.model import Limits, Permissions
from sandbox_host.terms import LIMIT_KEYS, pattern_covers

if TYPE_CHECKING:
    from sandbox_host.model import Manifest

NOTHING: Final = "-"


def _pattern(before: tuple[str, ...], entry: str) -> bool:
    return any(pattern_covers(one, entry) for one in before)


_COVERS: Final[Mapping[str, Callable[[tuple[str, ...], str], bool]]] = MappingProxyType(
    {
        **dict.fromkeys(("publish", "subscribe", "calls"), _pattern),
        **dict.fromkeys(("read", "write"), covers_path),
    }
)
"""When an entry of a list asks for no more than a list did; elsewhere it has to be in that list."""


@dataclass(frozen=True, slots=True)
class Asks:
    """What plugin.json asks for. Native code is one of the permissions.

    Attributes:
        limits: those that it names, by field of `Limits`; others take the default.
    """

    permissions: Permissions = field(default_factory=Permissions)
    limits: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))
    dependencies: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Asks:
        """Return what a plugin asks for."""
        return cls(manifest.permissions, manifest.limits, manifest.dependencies)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two versions.

    Attributes:
        path: where plugin.json says it, such as ``permissions.network``.
        before: what the version before asked for there; "-" for nothing.
        now: what this one asks for.
        wider: whether that is more.
    """

    path: str
    before: str
    now: str
    wider: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.now} (before: {self.before})"


def changes(before: Asks, now: Asks) -> tuple[Change, ...]:
    """Return every difference, in the order of plugin.json's tables; what is wider first in each.

    Args:
        before: of the version that was approved.
        now: of the update.
    """
    return (
        *_permission_changes(before.permissions, now.permissions),
        *_limit_changes(before.limits, now.limits),
        *_dependency_changes(before.dependencies, now.dependencies),
    )


def wider(before: Asks, now: Asks) -> tuple[Change, ...]:
    """Return what `now` asks for more than `before` did; nothing where it goes through."""
    return tuple(one for one in changes(before, now) if one.wider)


def _permission_changes(before: Permissions, now: Permissions) -> list[Change]:
    found: list[Change] = []
    # Over the fields, so that a permission that is new here cannot be forgotten here.
    for one in fields(Permissions):
        old, new = getattr(before, one.name), getattr(now, one.name)
        path = f"permissions.{one.name}"
        if isinstance(old, tuple) and isinstance(new, tuple):
            found += _list_changes(path, old, new, _COVERS.get(one.name, _is_in))
        elif old != new:
            narrower = old is True and new is False
            found.append(Change(path, _shown(old), _shown(new), not narrower))
    return found


def _is_in(before: tuple[str, ...], entry: str) -> bool:
    return entry in before


def _shown(value: Any) -> str:
    return {True: "true", False: NOTHING}.get(value, str(value))


def _list_changes(
    path: str,
    before: tuple[str, ...],
    now: tuple[str, ...],
    covers: Callable[[tuple[str, ...], str], bool],
) -> list[Change]:
    more = [Change(path, NOTHING, one, True) for one in now if not covers(before, one)]
    within = [
        Change(path, ", ".join(before), one, False)
        for one in now
        if one not in before and covers(before, one)
    ]
    less = [Change(path, one, NOTHING, False) for one in before if one not in now]
    return [*more, *within, *less]


def _limit_changes(
    before: Mapping[str, int | float], now: Mapping[str, int | float]
) -> list[Change]:
    found = []
    default = Limits()
    for key in LIMIT_KEYS:
        old, new = (one.get(key.field, getattr(default, key.field)) for one in (before, now))
        if old != new:
            was, asked = (key.text(value).strip('"') for value in (old, new))
            found.append(Change(f"limits.{key.key}", was, asked, new > old))
    return sorted(found, key=lambda one: not one.wider)


def _dependency_changes(before: tuple[str, ...], now: tuple[str, ...]) -> list[Change]:
    known = {_clauses(text)[0]: text for text in before}
    wanted = {_clauses(text)[0]: text for text in now}
    found = []
    for name, text in wanted.items():
        old = known.get(name)
        if old is None:
            found.append(Change("dependencies", NOTHING, text, True))
        elif _clauses(old) != _clauses(text):
            # Clauses are joined by "and": with all of the old ones among them it is narrower. What
            # else may be narrower, such as a higher minimum, is another range to look at.
            narrower = _clauses(old)[1] <= _clauses(text)[1]
            found.append(Change("dependencies", old, text, not narrower))
    gone = [
        Change("dependencies", text, NOTHING, False) for n, text in known.items() if n not in wanted
    ]
    return [*sorted(found, key=lambda one: not one.wider), *gone]


def _clauses(text: str) -> tuple[str, frozenset[str]]:
    """Return a dependency's name and the clauses of its range."""
    name, versions = split_dependency(text)
    return name, frozenset(str(one) for one in versions)

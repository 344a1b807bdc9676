"""What a plugin requests, beside what it is granted: each difference, and what remains. Pure.

A grant is a ceiling, never a gift; a request is a wish, never a right. What is in force is what
both sides name, and it is never wider than either.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.model import HOST_EVENTS, Permissions
from sandbox_host.terms import pattern_covers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that a plugin requests and does not get.

    Attributes:
        path: where plugin.json requests it, such as ``permissions.read[0]``.
        problem: what it requests and why it is not given.
        table: the operator's TOML table that could change this; "" where nothing can.
        key: the key in that table.
        value: its value as TOML writes it; for a list, the one entry that is missing.
        listed: whether the key holds a list.
    """

    path: str
    problem: str
    table: str = ""
    key: str = ""
    value: str = ""
    listed: bool = False


def covers_path(granted: Iterable[str], path: str) -> bool:
    """Tell whether a granted path is `path` or one of its parents; purely by their text."""
    return any(path == g or path.startswith(g.rstrip("/") + "/") for g in granted)


def _covers_pattern(granted: Iterable[str], entry: str) -> bool:
    return any(pattern_covers(pattern, entry) for pattern in granted)


def _is_in(granted: Collection[str], entry: str) -> bool:
    return entry in granted


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one permission that is a list is told, and when a grant covers an entry of it."""

    doing: str
    covers: Callable[[Any, str], bool] = _is_in


_LISTED: Final[Mapping[str, _Kind]] = {
    "publish": _Kind("publishing", _covers_pattern),
    "subscribe": _Kind("handling", _covers_pattern),
    "read": _Kind("reading", covers_path),
    "write": _Kind("writing to", covers_path),
    "network": _Kind("connecting to"),
    "unix": _Kind("connecting to the Unix socket"),
    "env": _Kind("seeing the variable"),
    "services": _Kind("calling the service"),
    "calls": _Kind("calling the operation", _covers_pattern),
}
_FLAGS: Final[Mapping[str, str]] = {
    "native_code": "bringing native code",
    "subprocess": "starting processes",
    "threads": "starting threads",
}


def never(requested: Permissions) -> list[Difference]:
    """Return what no operator can grant."""
    found = [
        Difference(f"permissions.publish[{index}]", f'only the host publishes "{event}"')
        for index, event in enumerate(requested.publish)
        if event in HOST_EVENTS
    ]
    if requested.unix and requested.network:
        # With the right to connect, a TCP socket that was handed over leads anywhere.
        problem = "Unix sockets and network connections are never given to the same plugin"
        found.append(Difference("permissions.unix", problem))
    return found


def differences(requested: Permissions, granted: Permissions, table: str) -> list[Difference]:
    """Return every permission that is requested and not granted.

    Args:
        requested: plugin.json's.
        granted: the operator's, for this plugin.
        table: the TOML table that would grant it.
    """
    found = []
    for key, kind in _LISTED.items():
        given = getattr(granted, key)
        for index, entry in enumerate(getattr(requested, key)):
            if not kind.covers(given, entry):
                told = toml_text(entry)
                problem = f"{kind.doing} {told} is not granted"
                path = f"permissions.{key}[{index}]"
                found.append(Difference(path, problem, table, key, told, listed=True))
    for key, doing in _FLAGS.items():
        if getattr(requested, key) and not getattr(granted, key):
            problem = f"{doing} is not granted"
            found.append(Difference(f"permissions.{key}", problem, table, key, "true"))
    hopeless = {one.path for one in never(requested)}
    return [d for d in found if not hopeless & {d.path, d.path.partition("[")[0]}]


def in_force(requested: Permissions, granted: Permissions) -> Permissions:
    """Return requested x granted: in both, never wider than either."""
    both: dict[str, Any] = {
        key: tuple(
            entry
            for entry in getattr(requested, key)
            if kind.covers(getattr(granted, key), entry)
            and not (key == "publish" and entry in HOST_EVENTS)
        )
        for key, kind in _LISTED.items()
    }
    both |= {key: getattr(requested, key) and getattr(granted, key) for key in _FLAGS}
    if both["network"]:
        both["unix"] = ()  # never together; such a plugin is refused anyway
    return Permissions(**both)


def union(grants: Iterable[Permissions]) -> Permissions:
    """Return what at least one of them grants."""
    every = list(grants)
    added: dict[str, Any] = {}
    for one in fields(Permissions):
        values = [getattr(grant, one.name) for grant in every]
        if one.name in _FLAGS:
            added[one.name] = any(values)
        else:
            added[one.name] = tuple(dict.fromkeys(entry for value in values for entry in value))
    return Permissions(**added)


def toml_text(text: str) -> str:
    """Return a text as TOML writes it."""
    # A JSON string is a TOML basic string, as long as no surrogate pair is escaped in it.
    return json.dumps(text, ensure_ascii=False)

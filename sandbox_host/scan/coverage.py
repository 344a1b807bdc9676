"""Whether what a source reaches for is what plugin.json asks for. Pure: words beside words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sandbox_host.model import Permissions
from sandbox_host.scan.rules import RULES


def covers(permissions: Permissions, rule: str, what: str) -> bool:
    """Tell whether a request covers what was seen.

    Args:
        permissions: plugin.json's.
        rule: its id.
        what: the name, path, address or variable.
    """
    decide = _EXACT.get(rule) or _GENERAL.get(RULES[rule].permission)
    return decide is not None and decide(permissions, what)


def uses(permissions: Permissions, seen: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what is asked for and never seen to be used, as permission and entry.

    Args:
        permissions: plugin.json's.
        seen: rules and what was seen of them, in all sources.
    """
    every = list(seen)
    used = {RULES[rule].permission for rule, _ in every}
    unused = [
        (name, "")
        for name in ("network", "subprocess", "threads", "native_code")
        if getattr(permissions, name) and name not in used
    ]
    if any(rule == "SH141" for rule, _ in every):
        return unused
    variables = {what for rule, what in every if rule == "SH140"}
    return unused + [("env", name) for name in permissions.env if name not in variables]


def _below(granted: Iterable[str], path: str) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in granted)


def _network(permissions: Permissions, _what: str) -> bool:
    return bool(permissions.network or permissions.unix)


_GENERAL: Final[Mapping[str, Callable[[Permissions, str], bool]]] = {
    "network": _network,
    "subprocess": lambda permissions, _: permissions.subprocess,
    "threads": lambda permissions, _: permissions.threads,
    "native_code": lambda permissions, _: permissions.native_code,
    "env": lambda permissions, _: bool(permissions.env),  # it sees no others
    "read": lambda permissions, what: _below((*permissions.read, *permissions.unix), what),
    "write": lambda permissions, what: _below(permissions.write, what),
}
_EXACT: Final[Mapping[str, Callable[[Permissions, str], bool]]] = {
    "SH103": lambda permissions, what: what in permissions.network,
    "SH140": lambda permissions, what: what in permissions.env,
}
"""Rules that look closer than at the permission as a whole."""

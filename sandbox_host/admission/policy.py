"""The operator's policy, and what of a plugin's request it does not cover.

A grant is a ceiling, never a gift: what a plugin did not request it does not get. A request is a
wish, never a right: what was not granted refuses the plugin, with the line that would grant it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.bundle.config_schema import ENABLED
from sandbox_host.model import HOST_EVENTS, Guarantee, Layer, Limits, Manifest, Permissions
from sandbox_host.terms import LIMIT_KEYS

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig

UNAVAILABLE: Final[Mapping[str, str]] = {
    "subprocess": "starting programs",
}
"""Permissions that this version has no mechanism for; granted or not, they refuse the plugin."""

_ALL_EVENTS: Final = ("*",)


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


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows.

    Attributes:
        ceilings: the most that any plugin gets.
        grants: permissions by shell pattern of the plugin's identity.
        plugin_config: configuration by shell pattern of identity.
        accept_missing: guarantees that may be missing, and layers that may be switched off.
        disabled: layers that are switched off.
    """

    ceilings: Limits = field(default_factory=Limits)
    grants: Mapping[str, Permissions] = field(default_factory=lambda: MappingProxyType({}))
    plugin_config: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    accept_missing: frozenset[Guarantee | Layer] = frozenset()
    disabled: frozenset[Layer] = frozenset()

    @classmethod
    def from_config(cls, config: HostConfig) -> Policy:
        """Return the policy that a configuration holds."""
        return cls(
            ceilings=config.ceilings,
            grants=config.grants,
            plugin_config=config.plugin_config,
            accept_missing=config.accept_missing,
            disabled=config.disable_layers,
        )

    def granted(self, identity: str) -> Permissions:
        """Return what is granted to a plugin: the union of every table whose pattern matches.

        Publishing is granted by default, except the host's own events; a matching table that
        names ``publish`` replaces that default.
        """
        matching = [g for pattern, g in self.grants.items() if fnmatchcase(identity, pattern)]
        return Permissions(
            publish=_union(g.publish for g in matching) or _ALL_EVENTS,
            read=_union(g.read for g in matching),
            write=_union(g.write for g in matching),
            network=_union(g.network for g in matching),
            env=_union(g.env for g in matching),
            native_code=any(g.native_code for g in matching),
            subprocess=any(g.subprocess for g in matching),
        )

    def overrides(self, identity: str) -> dict[str, Any]:
        """Return the operator's configuration for a plugin; an exact name wins over a pattern."""
        matching = [p for p in self.plugin_config if fnmatchcase(identity, p)]
        merged: dict[str, Any] = {}
        for pattern in sorted(matching, key=lambda p: (p == identity, len(p), p)):
            merged.update(self.plugin_config[pattern])
        return merged

    def enables(self, manifest: Manifest) -> bool:
        """Tell whether a plugin is to run, by plugin.json or else by the operator's word.

        Only false disables: what else the operator may have written there, its schema refuses.
        """
        return self.overrides(manifest.identity).get(ENABLED, manifest.enabled) is not False


def _union(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry for one in lists for entry in one))


def covers(granted: Iterable[str], path: str) -> bool:
    """Tell whether a granted path is `path` or one of its parents; purely by their text."""
    return any(path == g or path.startswith(g.rstrip("/") + "/") for g in granted)


def _toml_text(text: str) -> str:
    # A JSON string is a TOML basic string, as long as no surrogate pair is escaped in it.
    return json.dumps(text, ensure_ascii=False)


def _publish_differences(
    requested: Permissions, granted: Permissions, table: str
) -> list[Difference]:
    found = []
    for index, event in enumerate(requested.publish):
        path = f"permissions.publish[{index}]"
        if event in HOST_EVENTS:
            found.append(Difference(path, f'only the host publishes "{event}"'))
        elif not any(fnmatchcase(event, pattern) for pattern in granted.publish):
            problem = f'publishing "{event}" is not granted'
            found.append(Difference(path, problem, table, "publish", f'"{event}"', listed=True))
    return found


def _path_differences(
    key: str, doing: str, requested: Permissions, granted: Permissions, table: str
) -> list[Difference]:
    return [
        Difference(
            f"permissions.{key}[{index}]",
            f"{doing} {_toml_text(path)} is not granted",
            table,
            key,
            _toml_text(path),
            listed=True,
        )
        for index, path in enumerate(getattr(requested, key))
        if not covers(getattr(granted, key), path)
    ]


def _env_differences(requested: Permissions, granted: Permissions, table: str) -> list[Difference]:
    return [
        Difference(
            f"permissions.env[{index}]",
            f'seeing the variable "{name}" is not granted',
            table,
            "env",
            f'"{name}"',
            listed=True,
        )
        for index, name in enumerate(requested.env)
        if name not in granted.env
    ]


def _network_differences(
    requested: Permissions, granted: Permissions, table: str
) -> list[Difference]:
    return [
        Difference(
            f"permissions.network[{index}]",
            f"connecting to {entry} is not granted",
            table,
            "network",
            _toml_text(entry),
            listed=True,
        )
        for index, entry in enumerate(requested.network)
        if entry not in granted.network
    ]


def permission_differences(manifest: Manifest, policy: Policy) -> tuple[Difference, ...]:
    """Return every permission that plugin.json requests and that the plugin does not get."""
    requested, granted = manifest.permissions, policy.granted(manifest.identity)
    table = f'[grants."{manifest.identity}"]'
    found = [
        Difference(f"permissions.{key}", f"{what} is not available in this version")
        for key, what in UNAVAILABLE.items()
        if getattr(requested, key)
    ]
    found += _publish_differences(requested, granted, table)
    found += _path_differences("read", "reading", requested, granted, table)
    found += _path_differences("write", "writing to", requested, granted, table)
    found += _env_differences(requested, granted, table)
    found += _network_differences(requested, granted, table)
    if requested.native_code and not granted.native_code:
        problem = "bringing native code is not granted"
        found.append(Difference("permissions.native_code", problem, table, "native_code", "true"))
    return tuple(found)


def limit_differences(manifest: Manifest, policy: Policy) -> tuple[Difference, ...]:
    """Return every limit that plugin.json names above the operator's ceiling."""
    found = []
    for key in LIMIT_KEYS:
        asked = manifest.limits.get(key.field)
        ceiling = getattr(policy.ceilings, key.field)
        if asked is not None and asked > ceiling:
            problem = f"asks for {key.text(asked)}, above the operator's {key.text(ceiling)}"
            text = key.text(asked)
            found.append(Difference(f"limits.{key.key}", problem, "[limits]", key.key, text))
    return tuple(found)


def effective_limits(manifest: Manifest, ceilings: Limits) -> Limits:
    """Return the limits in force: plugin.json's, else the default, and never above the ceilings."""
    wanted = replace(Limits(), **manifest.limits)  # type: ignore[arg-type]  # read by terms
    return Limits(
        **{
            key.field: min(getattr(wanted, key.field), getattr(ceilings, key.field))
            for key in LIMIT_KEYS
        }
    )


def effective_permissions(manifest: Manifest, policy: Policy) -> Permissions:
    """Return requested x granted: in both, never wider than either."""
    requested, granted = manifest.permissions, policy.granted(manifest.identity)
    return Permissions(
        publish=tuple(
            event
            for event in requested.publish
            if event not in HOST_EVENTS and any(fnmatchcase(event, g) for g in granted.publish)
        ),
        read=tuple(path for path in requested.read if covers(granted.read, path)),
        write=tuple(path for path in requested.write if covers(granted.write, path)),
        env=tuple(name for name in requested.env if name in granted.env),
        network=tuple(entry for entry in requested.network if entry in granted.network),
        native_code=requested.native_code and granted.native_code,
    )

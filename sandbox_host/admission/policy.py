"""The operator's policy, and what of a plugin's request it does not cover.

A grant is a ceiling, never a gift: what a plugin did not request it does not get. A request is a
wish, never a right: what was not granted refuses the plugin, with the line that would grant it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.admission.requests import Difference, differences, in_force, never, union
from sandbox_host.bundle.config_schema import ENABLED
from sandbox_host.model import (
    HOST_SERVICES,
    Guarantee,
    Layer,
    Limits,
    Manifest,
    Permissions,
)
from sandbox_host.terms import LIMIT_KEYS

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig
    from sandbox_host.scan.verdict import RefuseFindings

HARMLESS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "publish": ("*",),
        "subscribe": ("*",),
        "threads": True,
        "services": tuple(sorted(HOST_SERVICES)),
    }
)
"""What is granted as it is requested unless a table that matches names it: budgets bound it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows.

    Attributes:
        ceilings: the most that any plugin gets.
        grants: permissions by shell pattern of the plugin's identity.
        signer_grants: permissions by key id of the signer.
        plugin_config: configuration by shell pattern of identity.
        accept_missing: guarantees that may be missing, and layers that may be switched off.
        disabled: layers that are switched off.
        refuse_findings: the least severity of a scan's findings that refuses a plugin.
        services: names of those that the embedding application offers.
    """

    ceilings: Limits = field(default_factory=Limits)
    grants: Mapping[str, Permissions] = field(default_factory=lambda: MappingProxyType({}))
    signer_grants: Mapping[str, Permissions] = field(default_factory=lambda: MappingProxyType({}))
    plugin_config: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    accept_missing: frozenset[Guarantee | Layer] = frozenset()
    disabled: frozenset[Layer] = frozenset()
    refuse_findings: RefuseFindings = "none"
    services: frozenset[str] = frozenset()

    @classmethod
    def from_config(cls, config: HostConfig) -> Policy:
        """Return the policy that a configuration holds."""
        return cls(
            ceilings=config.ceilings,
            grants=config.grants,
            signer_grants=config.signer_grants,
            plugin_config=config.plugin_config,
            accept_missing=config.accept_missing,
            disabled=config.disable_layers,
            refuse_findings=config.refuse_findings,
        )

    def granted(self, identity: str, signers: Collection[str] = ()) -> Permissions:
        """Return what is granted to a plugin: the union of every table that is for it.

        What is `HARMLESS` is granted without a table; one that names it replaces that default.

        Args:
            identity: the plugin's.
            signers: key ids of those whose good signatures it has.
        """
        matching = [g for pattern, g in self.grants.items() if fnmatchcase(identity, pattern)]
        matching += [self.signer_grants[key] for key in signers if key in self.signer_grants]
        granted = union(matching)
        unnamed = {k: v for k, v in HARMLESS.items() if not _names(matching, k)}
        return replace(granted, **unnamed)

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


def _names(tables: Iterable[Permissions], key: str) -> bool:
    return any(getattr(one, key) or key in getattr(one, "named", ()) for one in tables)


def permission_differences(
    manifest: Manifest, policy: Policy, signers: Collection[str] = ()
) -> tuple[Difference, ...]:
    """Return every permission that plugin.json requests and that the plugin does not get."""
    requested, granted = manifest.permissions, policy.granted(manifest.identity, signers)
    table = f'[grants."{manifest.identity}"]'
    return (*never(requested), *differences(requested, granted, table))


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


def effective_permissions(
    manifest: Manifest, policy: Policy, signers: Collection[str] = ()
) -> Permissions:
    """Return requested x granted: in both, never wider than either."""
    return in_force(manifest.permissions, policy.granted(manifest.identity, signers))

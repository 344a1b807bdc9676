"""From verdicts on what lies in a plugin directory to what a host has to do. Pure.

A plugin is known by its identity. Of two directories of one identity the one that was there first
counts, and of two that come together neither does. What was good and is not any more is told, and
stays as it was: a broken new version leaves the old one serving, until it is removed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_host.catalog.discover import DiscoveredState
from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sandbox_host.model import Manifest

CLASH = "clash"
"""The code of a plugin whose identity another one has."""

SWITCHED_OFF = "disabled with `sandbox-host disable`"
"""The reason of a plugin that the operator's switch keeps from running."""

OFF_BY_CONFIG = "config.enabled is false"
"""The reason of one that its plugin.json, or the host's configuration, keeps from running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one name in a plugin directory is, after it was read and verified.

    Attributes:
        path: of the directory or archive.
        state: "found" and "disabled" are verified, "unverified" and "unreadable" are not.
        identity: what the host calls it; what an unverified one only claims, "" for none.
        version: likewise.
        digest: root digest of the verified files, in hexadecimal; "" where nothing is verified.
        signer: label and roles of its first signer; "" likewise.
        reason: why it is disabled or not usable, one line, escaped.
        code: of the error, such as "unsigned"; "" for none.
        manifest: plugin.json; unverified where `digest` is "".
    """

    path: Path
    state: DiscoveredState
    identity: str = ""
    version: str = ""
    digest: str = ""
    signer: str = ""
    reason: str = ""
    code: str = ""
    manifest: Manifest | None = None

    @property
    def enabled(self) -> bool:
        """Whether it is verified and to run."""
        return self.state is DiscoveredState.FOUND


class ChangeKind(enum.StrEnum):
    """What happened in a plugin directory."""

    ADDED = "added"
    """A verified plugin is there; `Change.enabled` says whether it is to run."""
    CHANGED = "changed"
    """It has other files, or lies elsewhere now."""
    REMOVED = "removed"
    ENABLED = "enabled"
    DISABLED = "disabled"
    REFUSED = "refused"
    """Something that looks like a plugin cannot be read or verified; told once for each reason."""
    RESTLESS = "restless"
    """Something has been changing for so long that it is told; it is never loaded like that."""
    WATCH = "watch"
    """The watching itself: why it is slower or blind, or, with an empty reason, that it is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that happened.

    Attributes:
        kind: what.
        path: of the plugin, or of the plugin directory.
        identity: the plugin's; what it claims for REFUSED, "" where nobody knows.
        version: likewise.
        digest: root digest of the verified files; "" where nothing is verified.
        enabled: for ADDED and CHANGED: whether it is to run.
        reason: for people, one line; "" where the kind says all.
        code: of the error, such as "unsigned".
        manifest: plugin.json; None where nothing is verified.
    """

    kind: ChangeKind
    path: Path
    identity: str = ""
    version: str = ""
    digest: str = ""
    enabled: bool = False
    reason: str = ""
    code: str = ""
    manifest: Manifest | None = None

    @classmethod
    def of(cls, kind: ChangeKind, judged: Judged) -> Change:
        """Return a change of the plugin that was judged."""
        return cls(
            kind=kind,
            path=judged.path,
            identity=judged.identity,
            version=judged.version,
            digest=judged.digest,
            enabled=judged.enabled,
            reason=judged.reason,
            code=judged.code,
            manifest=judged.manifest if judged.digest else None,
        )


class Roster:
    """What is in one plugin directory, as far as it was told."""

    def __init__(self) -> None:
        self._judged: dict[str, Judged] = {}
        self._present: dict[str, Judged] = {}
        self._faults: dict[str, tuple[str, str]] = {}
        self._switched_off: Collection[str] = ()

    @property
    def present(self) -> Mapping[str, Judged]:
        """The verified plugins by identity, as they were told last."""
        return self._present

    def update(
        self, judged: Mapping[str, Judged | None], switched_off: Collection[str] = ()
    ) -> list[Change]:
        """Note verdicts, and return what has changed by them: what was removed comes first.

        Args:
            judged: by name in the plugin directory; None where nothing is any more.
            switched_off: identities that the operator disabled: it counts as well for a plugin
                that is broken where it lies, and whose old version may still serve.
        """
        self._switched_off = switched_off
        for name, one in judged.items():
            if one is None:
                self._judged.pop(name, None)
                self._faults.pop(name, None)
            else:
                self._judged[name] = one
        homes = self._homes()
        counted = {identity: self._counted(identity, homes) for identity in self._known(homes)}
        changes = [c for i, one in counted.items() for c in self._told(i, one)]
        changes.sort(key=lambda change: change.kind is not ChangeKind.REMOVED)
        return changes + self._refusals(homes)

    def _homes(self) -> dict[str, list[str]]:
        homes: dict[str, list[str]] = {}
        for name in sorted(self._judged):
            if self._judged[name].digest:
                homes.setdefault(self._judged[name].identity, []).append(name)
        return homes

    def _known(self, homes: Iterable[str]) -> list[str]:
        return sorted({*homes, *self._present})

    def _counted(self, identity: str, homes: Mapping[str, list[str]]) -> Judged | None:
        """Return which of the plugins of an identity counts; None for none."""
        names, before = homes.get(identity, []), self._present.get(identity)
        if before is not None and before.path.name in names:
            return self._judged[before.path.name]
        if len(names) == 1:
            return self._judged[names[0]]
        if before is not None and not names:
            here = self._judged.get(before.path.name)
            # Broken where it was: what was told of it stays, and the fault is told beside it.
            return self._stale(before) if here is not None and not here.digest else None
        return None

    def _stale(self, before: Judged) -> Judged:
        if before.enabled and before.identity in self._switched_off:
            return replace(before, state=DiscoveredState.DISABLED, reason=SWITCHED_OFF)
        return before

    def _told(self, identity: str, one: Judged | None) -> list[Change]:
        before = self._present.get(identity)
        if one is None:
            self._present.pop(identity, None)
            return [Change.of(ChangeKind.REMOVED, before)] if before else []
        self._present[identity] = one
        if before is None:
            return [Change.of(ChangeKind.ADDED, one)]
        changes = []
        if (before.digest, before.path) != (one.digest, one.path):
            changes.append(Change.of(ChangeKind.CHANGED, one))
        elif before.enabled != one.enabled:
            kind = ChangeKind.ENABLED if one.enabled else ChangeKind.DISABLED
            changes.append(Change.of(kind, one))
        return changes

    def _refusals(self, homes: Mapping[str, list[str]]) -> list[Change]:
        """Return what cannot be used and has not been told, or for another reason."""
        changes = []
        for name in sorted(self._judged):
            one = self._fault(name, homes)
            fault = (one.code, one.reason)
            if one.digest:
                self._faults.pop(name, None)
            elif self._faults.get(name) != fault:
                self._faults[name] = fault
                changes.append(Change.of(ChangeKind.REFUSED, one))
        return changes

    def _fault(self, name: str, homes: Mapping[str, list[str]]) -> Judged:
        """Return the verdict on a name, which is another where its identity is taken."""
        one = self._judged[name]
        if not one.digest or self._present.get(one.identity) is one:
            return one
        others = ", ".join(other for other in homes[one.identity] if other != name)
        reason = f"its name is also that of the plugin in {escaped(others, 200)}"
        return replace(one, state=DiscoveredState.UNREADABLE, digest="", reason=reason, code=CLASH)

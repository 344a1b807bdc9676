"""The trust store: whose signatures count, for which plugins, how many of them, and until when.

A TOML file that an operator can read and edit. `trust_document` has its rules, `trust_edit` writes
it, `trust_root` lets one offline key vouch for the whole of it.

    version = 7                             # one more with each change; see check_store_version

    [[key]]
    id = "3475...c97e"                      # SHA-256 of the raw key; derived, never chosen
    public = "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
    label = "weather team"
    roles = ["publisher"]                   # or "developer"
    plugins = ["weather_*"]                 # patterns of plugin identities
    not_after = 2027-01-01T00:00:00Z        # optional, as is not_before

    [[revoked]]
    key = "9f86...0a08"                     # or: bundle = its root digest
    reason = "lost laptop"
    date = 2026-01-31

    [policy]
    threshold = 1                           # distinct keys that must have signed every plugin

    [[threshold]]                           # and more of them where it matters more
    plugins = ["payments_*"]
    count = 2

    [root]                                  # only to rotate a pinned root; see trust_root
    public = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.protected import TRUST_STORE, read_public
from sandbox_host.bundle.signature import key_id
from sandbox_host.bundle.trust_document import (
    MAX_KEYS,
    MAX_STORE_BYTES,
    read_document,
    store_fault,
)
from sandbox_host.bundle.trust_entries import (
    ROLES,
    Revocation,
    Role,
    StoreMark,
    Threshold,
    TrustedKey,
    matches,
)
from sandbox_host.bundle.trust_root import check_signed, read_pin, read_signatures
from sandbox_host.errors import TrustStoreError

__all__ = [
    "MAX_KEYS",
    "MAX_STORE_BYTES",
    "ROLES",
    "Revocation",
    "Role",
    "StoreMark",
    "Threshold",
    "TrustStore",
    "TrustedKey",
    "check_store_version",
]

_NO_MARK: Final = StoreMark(0, "")


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Everything that one trust store says.

    Attributes:
        keys: by key id.
        revoked: by key id or bundle digest.
        origin: where it came from, for messages.
        version: its counter; 0 where it has none.
        threshold: distinct keys that must have signed any plugin.
        thresholds: more of them for some plugins.
        next_root: the raw root key that the store names, to rotate a pinned one; or None.
        mark: what to remember of it, for `check_store_version`.
    """

    keys: Mapping[str, TrustedKey]
    revoked: Mapping[str, Revocation]
    origin: str = "the trust store"
    version: int = 0
    threshold: int = 1
    thresholds: tuple[Threshold, ...] = ()
    next_root: bytes | None = None
    mark: StoreMark = _NO_MARK

    @classmethod
    def parse(cls, data: bytes, origin: str = "the trust store", root: str = "") -> TrustStore:
        """Read a store's bytes strictly.

        Args:
            data: the file's content.
            origin: where it came from, for messages.
            root: id of the root key whose signature over `data` was found good, or "".

        Raises:
            TrustStoreError: for anything misspelt, contradictory or weak; the message names the
                entry.
        """
        document = read_document(data, origin)
        keys: dict[str, TrustedKey] = {}
        for index, entry in enumerate(document.key):
            key = entry.checked(f"key[{index}]", origin)
            if key.id in keys:
                raise store_fault(origin, f"key[{index}]: the key {key.id} appears twice")
            keys[key.id] = key
        revoked: dict[str, Revocation] = {}
        for index, item in enumerate(document.revoked):
            revocation = item.checked(f"revoked[{index}]", origin)
            revoked.setdefault(revocation.subject, revocation)
        return cls(
            keys=MappingProxyType(keys),
            revoked=MappingProxyType(revoked),
            origin=origin,
            version=document.version,
            threshold=document.policy.threshold,
            thresholds=tuple(entry.checked() for entry in document.threshold),
            next_root=document.root.checked(origin) if document.root else None,
            mark=StoreMark(document.version, sha256(data).hexdigest(), root),
        )

    @classmethod
    def load(cls, path: Path) -> TrustStore:
        """Read the store at `path`, once the file and its directory are found protected.

        Where a root is pinned beside it, its signature is checked before the store is parsed.

        Raises:
            TrustStoreError: it is missing, unprotected or broken, or its root has not signed it.
                There is no default store: without one, nothing is trusted and nothing runs.
        """
        # In the order that `trust_install` writes against: pin, store, signatures.
        root = read_pin(path)
        data = read_public(path, MAX_STORE_BYTES, TRUST_STORE)
        if root is None:
            return cls.parse(data, str(path))
        check_signed(root, data, read_signatures(path), f"{TRUST_STORE} {shown(str(path))}")
        return cls.parse(data, str(path), key_id(root))

    def threshold_for(self, identity: str) -> int:
        """Return how many distinct keys must have signed the plugin `identity`.

        The greatest number that applies: an entry for some plugins only ever asks for more than
        the policy for all of them.
        """
        counts = (one.count for one in self.thresholds if matches(identity, one.plugins))
        return max((self.threshold, *counts))


def check_store_version(store: TrustStore, remembered: StoreMark | None) -> StoreMark:
    """Refuse a store that is older than one seen before, and return what to remember now.

    A hand that edits an unsigned store may forget the counter, so the same version with other
    bytes is refused only where a root signs: there it means that one number was signed twice.

    Args:
        store: as loaded.
        remembered: the mark of the last store that passed here; None where there was none.

    Raises:
        TrustStoreError: the version is lower, the root's signature is missing where there was one,
            or one version was signed with two contents.
    """
    mark = store.mark
    if remembered is None:
        return mark
    if mark.version < remembered.version:
        reason = f"has version {mark.version}, and version {remembered.version} was seen before"
    elif remembered.root and not mark.root:
        reason = f"is not held to its root, the key {remembered.root}, as it was before"
    elif mark.root and mark.version == remembered.version and mark.digest != remembered.digest:
        reason = f"is another than the one that was seen with the same version, {mark.version}"
    else:
        return mark
    raise TrustStoreError(
        f"{TRUST_STORE} {shown(store.origin)} {reason}: it may have been put back to an older "
        "state, in which revoked keys count.",
        remedy="Find out who replaced it, and install the current one; each change of it has to "
        "raise `version`.",
    )

"""The verdict on one plugin of a plugin directory: read, verified, and enabled or not.

It is the one verification that there is, and nothing is kept of what was read. Whoever loads a
plugin reads and verifies it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.admission.policy import Policy
from sandbox_host.bundle.contents import MANIFEST_NAME, Contents
from sandbox_host.bundle.plugin_json import parse_manifest
from sandbox_host.bundle.reader import stamp
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.trust_root import pin_path, signature_path
from sandbox_host.bundle.verify import VerifiedBundle, verify
from sandbox_host.catalog.discover import DiscoveredState
from sandbox_host.catalog.roster import OFF_BY_CONFIG, SWITCHED_OFF, Judged
from sandbox_host.catalog.switches import Switches
from sandbox_host.errors import BundleError, ManifestError, RefusedError
from sandbox_host.reading import escaped

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig
    from sandbox_host.model import Manifest

AGAIN_SECONDS: Final = 3_600
"""So often everything is judged anew though no file changed: signatures begin to count and end."""

_MAX_REASON: Final = 1_000

Objection = Callable[[VerifiedBundle, TrustStore, datetime], None]
"""Raises a RefusedError where something else speaks against a verified bundle, such as history."""


class Judging:
    """Judges plugins by a configuration's trust store, policy and switches.

    Args:
        config: the operator's decisions.
        objection: what else may refuse a verified plugin.

    Attributes:
        switched_off: identities that the operator disabled, as of the last `renew`.
    """

    def __init__(self, config: HostConfig, objection: Objection | None = None) -> None:
        self.switched_off: frozenset[str] = frozenset()
        self._store = config.trust_store
        self._policy = Policy.from_config(config)
        self._switches = Switches(config.state_dir)
        self._objection = objection
        self._trust: TrustStore | None = None
        self._epoch: tuple[object, ...] = ()

    def renew(self) -> bool:
        """Read trust store and switches if they were changed, and say whether verdicts may differ.

        Raises:
            TrustStoreError: the trust store cannot be used.
            ConfigError: the switches cannot be read.
        """
        epoch = self._now()
        if epoch == self._epoch:
            return False
        # Kept only once both are read: what cannot be read now is tried again.
        self._epoch, self._trust = (), None
        self.switched_off = frozenset(self._switches.disabled())
        self._trust = TrustStore.load(self._store)
        self._epoch = epoch
        return True

    def _now(self) -> tuple[object, ...]:
        store = self._store
        paths = (store, signature_path(store), pin_path(store), self._switches.path)
        return (*map(_stamp, paths), datetime.now(UTC).timestamp() // AGAIN_SECONDS)

    def __call__(self, path: Path) -> Judged:
        """Return the verdict on a plugin.

        Raises:
            TrustStoreError: the trust store cannot be used.
            ConfigError: the switches cannot be read.
        """
        trust = self._current()
        contents: Contents | None = None
        try:
            contents = read_bundle(path)
            now = datetime.now(UTC)
            bundle = verify(contents, trust, now)
            if self._objection is not None:
                self._objection(bundle, trust, now)
        except RefusedError as error:
            return _refused(path, contents, error)
        return self._verified(path, bundle)

    def _current(self) -> TrustStore:
        if self._trust is None:
            self.renew()
        assert self._trust is not None  # noqa: S101 - `renew` reads it, or raises
        return self._trust

    def _verified(self, path: Path, bundle: VerifiedBundle) -> Judged:
        manifest = bundle.manifest
        reason = self.off(manifest)
        return Judged(
            path=path,
            state=DiscoveredState.DISABLED if reason else DiscoveredState.FOUND,
            identity=manifest.identity,
            version=manifest.version,
            digest=bundle.root_digest,
            signer=bundle.signer,
            reason=reason,
            manifest=manifest,
        )

    def off(self, manifest: Manifest) -> str:
        """Return why a plugin is disabled; "" if it is not.

        Raises:
            TrustStoreError: as a verdict does.
            ConfigError: likewise.
        """
        self._current()
        if manifest.identity in self.switched_off:
            return SWITCHED_OFF
        return "" if self._policy.enables(manifest) else OFF_BY_CONFIG


def _refused(path: Path, contents: Contents | None, error: RefusedError) -> Judged:
    manifest = _claimed(contents)
    malformed = isinstance(error, BundleError | ManifestError)
    return Judged(
        path=path,
        state=DiscoveredState.UNREADABLE if malformed else DiscoveredState.UNVERIFIED,
        identity=manifest.identity if manifest else "",
        version=manifest.version if manifest else "",
        reason=escaped(str(error), _MAX_REASON),
        code=error.code,
        manifest=manifest,
    )


def _claimed(contents: Contents | None) -> Manifest | None:
    """Return what an unverified plugin says of itself, for listings only."""
    if contents is None or MANIFEST_NAME not in contents.files:
        return None
    try:
        return parse_manifest(contents.files[MANIFEST_NAME])
    except ManifestError:
        return None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        return stamp(os.stat(path, follow_symlinks=False))
    except OSError:
        return None

"""What a trust store is made of: keys, revocations, thresholds. Plain values, checked elsewhere."""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["publisher", "developer"]
"""Why a key is trusted. Both may sign plugins; the role is shown beside every verdict."""

ROLES: Final[tuple[Role, ...]] = ("publisher", "developer")


def matches(identity: str, patterns: Iterable[str]) -> bool:
    """Say whether one of `patterns`, with ``*`` and ``?``, is for the plugin `identity`."""
    return any(fnmatch.fnmatchcase(identity, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """One key of the store, checked to be of prime order.

    Attributes:
        id: SHA-256 of `public`, in hexadecimal; derived, never chosen.
        plugins: patterns of plugin identities, with ``*`` and ``?``.
        not_before: the key counts from this moment on; None is "always did".
        not_after: and up to and including this one; None is "until it is revoked".
    """

    id: str
    public: bytes
    label: str
    roles: tuple[Role, ...]
    plugins: tuple[str, ...]
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None

    def covers(self, identity: str) -> bool:
        """Say whether this key may sign the plugin `identity`."""
        return matches(identity, self.plugins)

    @property
    def scope(self) -> str:
        """The patterns, for messages."""
        return ", ".join(self.plugins)

    @property
    def signer(self) -> str:
        """The key's label and roles, as ``weather team (publisher)``."""
        return f"{self.label} ({', '.join(self.roles)})"


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key or a bundle that never counts again, whenever it was signed."""

    subject: str
    kind: Literal["key", "bundle"]
    reason: str
    date: dt.date


@dataclass(frozen=True, slots=True)
class Threshold:
    """How many distinct keys must have signed the plugins that `plugins` match."""

    plugins: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class StoreMark:
    """What is remembered of a trust store, so that an older one is not taken for it later.

    Attributes:
        version: the store's counter.
        digest: SHA-256 of the store's bytes, in hexadecimal.
        root: id of the root key whose signature was found on it; "" where no root is pinned.
    """

    version: int
    digest: str
    root: str = ""

"""The trust store: whose signatures count, for which plugins, and until when.

A TOML file that an operator can read and edit. Everything unknown in it is an error: a misspelt
``not_after`` must not become a key that is valid for ever. `trust_edit` writes it.

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
    threshold = 1                           # the only one that this version can keep
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import pydantic

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.protected import TRUST_STORE, read_public
from sandbox_host.bundle.signature import key_id, public_key_fault
from sandbox_host.errors import TrustStoreError
from sandbox_host.reading import shown_bytes

MAX_STORE_BYTES: Final = 1 << 20
MAX_KEYS: Final = 500
"""Each key costs about two milliseconds of curve arithmetic on every load."""

Role = Literal["publisher", "developer"]
"""Why a key is trusted. Both may sign plugins; the role is shown beside every verdict."""

ROLES: Final[tuple[Role, ...]] = ("publisher", "developer")


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
        return any(fnmatch.fnmatchcase(identity, pattern) for pattern in self.plugins)

    @property
    def scope(self) -> str:
        """The patterns, for messages."""
        return ", ".join(self.plugins)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key or a bundle that never counts again, whenever it was signed."""

    subject: str
    kind: Literal["key", "bundle"]
    reason: str
    date: dt.date


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Everything that one trust store says.

    Attributes:
        keys: by key id.
        revoked: by key id or bundle digest.
        origin: where it came from, for messages.
    """

    keys: Mapping[str, TrustedKey]
    revoked: Mapping[str, Revocation]
    origin: str = "the trust store"

    @classmethod
    def parse(cls, data: bytes, origin: str = "the trust store") -> TrustStore:
        """Read a store's bytes strictly.

        Raises:
            TrustStoreError: for anything misspelt, contradictory or weak; the message names the
                entry.
        """
        if len(data) > MAX_STORE_BYTES:
            raise _fault(origin, f"it is larger than {shown_bytes(MAX_STORE_BYTES)}")
        try:
            document = _Document.model_validate(tomllib.loads(data.decode()))
        except pydantic.ValidationError as error:
            raise _fault(origin, _first(error)) from None
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise _fault(origin, f"it is not TOML in UTF-8: {reason}") from None
        keys: dict[str, TrustedKey] = {}
        for index, entry in enumerate(document.key):
            key = entry.checked(f"key[{index}]", origin)
            if key.id in keys:
                raise _fault(origin, f"key[{index}]: the key {key.id} appears twice")
            keys[key.id] = key
        revoked: dict[str, Revocation] = {}
        for index, item in enumerate(document.revoked):
            revocation = item.checked(f"revoked[{index}]", origin)
            revoked.setdefault(revocation.subject, revocation)
        return cls(MappingProxyType(keys), MappingProxyType(revoked), origin)

    @classmethod
    def load(cls, path: Path) -> TrustStore:
        """Read the store at `path`, once the file and its directory are found protected.

        Raises:
            TrustStoreError: it is missing, unprotected or broken. There is no default store:
                without one, nothing is trusted and nothing runs.
        """
        return cls.parse(read_public(path, MAX_STORE_BYTES, TRUST_STORE), str(path))


def _fault(origin: str, reason: str) -> TrustStoreError:
    return TrustStoreError(
        f"{shown(origin)}: {reason}.",
        remedy="Correct the file; until then nothing that it should decide on is trusted.",
    )


def _first(error: pydantic.ValidationError) -> str:
    """Return the first thing that is wrong, as ``key[0].plugins: reason``."""
    details = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    return f"{ascii(where.lstrip('.'))[1:-1]}: {details['msg']}"


# -- the file's own shape ---------------------------------------------------------------------

_HEX: Final = r"^[0-9a-f]{64}$"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable text on one line")
    return text


def _aware(moment: Any) -> Any:
    if isinstance(moment, dt.datetime) and moment.tzinfo is None:
        raise ValueError("must name its time zone, as in 2026-01-31T00:00:00Z")
    return moment


_Text = Annotated[
    str, pydantic.Field(min_length=1, max_length=200), pydantic.AfterValidator(_printable)
]
_Digest = Annotated[str, pydantic.Field(pattern=_HEX)]
_Pattern = Annotated[str, pydantic.Field(pattern=r"^[a-z0-9_*?]+$", max_length=64)]
_Moment = Annotated[dt.datetime, pydantic.BeforeValidator(_aware)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class _KeyEntry(_Strict):
    id: _Digest
    public: str = pydantic.Field(max_length=64)
    label: _Text
    roles: list[Role] = pydantic.Field(min_length=1, max_length=len(ROLES))
    plugins: list[_Pattern] = pydantic.Field(min_length=1, max_length=100)
    not_before: _Moment | None = None
    not_after: _Moment | None = None

    def checked(self, where: str, origin: str) -> TrustedKey:
        """Return the key, once its id is derived again and its point is found good."""
        try:
            public = base64.b64decode(self.public.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise _fault(origin, f"{where}.public: not base64") from None
        if base64.b64encode(public).decode() != self.public:
            raise _fault(origin, f"{where}.public: not canonical base64")
        weakness = public_key_fault(public)
        if weakness:
            raise _fault(origin, f"{where}.public: the key {weakness}; anyone could sign for it")
        if key_id(public) != self.id:
            raise _fault(origin, f"{where}.id: expected {key_id(public)}, the SHA-256 of public")
        if self.not_before and self.not_after and self.not_after <= self.not_before:
            raise _fault(origin, f"{where}.not_after: it is not after not_before")
        return TrustedKey(
            id=self.id,
            public=public,
            label=self.label,
            roles=tuple(dict.fromkeys(self.roles)),
            plugins=tuple(self.plugins),
            not_before=self.not_before,
            not_after=self.not_after,
        )


class _RevokedEntry(_Strict):
    key: _Digest | None = None
    bundle: _Digest | None = None
    reason: _Text
    date: dt.date

    def checked(self, where: str, origin: str) -> Revocation:
        """Return the revocation, once it names exactly one thing."""
        if self.key is not None and self.bundle is None:
            return Revocation(self.key, "key", self.reason, self.date)
        if self.bundle is not None and self.key is None:
            return Revocation(self.bundle, "bundle", self.reason, self.date)
        raise _fault(origin, f"{where}: expected exactly one of key and bundle")


class _Policy(_Strict):
    threshold: int = 1

    @pydantic.field_validator("threshold")
    @classmethod
    def _only_one(cls, value: int) -> int:
        if value != 1:
            raise ValueError(
                "this version checks one signature a bundle, so 1 is the only threshold it can keep"
            )
        return value


class _Document(_Strict):
    key: list[_KeyEntry] = pydantic.Field(default=[], max_length=MAX_KEYS)
    revoked: list[_RevokedEntry] = pydantic.Field(default=[], max_length=10_000)
    policy: _Policy = _Policy()

"""The trust store's file as TOML has it: every key known, every value checked, or an error.

Everything unknown is an error: a misspelt ``not_after`` must not become a key that is valid for
ever. Public keys are checked in full here, once for all (see `signature.public_key_fault`).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import tomllib
from typing import Annotated, Any, Final

import pydantic

from sandbox_host.bundle.envelope import MAX_SIGNATURES
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.signature import key_id, public_key_fault
from sandbox_host.bundle.trust_entries import ROLES, Revocation, Role, Threshold, TrustedKey
from sandbox_host.errors import TrustStoreError
from sandbox_host.reading import shown_bytes

MAX_STORE_BYTES: Final = 1 << 20
MAX_KEYS: Final = 500
"""Each key costs about two milliseconds of curve arithmetic on every load."""

MAX_VERSION: Final = 2**53
"""Every language's JSON and TOML holds it exactly."""

_HEX: Final = r"^[0-9a-f]{64}$"


def read_document(data: bytes, origin: str) -> Document:
    """Return a store's bytes as a document of which every value alone is acceptable.

    Raises:
        TrustStoreError: they are not; the message names the entry.
    """
    if len(data) > MAX_STORE_BYTES:
        raise store_fault(origin, f"it is larger than {shown_bytes(MAX_STORE_BYTES)}")
    try:
        return Document.model_validate(tomllib.loads(data.decode()))
    except pydantic.ValidationError as error:
        raise store_fault(origin, _first(error)) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise store_fault(origin, f"it is not TOML in UTF-8: {reason}") from None


def store_fault(origin: str, reason: str) -> TrustStoreError:
    """Return the refusal of the store that was read from `origin`, to be raised."""
    return TrustStoreError(
        f"{shown(origin)}: {reason}.",
        remedy="Correct the file; until then nothing that it should decide on is trusted.",
    )


def _first(error: pydantic.ValidationError) -> str:
    """Return the first thing that is wrong, as ``key[0].plugins: reason``."""
    details = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    return f"{ascii(where.lstrip('.'))[1:-1]}: {details['msg']}"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable text on one line")
    return text


def _aware(moment: Any) -> Any:
    if isinstance(moment, dt.datetime) and moment.tzinfo is None:
        raise ValueError("must name its time zone, as in 2026-01-31T00:00:00Z")
    if isinstance(moment, dt.datetime):
        try:
            moment.astimezone(dt.UTC)
        except OverflowError:  # 9999-12-31T23:59:59-14:00 could not be shown to anybody
            raise ValueError("must be a time from the year 1 to 9999 in UTC") from None
    return moment


_Text = Annotated[
    str, pydantic.Field(min_length=1, max_length=200), pydantic.AfterValidator(_printable)
]
_Digest = Annotated[str, pydantic.Field(pattern=_HEX)]
_Pattern = Annotated[str, pydantic.Field(pattern=r"^[a-z0-9_*?]+$", max_length=64)]
_Patterns = Annotated[list[_Pattern], pydantic.Field(min_length=1, max_length=100)]
_Moment = Annotated[dt.datetime, pydantic.BeforeValidator(_aware)]
_Count = Annotated[int, pydantic.Field(ge=1, le=MAX_SIGNATURES)]
_Public = Annotated[str, pydantic.Field(max_length=64)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class _KeyEntry(_Strict):
    id: _Digest
    public: _Public
    label: _Text
    roles: list[Role] = pydantic.Field(min_length=1, max_length=len(ROLES))
    plugins: _Patterns
    not_before: _Moment | None = None
    not_after: _Moment | None = None

    def checked(self, where: str, origin: str) -> TrustedKey:
        """Return the key, once its id is derived again and its point is found good."""
        public = _public_key(self.public, f"{where}.public", origin)
        if key_id(public) != self.id:
            raise store_fault(
                origin, f"{where}.id: expected {key_id(public)}, the SHA-256 of public"
            )
        if self.not_before and self.not_after and self.not_after <= self.not_before:
            raise store_fault(origin, f"{where}.not_after: it is not after not_before")
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
        raise store_fault(origin, f"{where}: expected exactly one of key and bundle")


class _ThresholdEntry(_Strict):
    plugins: _Patterns
    count: _Count

    def checked(self) -> Threshold:
        """Return the threshold."""
        return Threshold(tuple(self.plugins), self.count)


class _Policy(_Strict):
    threshold: _Count = 1


class _Root(_Strict):
    public: _Public

    def checked(self, origin: str) -> bytes:
        """Return the raw root key, once its point is found good."""
        return _public_key(self.public, "root.public", origin)


class Document(_Strict):
    """The whole file; its keys are the tables and the one value of the format."""

    version: int = pydantic.Field(default=0, ge=0, le=MAX_VERSION)
    key: list[_KeyEntry] = pydantic.Field(default=[], max_length=MAX_KEYS)
    revoked: list[_RevokedEntry] = pydantic.Field(default=[], max_length=10_000)
    threshold: list[_ThresholdEntry] = pydantic.Field(default=[], max_length=100)
    policy: _Policy = _Policy()
    root: _Root | None = None


def _public_key(text: str, where: str, origin: str) -> bytes:
    try:
        public = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise store_fault(origin, f"{where}: not base64") from None
    if base64.b64encode(public).decode() != text:
        raise store_fault(origin, f"{where}: not canonical base64")
    weakness = public_key_fault(public)
    if weakness:
        raise store_fault(origin, f"{where}: the key {weakness}; anyone could sign for it")
    return public

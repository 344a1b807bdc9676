"""The one way to a `VerifiedBundle`: an ordered check without clock, file system or network.

The order is the point. Trust is decided over the raw payload before one byte of it is parsed, so
that a stranger's bytes never reach a parser with more freedom than the envelope's; and the files
are compared before plugin.json is read, so that only signed bytes are.

    1  an envelope is there, and it is a DSSE envelope with one signature
    2  its key is in the trust store and not revoked
    3  the signature over the raw payload is good, strictly
    4  the key is valid now
    5  the payload is a statement of ours, well-formed to the last path
    6  the key may sign this plugin
    7  neither has the statement expired, nor was the bundle revoked
    8  the files are exactly those signed: names, sizes, hashes, none more and none fewer
    9  plugin.json and the rest obey the rules of every bundle
   10  the signed name, version and plugin_api are plugin.json's

Signatures are counted against the store's threshold, which in this version is always 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, final

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.differences import differences
from sandbox_host.bundle.envelope import (
    Envelope,
    Statement,
    format_time,
    parse_envelope,
    parse_statement,
    pre_authentication_encoding,
)
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.signature import signature_fault
from sandbox_host.bundle.trust import Revocation, TrustedKey, TrustStore
from sandbox_host.errors import (
    ManifestError,
    UnsignedError,
    UntrustedError,
    UsageError,
    VerificationError,
)
from sandbox_host.model import Manifest

_TOKEN: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """Proof that these bytes were signed by a key that the trust store lets sign them.

    Only `verify` makes one: whoever holds it need not check again.

    Attributes:
        manifest: parsed of the verified plugin.json.
        files: the verified bytes by path, read-only, sorted by path.
        root_digest: stands for all files, in hexadecimal; see `envelope.root_digest_of`.
        key_id: SHA-256 of the signer's public key.
        signer: the key's label and roles in the trust store, for people.
        origin: where the bytes were read; they are never read there again.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    root_digest: str
    key_id: str
    signer: str
    origin: str
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise UsageError("a VerifiedBundle is made by sandbox_host.bundle.verify only.")


def verify(contents: Contents, trust: TrustStore, now: datetime) -> VerifiedBundle:
    """Decide whether these bytes may run, in the order at the top of this file.

    Args:
        contents: what was read, once; nothing is read again.
        trust: whose signatures count.
        now: the moment to judge validity at, with a time zone.

    Raises:
        UnsignedError: there is no envelope.
        VerificationError: the signature is bad, the envelope or statement is malformed, or the
            files are not those that were signed.
        UntrustedError: the key is unknown, revoked, outside its validity or its scope; or the
            bundle is revoked or has expired.
        BundleError: the signed files break a rule of every bundle.
        ManifestError: plugin.json is not acceptable or disagrees with the statement.
    """
    if now.tzinfo is None:
        raise UsageError("verify needs the time with its time zone.")
    origin = contents.origin
    files = MappingProxyType({path: bytes(contents.files[path]) for path in sorted(contents.files)})
    envelope = _read_envelope(contents)  # 1
    key = _find_key(envelope, trust, origin)  # 2
    _check_signature(envelope, key, origin)  # 3
    _check_validity(key, now, origin)  # 4
    statement = parse_statement(envelope.payload)  # 5
    _check_scope(key, statement, trust)  # 6
    _check_standing(statement, trust, now)  # 7
    _check_files(statement, files, origin)  # 8
    manifest = check_contents(files)  # 9
    _check_agreement(manifest, statement)  # 10
    return VerifiedBundle(
        manifest=manifest,
        files=files,
        root_digest=statement.root_digest,
        key_id=key.id,
        signer=_named(key),
        origin=origin,
        token=_TOKEN,
    )


def _read_envelope(contents: Contents) -> Envelope:
    if contents.envelope is None:
        raise UnsignedError(
            f"the bundle {shown(contents.origin)} is not signed: it holds no plugin.dsse.json.",
            remedy="Sign it (`sandbox-host sign`), or get the signed bundle from its author.",
        )
    return parse_envelope(contents.envelope)


def _find_key(envelope: Envelope, trust: TrustStore, origin: str) -> TrustedKey:
    # Revoked first: a revoked key is refused by name even when its entry is gone.
    revocation = trust.revoked.get(envelope.key_id)
    if revocation is not None:
        raise _revoked(f"{shown(origin)} is signed by the key {envelope.key_id}, which", revocation)
    key = trust.keys.get(envelope.key_id)
    if key is None:
        raise UntrustedError(
            f"the bundle {shown(origin)} is signed by the key {envelope.key_id}, which is not in "
            f"{shown(trust.origin)}.",
            remedy="Ask its author for the public key by another way, compare this id, and add it "
            "with `sandbox-host trust add`, for this plugin only.",
        )
    return key


def _check_signature(envelope: Envelope, key: TrustedKey, origin: str) -> None:
    message = pre_authentication_encoding(envelope.payload)
    fault = signature_fault(key.public, envelope.signature, message)
    if fault:
        raise VerificationError(
            f"the signature of {shown(origin)} is not good for {_named(key)}, the key {key.id}: "
            f"{fault}.",
            remedy="Get the bundle again; if you are its author, sign it again "
            "(`sandbox-host sign`).",
        )


def _check_validity(key: TrustedKey, now: datetime, origin: str) -> None:
    early = key.not_before is not None and now < key.not_before
    late = key.not_after is not None and now > key.not_after
    if not early and not late:
        return
    bound = key.not_before if early else key.not_after
    words = "is not valid before" if early else "expired at"
    raise UntrustedError(
        f"{shown(origin)} is signed by {_named(key)}, the key {key.id}, which {words} "
        f"{format_time(bound) if bound else ''}; it is {format_time(now)} now.",
        remedy="Check this machine's clock; otherwise have the bundle signed by a valid key, or "
        "change the key's dates in the trust store.",
    )


def _check_scope(key: TrustedKey, statement: Statement, trust: TrustStore) -> None:
    if key.covers(statement.identity):
        return
    raise UntrustedError(
        f"the plugin {shown(statement.identity)} is signed by {_named(key)}, the key {key.id}, "
        f"which {shown(trust.origin)} lets sign {shown(key.scope)} only.",
        remedy="Have it signed by a key for this plugin, or widen `plugins` of the key's entry.",
    )


def _check_standing(statement: Statement, trust: TrustStore, now: datetime) -> None:
    revocation = trust.revoked.get(statement.root_digest)
    if revocation is not None:
        what = f"the bundle {shown(statement.identity)} {statement.root_digest}"
        raise _revoked(what, revocation)
    if statement.expires is not None and now > statement.expires:
        raise UntrustedError(
            f"the signature of {shown(statement.identity)} {shown(statement.version)} expired at "
            f"{format_time(statement.expires)}; it is {format_time(now)} now.",
            remedy="Get a newer release; its author signs again with `sandbox-host sign`.",
        )


def _check_files(statement: Statement, files: Mapping[str, bytes], origin: str) -> None:
    found = differences(statement.files, files)
    if not found:
        return
    more = f" ({len(found) - 1} more files differ)" if len(found) > 1 else ""
    raise VerificationError(
        f"{shown(origin)} is not what was signed: {found[0]}{more}.",
        remedy="Get the bundle again; if the change is yours, sign it again (`sandbox-host sign`).",
    )


def _check_agreement(manifest: Manifest, statement: Statement) -> None:
    for field in ("name", "version", "plugin_api"):
        here, signed = getattr(manifest, field), getattr(statement, field)
        if here != signed:
            raise ManifestError(
                f"plugin.json: {field}: {shown(here)} differs from the signed statement's "
                f"{shown(signed)}.",
                remedy="Sign the bundle again (`sandbox-host sign`).",
            )


def _revoked(what: str, revocation: Revocation) -> UntrustedError:
    return UntrustedError(
        f"{what} was revoked on {revocation.date.isoformat()}: {shown(revocation.reason)}.",
        remedy="Get a newer release with a good signature; a revocation is not undone.",
    )


def _named(key: TrustedKey) -> str:
    """Return the key's label and roles, as ``weather team (publisher)``."""
    return f"{key.label} ({', '.join(key.roles)})"

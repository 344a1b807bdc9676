"""The one way to a `VerifiedBundle`: an ordered check without clock, file system or network.

The order is the point. Trust is decided over the raw payload before one byte of it is parsed, so
that a stranger's bytes never reach a parser with more freedom than the envelope's; and the files
are compared before plugin.json is read, so that only signed bytes are.

    1  an envelope is there, and it is a DSSE envelope with 1 to 16 signatures
    2  each signature over the raw payload is judged: none by a key of the trust store is bad
    3  as many distinct keys as the store asks for every plugin signed it, unrevoked and valid now
    4  the payload is a statement of ours, well-formed to the last path
    5  as many of these keys as the store asks for this plugin may sign it
    6  neither has the statement expired, nor was the bundle revoked
    7  the files are exactly those signed: names, sizes, hashes, none more and none fewer
    8  plugin.json and the rest obey the rules of every bundle
    9  the signed name, version and plugin_api are plugin.json's

What a signature by an unknown, a revoked or an expired key is worth, `counting` says: nothing, for
or against. With the threshold met by others, such a bundle is verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, final

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.counting import Judged, for_plugin, judge, objections, require
from sandbox_host.bundle.differences import differences, first_difference
from sandbox_host.bundle.envelope import Envelope, parse_envelope
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.statement import Statement, format_time, parse_statement
from sandbox_host.bundle.trust import TrustedKey, TrustStore
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
    """Proof that these bytes were signed by as many keys as the trust store asks for.

    Only `verify` makes one: whoever holds it need not check again.

    Attributes:
        manifest: parsed of the verified plugin.json.
        files: the verified bytes by path, read-only, sorted by path.
        root_digest: stands for all files, in hexadecimal; see `envelope.root_digest_of`.
        key_id: SHA-256 of the public key of the first signer that counts.
        signer: that key's label and roles in the trust store, for people.
        origin: where the bytes were read; they are never read there again.
        signers: every key that counts, in the order of the signatures; at least one.
        disregarded: why other signatures of the envelope do not count, for people.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    root_digest: str
    key_id: str
    signer: str
    origin: str
    signers: tuple[TrustedKey, ...]
    disregarded: tuple[str, ...]
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
        VerificationError: a signature is bad, the envelope or statement is malformed, or the
            files are not those that were signed.
        UntrustedError: too few keys count: the others are unknown, revoked, outside their validity
            or their scope; or the bundle is revoked or has expired.
        BundleError: the signed files break a rule of every bundle.
        ManifestError: plugin.json is not acceptable or disagrees with the statement.
    """
    if now.tzinfo is None:
        raise UsageError("verify needs the time with its time zone.")
    origin = contents.origin
    files = MappingProxyType({path: bytes(contents.files[path]) for path in sorted(contents.files)})
    envelope = _read_envelope(contents)  # 1
    judged = judge(envelope, trust, now, origin)  # 2
    require(judged, trust.threshold, shown(origin))  # 3
    statement = parse_statement(envelope.payload)  # 4
    judged = for_plugin(judged, statement.identity, trust)
    signers = _require_signers(judged, statement, trust)  # 5
    _check_standing(statement, trust, now)  # 6
    _check_files(statement, files, origin)  # 7
    manifest = check_contents(files)  # 8
    _check_agreement(manifest, statement)  # 9
    return VerifiedBundle(
        manifest=manifest,
        files=files,
        root_digest=statement.root_digest,
        key_id=signers[0].id,
        signer=signers[0].signer,
        origin=origin,
        signers=signers,
        disregarded=objections(judged),
        token=_TOKEN,
    )


def _read_envelope(contents: Contents) -> Envelope:
    if contents.envelope is None:
        raise UnsignedError(
            f"the bundle {shown(contents.origin)} is not signed: it holds no plugin.dsse.json.",
            remedy="Sign it (`sandbox-host sign`), or get the signed bundle from its author.",
        )
    return parse_envelope(contents.envelope)


def _require_signers(
    judged: tuple[Judged, ...], statement: Statement, trust: TrustStore
) -> tuple[TrustedKey, ...]:
    count = trust.threshold_for(statement.identity)
    return require(judged, count, f"the plugin {shown(statement.identity)}")


def _check_standing(statement: Statement, trust: TrustStore, now: datetime) -> None:
    revocation = trust.revoked.get(statement.root_digest)
    if revocation is not None:
        raise UntrustedError(
            f"the bundle {shown(statement.identity)} {statement.root_digest} was revoked on "
            f"{revocation.date.isoformat()}: {shown(revocation.reason)}.",
            remedy="Get a newer release; a revocation is not undone.",
        )
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
    error = VerificationError(
        f"{shown(origin)} is not what was signed: {found[0]}{more}.",
        remedy="Get the bundle again; if the change is yours, sign it again (`sandbox-host sign`).",
    )
    error.differing = first_difference(statement.files, files)
    raise error


def _check_agreement(manifest: Manifest, statement: Statement) -> None:
    for field in ("name", "version", "plugin_api"):
        here, signed = getattr(manifest, field), getattr(statement, field)
        if here != signed:
            raise ManifestError(
                f"plugin.json: {field}: {shown(here)} differs from the signed statement's "
                f"{shown(signed)}.",
                remedy="Sign the bundle again (`sandbox-host sign`).",
            )

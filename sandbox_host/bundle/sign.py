"""Sign what was read: the other end of `verify`, by the same rules.

Whoever signs is a `Signer`: a key in memory, an agent, a program. None is believed: each signature
is verified strictly before it goes anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.envelope import (
    MAX_SIGNATURES,
    Envelope,
    Signature,
    parse_envelope,
    pre_authentication_encoding,
    render_envelope,
)
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.rules import check_contents
from sandbox_host.bundle.signature import key_id, public_key_fault, signature_fault
from sandbox_host.bundle.statement import (
    Statement,
    build_statement,
    list_files,
    parse_statement,
    root_digest_of,
)
from sandbox_host.errors import SignerError, UnsignedError, UsageError, VerificationError


class Signer(Protocol):
    """Who can sign: a `sandbox_host.bundle.signature.PrivateKey`, or one of `sandbox_host.signing`.

    Neither its key nor what it returns is believed; see `signature_of`.
    """

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes, known before anything is signed."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`: 64 raw bytes.

        Raises:
            SignerError: it could not be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Draft:
    """What is about to be signed: the payload's bytes, and what they say.

    Attributes:
        signatures: that the envelope has already; nobody has checked them.
    """

    payload: bytes
    statement: Statement
    signatures: tuple[Signature, ...] = ()


def sign(
    contents: Contents, signer: Signer, now: datetime, expires: datetime | None = None
) -> bytes:
    """Return the envelope for `contents`; an envelope that they hold already is ignored.

    Nothing is written: `stage.stage_source` makes a signed copy.

    Args:
        contents: what was read of the plugin.
        signer: whose signature it will be.
        now: goes into the statement as the time of signing, in whole seconds.
        expires: when the signature stops counting; None is "until it is revoked".

    Raises:
        BundleError: the files break a rule of every bundle.
        ManifestError: plugin.json is not acceptable.
        SignerError: the signer did not sign.
        UsageError: a time is without its time zone, or `expires` is not after `now`.
    """
    return complete(draft(contents, now, expires), signer)


def draft(contents: Contents, now: datetime, expires: datetime | None = None) -> Draft:
    """Return what `sign` would sign, for showing it first; see there."""
    if now.tzinfo is None or (expires is not None and expires.tzinfo is None):
        raise UsageError("sign needs its times with their time zone.")
    created = now.replace(microsecond=0)
    until = expires.replace(microsecond=0) if expires else None
    if until is not None and until <= created:
        raise UsageError("the signature would expire before it is made.")
    payload = build_statement(_statement(contents, created, until))
    # Whatever the strict parsers would refuse must fail here, at the author's desk.
    return Draft(payload, parse_statement(payload))


def draft_more(contents: Contents) -> Draft:
    """Return the payload that `contents` are signed with already, for one more signature of it.

    It is taken only if it is, byte for byte, what signing these very files at that time would
    give: a second person signs what lies before them, not what an envelope says of it.

    Raises:
        UnsignedError: there is no envelope.
        VerificationError: it is malformed, or its payload is not that of these files.
        BundleError: as `sign`.
        ManifestError: as `sign`.
    """
    if contents.envelope is None:
        raise UnsignedError(
            f"{shown(contents.origin)} is not signed yet, so there is nothing to add to.",
            remedy="Sign it first, without --add.",
        )
    envelope = parse_envelope(contents.envelope)
    claimed = parse_statement(envelope.payload)
    ours = build_statement(_statement(contents, claimed.created, claimed.expires))
    if ours != envelope.payload:
        raise VerificationError(
            f"what {shown(contents.origin)} was signed as is not what it is: its files, its "
            "plugin.json or the form of the statement differ.",
            remedy="`sandbox-host verify` names the difference. Get the plugin again from whoever "
            "signed it first; or sign it as it is, without --add and thereby anew.",
        )
    return Draft(envelope.payload, claimed, envelope.signatures)


def complete(draft: Draft, signer: Signer) -> bytes:
    """Return the envelope with the signer's signature after those that are there.

    Raises:
        SignerError: the signer did not sign.
        UsageError: it has signed this already, or there are 16 signatures.
    """
    message = pre_authentication_encoding(draft.payload)
    if len(draft.signatures) >= MAX_SIGNATURES:
        raise UsageError(
            f"this envelope has {MAX_SIGNATURES} signatures, the most that one may have.",
            remedy="Sign it anew, without --add.",
        )
    for one in draft.signatures:
        if one.key_id == key_id(signer.public) or not signature_fault(
            signer.public, one.value, message
        ):
            raise UsageError(
                f"the key {key_id(signer.public)} has signed this already.",
                remedy="Add the signature of another key: each counts once.",
            )
    added = Signature(key_id(signer.public), signature_of(signer, message))
    envelope = render_envelope(Envelope(draft.payload, (*draft.signatures, added)))
    parse_envelope(envelope)
    return envelope


def signature_of(signer: Signer, message: bytes) -> bytes:
    """Return the signer's signature of `message`, verified as strictly as any other.

    Raises:
        SignerError: its key is weak, or what it returned is no good signature by that key. Faulty
            hardware is one cause; a signature with a fault can give the private key away.
    """
    weakness = public_key_fault(signer.public)
    if weakness:
        raise SignerError(
            f"the signer's public key {weakness}.", remedy="Make a key: `sandbox-host keygen`."
        )
    signature = signer.sign(message)
    reason = signature_fault(signer.public, signature, message)
    if reason:
        raise SignerError(
            f"the signature that the key {key_id(signer.public)} gave is not good: {reason}. "
            "Nothing was written.",
            remedy="Check that the signer has this key, and that it signs with plain Ed25519 (RFC "
            "8032) the bytes that it is given.",
        )
    return signature


def _statement(contents: Contents, created: datetime, expires: datetime | None) -> Statement:
    manifest = check_contents(contents.files)
    files = list_files(contents.files)
    return Statement(
        name=manifest.name,
        version=manifest.version,
        plugin_api=manifest.plugin_api,
        created=created,
        expires=expires,
        files=files,
        root_digest=root_digest_of(files),
    )

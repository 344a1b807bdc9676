"""Whose signatures on an envelope count, and whether they are enough.

A signature counts if it is a good one of a key that is in the trust store, not revoked, valid now
and for this plugin. Keys are counted, not signatures and not names: each by its 32 bytes, once.

* A signature that is not good, of a key that the store knows, refuses the bundle, whatever else
  counts: somebody changed the payload, or forges.
* A signature of an unknown key neither counts nor refuses: another organisation may sign too, and
  its key is no business of this store.
* A signature of a revoked key does not count, and is not even looked at. It does not refuse what
  enough others vouch for, because revocation says that the key's word is worth nothing, for or
  against: if it could refuse, whoever stole the key could veto any release by signing it. A bundle
  that must not run is revoked by its own digest.
* The same holds for keys that are not valid yet or any more, or are for other plugins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sandbox_host.bundle.envelope import Envelope, Signature, pre_authentication_encoding
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.signature import signature_fault
from sandbox_host.bundle.statement import format_time
from sandbox_host.bundle.trust import Revocation, TrustedKey, TrustStore
from sandbox_host.errors import UntrustedError, VerificationError

MAX_TRIALS: Final = 1_000
MAX_TRIAL_BYTES: Final = 64 << 20
"""How much may be spent, for one envelope, on signatures whose key id the store does not know: the
keys of the store are tried, each costing about 0.15 ms and the hashing of the payload."""

_OUR_ID: Final = re.compile(r"[0-9a-f]{64}")
_SIGN_MORE: Final = (
    "Have it signed by one more key that is trusted for it (`sandbox-host sign --add`), or get the "
    "release that is."
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One signature of an envelope and what it is worth.

    Attributes:
        key: the store's entry, or None where there is none.
        whom: who signed, for messages.
        objection: why it does not count, as the rest of a sentence after "which"; "" where it does.
        remedy: what to do about that.
    """

    key: TrustedKey | None
    whom: str
    objection: str = ""
    remedy: str = ""


def judge(envelope: Envelope, trust: TrustStore, now: datetime, origin: str) -> tuple[Judged, ...]:
    """Judge every signature over the raw payload; nothing of that is parsed.

    Raises:
        VerificationError: a signature by a key of the store is not good.
    """
    message = pre_authentication_encoding(envelope.payload)
    trials = min(MAX_TRIALS, MAX_TRIAL_BYTES // len(message))
    judged: list[Judged] = []
    seen: set[bytes] = set()
    for signature in envelope.signatures:
        # Revoked first: a revoked key is told by its name even when its entry is gone.
        revocation = trust.revoked.get(signature.key_id)
        if revocation is not None:
            judged.append(_revoked(_whom(signature.key_id), revocation))
            continue
        key = trust.keys.get(signature.key_id)
        if key is not None:
            _check_good(key, signature, message, origin)
        else:
            tried = tuple(trust.keys.values())[:trials]
            trials -= len(tried)
            key = _signer_among(tried, signature, message)
        if key is not None and key.public in seen:
            judged.append(Judged(key, _named(key), "signed it twice, which counts once"))
            continue
        seen |= {key.public} if key is not None else set()
        judged.append(_standing(key, signature, trust, now))
    return tuple(judged)


def for_plugin(judged: tuple[Judged, ...], identity: str, trust: TrustStore) -> tuple[Judged, ...]:
    """Return `judged` with an objection to every key that may not sign the plugin `identity`."""

    def scoped(one: Judged) -> Judged:
        if one.objection or one.key is None or one.key.covers(identity):
            return one
        return replace(
            one,
            objection=f"{shown(trust.origin)} lets sign {shown(one.key.scope)} only",
            remedy="Have it signed by a key for this plugin, or widen `plugins` of the key's "
            "entry.",
        )

    return tuple(scoped(one) for one in judged)


def require(judged: tuple[Judged, ...], count: int, what: str) -> tuple[TrustedKey, ...]:
    """Return the keys that count, in the order of their signatures.

    Args:
        judged: all signatures.
        count: how many distinct keys have to count.
        what: what was signed, for messages.

    Raises:
        UntrustedError: fewer do; the message says why the others do not.
    """
    keys = tuple(one.key for one in judged if one.key is not None and not one.objection)
    if len(keys) >= count:
        return keys
    if len(judged) == 1 and judged[0].objection:
        one = judged[0]
        raise UntrustedError(
            f"{what} is signed by {one.whom}, which {one.objection}.", remedy=one.remedy
        )
    plural = "" if len(keys) == 1 else "s"
    others = "".join(f"; {text}" for text in objections(judged))
    raise UntrustedError(
        f"{what} has {len(keys)} signature{plural} that count{'s' if not plural else ''}, and "
        f"needs {count}{others}.",
        remedy=_SIGN_MORE,
    )


def objections(judged: tuple[Judged, ...]) -> tuple[str, ...]:
    """Return why each signature that does not count does not, for people."""
    return tuple(f"{one.whom}, which {one.objection}" for one in judged if one.objection)


def _check_good(key: TrustedKey, signature: Signature, message: bytes, origin: str) -> None:
    reason = signature_fault(key.public, signature.value, message)
    if reason:
        raise VerificationError(
            f"the signature of {shown(origin)} is not good for {_named(key)}: {reason}.",
            remedy="Get the bundle again; if you are its author, sign it again "
            "(`sandbox-host sign`).",
        )


def _signer_among(
    keys: tuple[TrustedKey, ...], signature: Signature, message: bytes
) -> TrustedKey | None:
    """Return whose signature this is; other tools have other ids for the same key."""
    return next(
        (key for key in keys if not signature_fault(key.public, signature.value, message)), None
    )


def _standing(
    key: TrustedKey | None, signature: Signature, trust: TrustStore, now: datetime
) -> Judged:
    if key is None:
        return Judged(
            None,
            _whom(signature.key_id),
            f"is not in {shown(trust.origin)}",
            "Ask its author for the public key by another way, compare this id, and add it with "
            "`sandbox-host trust add`, for this plugin only.",
        )
    if key.id in trust.revoked:
        return _revoked(_named(key), trust.revoked[key.id])
    early = key.not_before is not None and now < key.not_before
    late = key.not_after is not None and now > key.not_after
    if not early and not late:
        return Judged(key, _named(key))
    bound = key.not_before if early else key.not_after
    words = "is not valid before" if early else "expired at"
    return Judged(
        key,
        _named(key),
        f"{words} {format_time(bound) if bound else ''}; it is {format_time(now)} now",
        "Check this machine's clock; otherwise have the bundle signed by a valid key, or change "
        "the key's dates in the trust store.",
    )


def _revoked(whom: str, revocation: Revocation) -> Judged:
    return Judged(
        None,
        whom,
        f"was revoked on {revocation.date.isoformat()}: {shown(revocation.reason)}",
        "Get a newer release with a good signature; a revocation is not undone.",
    )


def _named(key: TrustedKey) -> str:
    return f"{key.signer}, the key {key.id}"


def _whom(hint: str) -> str:
    if not hint:
        return "a key that it does not name"
    return f"the key {hint}" if _OUR_ID.fullmatch(hint) else f"the key {shown(hint)}"

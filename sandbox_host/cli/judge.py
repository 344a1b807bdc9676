"""One verdict: a candidate is read once and goes through the one verification that there is."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sandbox_host.bundle.envelope import parse_envelope
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.verify import verify
from sandbox_host.cli.exits import Exit, exit_for
from sandbox_host.cli.reports.model import (
    VERIFIED,
    DifferingFile,
    Signer,
    Verdict,
    next_command,
)
from sandbox_host.errors import RefusedError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox_host.bundle.contents import Contents
    from sandbox_host.bundle.trust import TrustedKey, TrustStore
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.cli.candidates import Candidate


def judge(
    candidate: Candidate,
    trust: TrustStore,
    now: datetime,
    remember: Callable[[VerifiedBundle], None] = lambda _: None,
) -> Verdict:
    """Read and verify one plugin; nothing of its bytes is kept.

    Args:
        candidate: where it is.
        trust: whose signatures count.
        now: the moment to judge validity at, the same for all plugins of a run.
        remember: raises a RefusedError where a verified bundle is not what hosts have seen before.
    """
    contents: Contents | None = None
    try:
        contents = read_bundle(candidate.path)
        bundle = verify(contents, trust, now)
        remember(bundle)
        return _verified(candidate, bundle)
    except RefusedError as error:
        return _refused(candidate, error, claimed_signers(contents, trust))


def refused_path(path: Path, error: RefusedError) -> Verdict:
    """Return the verdict on a path that holds no plugin, or too much."""
    return Verdict(
        path=str(path),
        code=error.code,
        exit_code=exit_for(error),
        reason=error.message,
        remedy=error.remedy,
    )


def _verified(candidate: Candidate, bundle: VerifiedBundle) -> Verdict:
    return Verdict(
        path=str(candidate.path),
        code=VERIFIED,
        exit_code=Exit.OK,
        plugin=bundle.manifest.identity,
        version=bundle.manifest.version,
        digest=bundle.root_digest,
        files=len(bundle.files),
        signers=tuple(_signer(key) for key in bundle.signers),
        disregarded=bundle.disregarded,
        anchor=candidate.anchor,
        archive=candidate.archive,
    )


def _refused(candidate: Candidate, error: RefusedError, signers: tuple[Signer, ...]) -> Verdict:
    path = str(candidate.path)
    differing = error.differing if isinstance(error, VerificationError) else None
    return Verdict(
        path=path,
        code=error.code,
        exit_code=exit_for(error),
        signers=signers,
        reason=error.message,
        remedy=error.remedy,
        command=next_command(error.code, path),
        anchor=candidate.anchor,
        file=DifferingFile(*differing) if differing else None,
        archive=candidate.archive,
    )


def claimed_signers(contents: Contents | None, trust: TrustStore) -> tuple[Signer, ...]:
    """Return the keys that an envelope claims, with what the trust store says of each.

    A claim is no more than that: whoever writes an envelope may name any key in it.
    """
    if contents is None or contents.envelope is None:
        return ()
    try:
        envelope = parse_envelope(contents.envelope)
    except VerificationError:
        return ()
    return tuple(_claimed(one.key_id, trust) for one in envelope.signatures)


def _claimed(key_id: str, trust: TrustStore) -> Signer:
    key = trust.keys.get(key_id)
    return Signer(key_id) if key is None else _signer(key)


def _signer(key: TrustedKey) -> Signer:
    return Signer(key.id, key.signer, tuple(key.plugins))

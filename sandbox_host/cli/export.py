"""What `inspect --export` writes, so that anybody can check a signature without us.

Three things make one check: the bytes that were signed (DSSE's pre-authentication encoding), the
signature, and the public key. The envelope has the first two; the key is in the trust store alone,
because an envelope only names it.
"""

from __future__ import annotations

import base64
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents
from sandbox_host.bundle.envelope import (
    Envelope,
    Signature,
    parse_envelope,
    pre_authentication_encoding,
)
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.cli.output import field, place, say
from sandbox_host.cli.targets import Target
from sandbox_host.cli.written import write_file
from sandbox_host.errors import UnsignedError, UntrustedError, UsageError

KINDS: Final[Mapping[str, str]] = {
    "pae": "what was signed, in DSSE's pre-authentication encoding",
    "sig": "the signature, 64 raw bytes",
    "pem": "the public key that the trust store has for it",
}
"""What may be exported, in words."""

_SPKI_FRAME: Final = bytes.fromhex("302a300506032b6570032100")
_MIN_PREFIX: Final = 8


def export(
    contents: Contents, targets: tuple[Target, ...], by: str, read_trust: Callable[[], TrustStore]
) -> None:
    """Write parts of an envelope; nothing of it is checked.

    Args:
        contents: of the plugin.
        targets: what to write, and where; the kinds are those of `KINDS`.
        by: of several signatures, the one that claims the key whose id begins so; "" for none.
        read_trust: gives the trust store; called only for a public key.

    Raises:
        UnsignedError: there is no envelope.
        VerificationError: it is malformed.
        UsageError: it is not clear which signature is meant, or a terminal would get binary data.
        UntrustedError: the trust store does not have the public key.
        ConfigError: a file cannot be written.
    """
    if contents.envelope is None:
        raise UnsignedError(
            f"the bundle {shown(contents.origin)} is not signed: there is no {ENVELOPE_NAME} to "
            "export from.",
            remedy="Get the signed bundle from its author.",
        )
    envelope = parse_envelope(contents.envelope)
    signature = chosen_signature(envelope, by)
    parts = {target.kind: _part(target.kind, envelope, signature, read_trust) for target in targets}
    for target in targets:
        _write(target, parts[target.kind])
    files = {target.kind: target.path for target in targets if target.path is not None}
    if len(files) == len(targets):
        _tell(files, parts)


def chosen_signature(envelope: Envelope, by: str) -> Signature:
    """Return the only signature, or the one whose key id begins with `by`.

    Raises:
        UsageError: there are several of them, or none.
    """
    found = [one for one in envelope.signatures if one.key_id.startswith(by)]
    if by and len(by) < _MIN_PREFIX:
        found = []
    if len(found) == 1:
        return found[0]
    claimed = ", ".join(shown(one.key_id) for one in envelope.signatures)
    asked = f"{len(found)} signatures claim the key {shown(by)}" if by else "it has several"
    raise UsageError(
        f"Which signature is not clear: {asked}; the envelope's claim {claimed}.",
        remedy=f"Name one with --by KEY, the first {_MIN_PREFIX} characters of its id or more.",
    )


def public_key_pem(public: bytes) -> bytes:
    """Return a raw Ed25519 public key as PEM of a SubjectPublicKeyInfo (RFC 8410, section 4)."""
    encoded = base64.b64encode(_SPKI_FRAME + public).decode()
    lines = ["-----BEGIN PUBLIC KEY-----", *textwrap.wrap(encoded, 64), "-----END PUBLIC KEY-----"]
    return "".join(f"{line}\n" for line in lines).encode()


def _part(
    kind: str, envelope: Envelope, signature: Signature, read_trust: Callable[[], TrustStore]
) -> bytes:
    if kind == "pae":
        return pre_authentication_encoding(envelope.payload)
    if kind == "sig":
        return signature.value
    trust = read_trust()
    key = trust.keys.get(signature.key_id)
    if key is None:
        raise UntrustedError(
            f"the signature claims the key {shown(signature.key_id)}, which is not in "
            f"{shown(trust.origin)}; an envelope holds no public key.",
            remedy="Ask the plugin's author for the public key by another way, and give that to "
            "the tool that checks.",
        )
    return public_key_pem(key.public)


def _write(target: Target, data: bytes) -> None:
    if target.path is not None:
        write_file(target.path, data, f"the export of {target.kind}")
        return
    if target.kind != "pem" and sys.stdout.isatty():
        raise UsageError(
            f"--export {target.kind} is binary, and standard output is a terminal.",
            remedy=f"Send it to a file: --export {target.kind}=FILE.",
        )
    click.echo(data, nl=False)


def _tell(files: Mapping[str, Path], parts: Mapping[str, bytes]) -> None:
    for kind, path in files.items():
        say(f"{place(path)}: {KINDS[kind]}, {len(parts[kind])} bytes")
    if files.keys() == KINDS.keys():
        pem, pae, sig = (shlex.quote(str(files[kind])) for kind in ("pem", "pae", "sig"))
        say()
        say("Nothing was checked. To check the signature with another tool:")
        field(
            "command",
            f"openssl pkeyutl -verify -rawin -pubin -inkey {pem} -in {pae} -sigfile {sig}",
        )
        field("then", "compare each file's SHA-256 with the one in what was signed.")

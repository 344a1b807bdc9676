"""The payload signed once more in the forms of other tools: minisign, signify, OpenSSH.

Whoever wants to check a release without us has these files and the payload, which lists every file
with its SHA-256. They are made at signing because two of them cover more than the payload: the
key's owner has to sign again. Nothing here is read by a host.

* minisign: the prehashed form, ``ED``: Ed25519 over BLAKE2b-512 of the payload; a second, global
  signature over the first one and the trusted comment (minisign's signature format).
* signify: Ed25519 over the payload itself (signify(1), OpenBSD).
* SSHSIG: over a structure with a namespace and SHA-512 of the payload (OpenSSH PROTOCOL.sshsig).
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sandbox_host.bundle.public_keys import OPENSSH_TYPE, format_public_key, openssh_blob
from sandbox_host.bundle.sign import Signer, signature_of
from sandbox_host.bundle.signature import key_id
from sandbox_host.errors import UsageError
from sandbox_host.signing.ssh_wire import string, u32

SSH_NAMESPACE: Final = "sandbox-host-bundle"
"""Keeps a signature of a plugin from being taken for one of a commit, a login or anything else."""

_KEY_NUMBER_BYTES: Final = 8
_MAX_COMMENT: Final = 512
_SSHSIG_MAGIC: Final = b"SSHSIG"
_SSHSIG_VERSION: Final = 1
_SSHSIG_HASH: Final = "sha512"
_SSHSIG_WIDTH: Final = 70


@dataclass(frozen=True, slots=True)
class Exported:
    """One form: the signature's file and the public key's file, as the tool reads them."""

    signature: bytes
    public: bytes


def export(form: str, signer: Signer, payload: bytes, comment: str) -> Exported:
    """Sign `payload` in a form of another tool.

    Args:
        form: one of `FORMS`.
        signer: who signs; each signature is verified before it is returned.
        payload: the bytes that the tool will be given beside the signature.
        comment: what was signed, on one line; minisign signs it too.

    Raises:
        UsageError: there is no such form, or the comment has more than one line.
        SignerError: the signer did not sign.
    """
    if form not in FORMS:
        raise UsageError(
            f"there is no form {form!r} to sign in.", remedy=f"There are: {', '.join(FORMS)}."
        )
    if not comment.isprintable() or len(comment) > _MAX_COMMENT:
        raise UsageError("a comment is one printable line.", remedy="Shorten it.")
    return FORMS[form](signer, payload, comment)


def _minisign(signer: Signer, payload: bytes, comment: str) -> Exported:
    number = _key_number(signer.public)
    signature = signature_of(signer, hashlib.blake2b(payload).digest())
    covered = signature_of(signer, signature + comment.encode())
    lines = (
        "untrusted comment: signature of a sandbox-host plugin's statement",
        _base64(b"ED" + number + signature),
        f"trusted comment: {comment}",
        _base64(covered),
    )
    # minisign shows a key number as one little-endian integer.
    name = int.from_bytes(number, "little")
    return Exported(
        _lines(*lines),
        _lines(
            f"untrusted comment: minisign public key {name:016X}",
            _base64(b"Ed" + number + signer.public),
        ),
    )


def _signify(signer: Signer, payload: bytes, comment: str) -> Exported:
    number = _key_number(signer.public)
    signature = signature_of(signer, payload)
    return Exported(
        _lines(f"untrusted comment: {comment}", _base64(b"Ed" + number + signature)),
        _lines(
            f"untrusted comment: sandbox-host key {key_id(signer.public)[:16]} public key",
            _base64(b"Ed" + number + signer.public),
        ),
    )


def _sshsig(signer: Signer, payload: bytes, comment: str) -> Exported:
    del comment  # the form has none
    common = string(SSH_NAMESPACE.encode()) + string(b"") + string(_SSHSIG_HASH.encode())
    message = _SSHSIG_MAGIC + common + string(hashlib.sha512(payload).digest())
    signature = string(OPENSSH_TYPE.encode()) + string(signature_of(signer, message))
    blob = _SSHSIG_MAGIC + u32(_SSHSIG_VERSION) + string(openssh_blob(signer.public))
    blob += common + string(signature)
    # A line of an allowed signers file, which `ssh-keygen -Y verify -f` reads: who, for what, key.
    who = key_id(signer.public)
    allowed = f'{who} namespaces="{SSH_NAMESPACE}" {format_public_key(signer.public)}'
    return Exported(
        _lines(
            "-----BEGIN SSH SIGNATURE-----",
            *textwrap.wrap(_base64(blob), _SSHSIG_WIDTH),
            "-----END SSH SIGNATURE-----",
        ),
        _lines(allowed),
    )


FORMS: Final[Mapping[str, Callable[[Signer, bytes, str], Exported]]] = MappingProxyType(
    {"minisign": _minisign, "signify": _signify, "sshsig": _sshsig}
)
"""Every form by its name; a function of signer, payload and comment."""


def _key_number(public: bytes) -> bytes:
    # Any eight bytes that tell keys apart; derived, so that one key always has the same.
    return bytes.fromhex(key_id(public))[:_KEY_NUMBER_BYTES]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()

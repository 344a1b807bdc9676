"""Ed25519 public keys in the forms that people hand around: OpenSSH, PEM, base64, raw.

Each form has a fixed frame around the 32 bytes, so that none needs a parser: RFC 8709, section 4,
for OpenSSH's, and RFC 8410, section 4, for the SubjectPublicKeyInfo in a PEM file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final

from sandbox_host.bundle.signature import PUBLIC_KEY_BYTES, public_key_fault
from sandbox_host.errors import TrustStoreError

MAX_KEY_FILE_BYTES: Final = 16 << 10
"""The most of a file that is looked at, whatever key it holds."""

OPENSSH_TYPE: Final = "ssh-ed25519"
_OPENSSH_FRAME: Final = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
_SPKI_FRAME: Final = bytes.fromhex("302a300506032b6570032100")
_PEM: Final = re.compile(
    rb"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]{1,200})-----END PUBLIC KEY-----"
)
_PRIVATE_PEM: Final = re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")


def parse_public_key(data: bytes) -> bytes:
    """Read a public key: an OpenSSH line, PEM, base64 of 32 bytes, or 32 raw bytes.

    Returns:
        The 32 raw bytes, checked to be safe to trust.

    Raises:
        TrustStoreError: it is none of these, or the key is weak.
    """
    remedy = "Give an Ed25519 public key: an OpenSSH line, PEM, or base64 of its 32 bytes."
    raw = _public_bytes(data) if len(data) <= MAX_KEY_FILE_BYTES else None
    if raw is None:
        raise TrustStoreError("the public key cannot be read.", remedy=remedy)
    weakness = public_key_fault(raw)
    if weakness:
        raise TrustStoreError(
            f"the public key {weakness}; anyone could sign for it.", remedy=remedy
        )
    return raw


def is_private(data: bytes) -> bool:
    """Tell whether `data` begins as the PEM of a private key does, whatever its algorithm."""
    return _PRIVATE_PEM.match(data.lstrip()) is not None


def openssh_blob(public: bytes) -> bytes:
    """Return a raw public key as SSH's protocols carry it."""
    return _OPENSSH_FRAME + public


def fingerprint(public: bytes) -> str:
    """Return what `ssh-keygen -l` and `ssh-add -l` show for a raw public key: ``SHA256:...``."""
    digest = hashlib.sha256(openssh_blob(public)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def format_public_key(public: bytes, comment: str = "") -> str:
    """Return a raw public key as the one line that OpenSSH writes, without a line feed."""
    line = f"{OPENSSH_TYPE} {base64.b64encode(openssh_blob(public)).decode()}"
    words = " ".join("".join(c if c.isprintable() else " " for c in comment).split())
    return f"{line} {words}" if words else line


def _public_bytes(data: bytes) -> bytes | None:
    if len(data) == PUBLIC_KEY_BYTES:
        return data
    text = data.strip()
    if text.startswith(b"ssh-"):
        kind, _, rest = text.partition(b" ")
        words = rest.split(None, 1)
        one_line = kind == OPENSSH_TYPE.encode() and words and b"\n" not in text
        return _framed(words[0], _OPENSSH_FRAME) if one_line else None
    if text.startswith(b"-----BEGIN"):
        match = _PEM.fullmatch(text)
        return _framed(b"".join(match[1].split()), _SPKI_FRAME) if match else None
    return _framed(text, b"")


def _framed(text: bytes, frame: bytes) -> bytes | None:
    """Return the 32 bytes after `frame` in base64 text, or None where there is anything else."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    raw = decoded.removeprefix(frame)
    whole = decoded.startswith(frame) and len(raw) == PUBLIC_KEY_BYTES
    return raw if whole else None

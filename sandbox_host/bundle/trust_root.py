"""The offline root: one key that signs whole trust stores, so that they can be handed around.

Beside a store ``trust.toml`` there may be two more files:

* ``trust.toml.root.pub`` pins the root: one OpenSSH public key line. Where it is there, a store
  without the root's good signature is no store.
* ``trust.toml.sig`` holds signatures, one a line: ``ed25519 KEY_ID BASE64``. Signed is DSSE's
  pre-authentication encoding of the store's bytes, with a payload type of its own, so that no
  signature of a plugin is ever one of a store, nor the other way round.

The root is rotated as The Update Framework does it (TUF specification, 5.3): the store that names
the new root, under ``[root]``, is signed by the old one and by the new one. `trust_install` checks
that, moves the pin, and is the only one that does. Loading never moves anything.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_host.bundle.envelope import MAX_SIGNATURES, pre_authentication_encoding
from sandbox_host.bundle.names import shown
from sandbox_host.bundle.protected import read_public
from sandbox_host.bundle.public_keys import parse_public_key
from sandbox_host.bundle.signature import SIGNATURE_BYTES, key_id, signature_fault
from sandbox_host.errors import TrustStoreError

STORE_PAYLOAD_TYPE: Final = "application/vnd.sandbox-host.trust-store+toml"
MAX_SIGNATURE_FILE_BYTES: Final = 4 << 10
MAX_PIN_BYTES: Final = 1 << 10

PIN: Final = "the pinned root key"
STORE_SIGNATURE: Final = "the trust store's signature"

_LINE: Final = re.compile(r"ed25519 ([0-9a-f]{64}) ([A-Za-z0-9+/]{86}==)")


@dataclass(frozen=True, slots=True)
class RootSignature:
    """One line of the signature file; nothing of it is verified."""

    key_id: str
    value: bytes


def signature_path(store: Path) -> Path:
    """Return where the signatures of the store at `store` are."""
    return store.with_name(f"{store.name}.sig")


def pin_path(store: Path) -> Path:
    """Return where the root of the store at `store` is pinned."""
    return store.with_name(f"{store.name}.root.pub")


def read_pin(store: Path) -> bytes | None:
    """Return the raw root key that is pinned for the store at `store`, or None where none is.

    Raises:
        TrustStoreError: there is a pin, and it is unprotected or no good public key.
    """
    path = pin_path(store)
    if not os.path.lexists(path):
        return None
    try:
        return parse_public_key(read_public(path, MAX_PIN_BYTES, PIN))
    except TrustStoreError as error:
        raise TrustStoreError(
            f"{PIN} {shown(str(path))} cannot be used: {error.message}",
            remedy="Put the root's public key there again, from a source that you trust; until "
            "then nothing is trusted.",
        ) from error


def read_signatures(store: Path) -> tuple[RootSignature, ...]:
    """Return the signatures beside the store at `store`; none where there is no such file.

    Raises:
        TrustStoreError: the file is unprotected or malformed.
    """
    path = signature_path(store)
    if not os.path.lexists(path):
        return ()
    data = read_public(path, MAX_SIGNATURE_FILE_BYTES, STORE_SIGNATURE)
    return parse_signatures(data, str(path))


def store_message(data: bytes) -> bytes:
    """Return what a root signs for a store of these bytes."""
    return pre_authentication_encoding(data, STORE_PAYLOAD_TYPE)


def parse_signatures(data: bytes, origin: str) -> tuple[RootSignature, ...]:
    """Return the lines of a signature file: 1 to 16, each in its one form.

    Raises:
        TrustStoreError: they are not; the message names the line.
    """
    if len(data) > MAX_SIGNATURE_FILE_BYTES or not data.endswith(b"\n"):
        raise _malformed(origin, f"it is not at most {MAX_SIGNATURE_FILE_BYTES} bytes of lines")
    lines = data.decode("ascii", "replace").split("\n")[:-1]
    if len(lines) > MAX_SIGNATURES:
        raise _malformed(origin, f"it has more than {MAX_SIGNATURES} lines")
    found = []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        value = _canonical(match[2]) if match else None
        if match is None or value is None:
            raise _malformed(origin, f"line {number} is not `ed25519 KEY_ID BASE64`")
        found.append(RootSignature(match[1], value))
    return tuple(found)


def render_signatures(signatures: Iterable[RootSignature]) -> bytes:
    """Return the signature file that `parse_signatures` reads."""
    return "".join(
        f"ed25519 {one.key_id} {base64.b64encode(one.value).decode()}\n" for one in signatures
    ).encode()


def good_signature(
    root: bytes, data: bytes, signatures: Iterable[RootSignature]
) -> RootSignature | None:
    """Return the good one of the raw key `root` over a store's bytes, or None.

    Others may stand beside it, such as that of the store before; they neither help nor harm.
    """
    message = store_message(data)
    mine = (one for one in signatures if one.key_id == key_id(root))
    return next((one for one in mine if not signature_fault(root, one.value, message)), None)


def check_signed(root: bytes, data: bytes, signatures: Iterable[RootSignature], what: str) -> None:
    """Refuse a store without its root's good signature.

    Raises:
        TrustStoreError: it has none.
    """
    if good_signature(root, data, signatures) is None:
        raise TrustStoreError(
            f"{what} is not signed by the root key {key_id(root)}: no signature beside it is that "
            "key's good one over these bytes.",
            remedy="Where the root's key is, sign the store (`sandbox-host trust sign`); here, "
            "`sandbox-host trust install` takes it. Changes by hand need a new signature too.",
        )


def _canonical(text: str) -> bytes | None:
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error:  # pragma: no cover - the pattern leaves nothing to refuse
        return None
    same = base64.b64encode(value).decode() == text and len(value) == SIGNATURE_BYTES
    return value if same else None


def _malformed(origin: str, reason: str) -> TrustStoreError:
    return TrustStoreError(
        f"{STORE_SIGNATURE} {shown(origin)} cannot be used: {reason}.",
        remedy="Make it again where the root's key is: `sandbox-host trust sign`.",
    )

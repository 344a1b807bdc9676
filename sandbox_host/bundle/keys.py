"""Private keys on disk: generated, written, read; and the key that development needs.

Written in OpenSSH's format, because its passphrases are stretched with bcrypt (PKCS#8 as the
library writes it uses PBKDF2 with 2,048 rounds). Read in that format, in PKCS#8, and as 32 raw
bytes. A passphrase never comes from a command line's arguments: others can list those.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.protected import (
    PRIVATE_KEY,
    create_public,
    create_secret,
    read_secret,
    refuse_existing,
)
from sandbox_host.bundle.public_keys import (
    MAX_KEY_FILE_BYTES,
    fingerprint,
    format_public_key,
    is_private,
    parse_public_key,
)
from sandbox_host.bundle.signature import SEED_BYTES, PrivateKey, key_id
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.trust_edit import add_key
from sandbox_host.config import TRUST_STORE_NAME
from sandbox_host.errors import PassphraseError, TrustStoreError

__all__ = [
    "DEVELOPMENT_KEY_NAME",
    "MAX_KEY_FILE_BYTES",
    "TRUST_STORE_NAME",
    "DevelopmentKey",
    "PrivateKey",
    "create_development_key",
    "fingerprint",
    "format_public_key",
    "generate_key",
    "is_private",
    "key_id",
    "load_private_key",
    "parse_private_key",
    "parse_public_key",
    "save_key_pair",
    "save_private_key",
]

DEVELOPMENT_KEY_NAME: Final = "dev.key"

_OPENSSH_HEADER: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_WHAT: Final = PRIVATE_KEY
_WHAT_PUBLIC: Final = "the public key"


@dataclass(frozen=True, slots=True)
class DevelopmentKey:
    """What `create_development_key` found or made.

    Attributes:
        created: the key was made by this very call.
    """

    key: PrivateKey
    path: Path
    trust_store: Path
    created: bool


def generate_key() -> PrivateKey:
    """Return a new private key from the system's random source."""
    return PrivateKey.from_seed(os.urandom(SEED_BYTES))


def save_private_key(key: PrivateKey, path: Path, passphrase: bytes | None = None) -> None:
    """Write `key` in OpenSSH's format to a new file with mode 0600.

    Raises:
        TrustStoreError: the file exists or cannot be written, or a passphrase was given and the
            package bcrypt, which stretches it, is not installed.
    """
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        if not passphrase:
            raise PassphraseError("the passphrase is empty.", remedy="Give one, or none at all.")
        encryption = serialization.BestAvailableEncryption(passphrase)
    try:
        data = key.library_key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
    except UnsupportedAlgorithm as error:
        raise _no_bcrypt() from error
    create_secret(path, data, _WHAT)


def save_key_pair(key: PrivateKey, path: Path, passphrase: bytes | None = None) -> Path:
    """Write `key` as `save_private_key` does, and its public half beside it.

    Returns:
        The new file of the public half: `path` with ``.pub`` at its end, one OpenSSH line, mode
        0644.

    Raises:
        TrustStoreError: as `save_private_key`, for either file; where one of them exists already,
            neither is written.
    """
    beside = path.with_name(f"{path.name}.pub")
    refuse_existing(beside, _WHAT_PUBLIC)
    save_private_key(key, path, passphrase)
    line = format_public_key(key.public, path.stem)
    create_public(beside, f"{line}\n".encode(), _WHAT_PUBLIC)
    return beside


def load_private_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key that nobody else can read.

    Raises:
        PassphraseError: it is encrypted and the passphrase is missing or wrong.
        TrustStoreError: it is missing, a link, accessible for others, owned by somebody else, or
            not an Ed25519 key in a form that we read.
    """
    return parse_private_key(
        read_secret(path, MAX_KEY_FILE_BYTES, _WHAT), passphrase, origin=str(path)
    )


def parse_private_key(
    data: bytes, passphrase: bytes | None = None, *, origin: str = "the given key"
) -> PrivateKey:
    """Read the bytes of an OpenSSH or PKCS#8 PEM file, or 32 raw bytes.

    A passphrase that an unencrypted key does not need is ignored.

    Raises:
        PassphraseError: it is encrypted and the passphrase is missing or wrong.
        TrustStoreError: it is not an Ed25519 key in one of these forms.
    """
    if len(data) == SEED_BYTES:
        return PrivateKey.from_seed(data)
    openssh = data.lstrip().startswith(_OPENSSH_HEADER)
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    where = f"{_WHAT} {shown(origin)}"
    try:
        try:
            key = load(data, None)
        except (TypeError, ValueError):
            # The library says "encrypted" with TypeError, and for some forms with ValueError.
            if passphrase is None:
                raise
            key = load(data, passphrase)
    except TypeError as error:
        raise PassphraseError(
            f"{where} is encrypted.", remedy="Give its passphrase when asked."
        ) from error
    except UnsupportedAlgorithm as error:
        raise _no_bcrypt() from error
    except ValueError as error:
        if passphrase is not None:
            raise PassphraseError(
                f"{where} does not open: the passphrase is wrong, or it is not a key.",
                remedy="Try again.",
            ) from error
        raise _not_a_key(where) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(where)
    return PrivateKey(key)


def create_development_key(config_dir: Path, trust_store: Path | None = None) -> DevelopmentKey:
    """Return this user's development key, making and trusting it where there is none.

    The key lives outside every repository, without a passphrase, and counts on this machine only:
    what it signs is refused wherever its public half was not added on purpose.

    Args:
        config_dir: the directory of `dev.key`; made with mode 0700.
        trust_store: where to trust it; by default ``trust.toml`` beside it.

    Raises:
        TrustStoreError: the key or the store is unusable, or the key was revoked.
    """
    path = config_dir / DEVELOPMENT_KEY_NAME
    store = trust_store or config_dir / TRUST_STORE_NAME
    created = not os.path.lexists(path)
    if created:
        save_private_key(generate_key(), path)
    key = load_private_key(path)
    known = TrustStore.load(store) if os.path.lexists(store) else None
    if known is None or key.key_id not in known.keys or key.key_id in known.revoked:
        # For a revoked key this says so, and what to do.
        add_key(store, key.public, "development key", roles=("developer",), plugins=("*",))
    return DevelopmentKey(key, path, store, created)


def _not_a_key(where: str) -> TrustStoreError:
    return TrustStoreError(
        f"{where} is not an Ed25519 private key.",
        remedy="Make one with `sandbox-host keygen`, or give an OpenSSH, PKCS#8 PEM or raw "
        "32-byte key.",
    )


def _no_bcrypt() -> TrustStoreError:
    return TrustStoreError(
        "a passphrase on an OpenSSH key needs the package bcrypt, which is not installed.",
        remedy="Install it (`pip install bcrypt`), or use a key without a passphrase.",
    )

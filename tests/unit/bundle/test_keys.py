from __future__ import annotations

import importlib.util
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox_host.bundle.keys import (
    create_development_key,
    generate_key,
    load_private_key,
    parse_private_key,
    save_private_key,
)
from sandbox_host.bundle.trust import Revocation, TrustStore
from sandbox_host.bundle.trust_edit import revoke
from sandbox_host.errors import PassphraseError, TrustStoreError
from tests.support.bundles import NOW, make_key

KEY = make_key()
HAS_BCRYPT = importlib.util.find_spec("bcrypt") is not None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "sign.key"


def pkcs8(passphrase: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return KEY.library_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_keys_are_different() -> None:
    assert len({generate_key().key_id for _ in range(5)}) == 5


def test_a_key_is_written_for_its_owner_only_and_comes_back(path: Path) -> None:
    old = os.umask(0)
    try:
        save_private_key(KEY, path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert load_private_key(path).public == KEY.public
    assert load_private_key(path, b"not needed").public == KEY.public


def test_a_key_is_never_overwritten(path: Path) -> None:
    save_private_key(KEY, path)
    before = path.read_bytes()
    with pytest.raises(TrustStoreError, match="never overwritten"):
        save_private_key(make_key(2), path)
    assert path.read_bytes() == before
    path.unlink()
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(TrustStoreError, match="never overwritten"):
        save_private_key(KEY, path)
    assert not (path.parent / "elsewhere").exists()


@pytest.mark.skipif(not HAS_BCRYPT, reason="OpenSSH's passphrases need the package bcrypt")
def test_a_passphrase(path: Path) -> None:
    save_private_key(KEY, path, b"open sesame")
    assert load_private_key(path, b"open sesame").public == KEY.public
    with pytest.raises(PassphraseError, match="is encrypted"):
        load_private_key(path)
    with pytest.raises(PassphraseError, match="passphrase is wrong"):
        load_private_key(path, b"open barley")


@pytest.mark.skipif(HAS_BCRYPT, reason="bcrypt is installed")
def test_without_bcrypt_a_passphrase_is_refused_not_ignored(path: Path) -> None:
    with pytest.raises(TrustStoreError, match="pip install bcrypt"):
        save_private_key(KEY, path, b"open sesame")
    assert not path.exists()


def test_an_empty_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(PassphraseError, match="empty"):
        save_private_key(KEY, path, b"")
    assert not path.exists()


def test_other_forms_are_read() -> None:
    assert parse_private_key(pkcs8()).public == KEY.public
    assert parse_private_key(pkcs8(b"secret"), b"secret").public == KEY.public
    assert parse_private_key(bytes([1]) * 32).public == KEY.public
    with pytest.raises(PassphraseError, match="is encrypted"):
        parse_private_key(pkcs8(b"secret"))
    with pytest.raises(PassphraseError, match="is wrong"):
        parse_private_key(pkcs8(b"secret"), b"wrong")


OTHER = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(31),
        bytes(33),
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        OTHER,
    ],
    ids=["empty", "31 bytes", "33 bytes", "broken OpenSSH", "broken PEM", "another algorithm"],
)
def test_what_is_no_key(data: bytes) -> None:
    with pytest.raises(TrustStoreError, match="not an Ed25519 private key"):
        parse_private_key(data)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_may_touch_is_refused(path: Path, mode: int) -> None:
    save_private_key(KEY, path)
    path.chmod(mode)
    with pytest.raises(TrustStoreError, match="accessible for its group or for others"):
        load_private_key(path)


def test_a_linked_missing_or_special_key_is_refused(path: Path) -> None:
    save_private_key(KEY, path)
    link = path.parent / "link"
    link.symlink_to(path)
    with pytest.raises(TrustStoreError, match="symbolic link"):
        load_private_key(link)
    with pytest.raises(TrustStoreError, match="does not exist"):
        load_private_key(path.parent / "missing")
    os.mkfifo(path.parent / "fifo", 0o600)
    with pytest.raises(TrustStoreError, match="not a regular file"):
        load_private_key(path.parent / "fifo")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_foreign_key_is_refused(path: Path) -> None:
    save_private_key(KEY, path)
    os.chown(path, 12345, -1)
    with pytest.raises(TrustStoreError, match="belongs to user 12345"):
        load_private_key(path)


# -- the development key ----------------------------------------------------------------------


def test_a_development_key_is_made_once_and_trusted(tmp_path: Path) -> None:
    first = create_development_key(tmp_path / "config")
    again = create_development_key(tmp_path / "config")
    assert (first.created, again.created) == (True, False)
    assert first.key.public == again.key.public
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    trusted = TrustStore.load(first.trust_store).keys
    assert list(trusted) == [first.key.key_id]
    assert trusted[first.key.key_id].roles == ("developer",)
    assert isinstance(first.key.library_key(), Ed25519PrivateKey)


def test_an_existing_development_key_is_added_to_another_store(tmp_path: Path) -> None:
    first = create_development_key(tmp_path / "config")
    other = create_development_key(tmp_path / "config", tmp_path / "other" / "store.toml")
    assert not other.created
    assert first.key.key_id in TrustStore.load(other.trust_store).keys


def test_a_revoked_development_key_is_said_to_be_revoked(tmp_path: Path) -> None:
    made = create_development_key(tmp_path / "config")
    revoke(made.trust_store, Revocation(made.key.key_id, "key", "leaked", NOW.date()))
    with pytest.raises(TrustStoreError, match="was revoked on 2026-01-31: 'leaked'"):
        create_development_key(tmp_path / "config")

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox_host.bundle.public_keys import (
    MAX_KEY_FILE_BYTES,
    fingerprint,
    format_public_key,
    is_private,
    openssh_blob,
    parse_public_key,
)
from sandbox_host.errors import TrustStoreError
from tests.support.bundles import make_key
from tests.support.foreign_tools import needs_tool, run_tool

KEY = make_key()
LIBRARY = KEY.library_key().public_key()
PEM = LIBRARY.public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
OPENSSH = LIBRARY.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
BASE64 = base64.b64encode(KEY.public)
OTHER = ec.generate_private_key(ec.SECP256R1()).public_key()


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(OPENSSH, id="OpenSSH"),
        pytest.param(OPENSSH + b" me@example.org with spaces\n", id="OpenSSH with a comment"),
        pytest.param(PEM, id="PEM"),
        pytest.param(b"\n" + PEM.replace(b"\n", b"\r\n"), id="PEM of another system"),
        pytest.param(BASE64, id="base64"),
        pytest.param(b" " + BASE64 + b"\n", id="base64 on a line"),
        pytest.param(KEY.public, id="raw"),
    ],
)
def test_every_form_is_read(form: bytes) -> None:
    assert parse_public_key(form) == KEY.public


def test_the_line_is_that_of_the_library_and_of_one_line_only() -> None:
    assert format_public_key(KEY.public).encode() == OPENSSH
    line = format_public_key(KEY.public, "me@example\nssh-ed25519 evil")
    assert line == f"{OPENSSH.decode()} me@example ssh-ed25519 evil"
    assert parse_public_key(line.encode()) == KEY.public


def _frame(blob: bytes) -> bytes:
    return b"ssh-ed25519 " + base64.b64encode(blob)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (b"ssh-ed25519", "cannot be read"),
        (b"ssh-ed25519 ", "cannot be read"),
        (b"ssh-ed25519 AAAA", "cannot be read"),
        (b"ssh-ed25519 !", "cannot be read"),
        (_frame(openssh_blob(KEY.public) + b"x"), "cannot be read"),
        (_frame(openssh_blob(KEY.public)[:-1]), "cannot be read"),
        (_frame(openssh_blob(KEY.public)).replace(b"25519", b"25518"), "cannot be read"),
        (OPENSSH + b"\n" + OPENSSH, "cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----", "cannot be read"),
        (PEM.replace(b"MCow", b"MCox"), "cannot be read"),
        (PEM + PEM, "cannot be read"),
        (b"AAAA", "cannot be read"),
        (b"AA", "cannot be read"),
        ((1).to_bytes(32, "little"), "small order"),
        (_frame(openssh_blob((1).to_bytes(32, "little"))), "small order"),
        (b"\xff" * 100_000, "cannot be read"),
        (BASE64 + b" " * MAX_KEY_FILE_BYTES, "cannot be read"),
    ],
)
def test_what_is_no_public_key(data: bytes, words: str) -> None:
    with pytest.raises(TrustStoreError, match=words):
        parse_public_key(data)


@pytest.mark.parametrize(
    ("encoding", "form"),
    [
        (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
    ],
    ids=["PEM", "OpenSSH"],
)
def test_a_public_key_of_another_algorithm(
    encoding: serialization.Encoding, form: serialization.PublicFormat
) -> None:
    with pytest.raises(TrustStoreError, match="cannot be read"):
        parse_public_key(OTHER.public_bytes(encoding, form))


def test_a_private_key_is_told_from_a_public_one() -> None:
    assert is_private(b"\n-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert is_private(b"-----BEGIN PRIVATE KEY-----\n")
    assert not is_private(PEM)
    assert not is_private(OPENSSH)


@needs_tool("ssh-keygen")
def test_the_fingerprint_is_the_one_that_openssh_shows(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(format_public_key(KEY.public, "me") + "\n")
    done = run_tool(tmp_path, "ssh-keygen", "-l", "-f", "key.pub")
    assert done.stdout.split()[1].decode() == fingerprint(KEY.public)

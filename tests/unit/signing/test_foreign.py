"""The bytes of other tools' forms; that those tools verify them, tests/conformance shows."""

from __future__ import annotations

import base64
import hashlib

import pytest

from sandbox_host.bundle.public_keys import format_public_key, openssh_blob
from sandbox_host.bundle.signature import signature_fault
from sandbox_host.errors import SignerError, UsageError
from sandbox_host.signing.foreign import FORMS, SSH_NAMESPACE, export
from sandbox_host.signing.ssh_wire import Reader, string
from tests.support.bundles import make_key

KEY = make_key()
PAYLOAD = b'{"a": "payload"}'
COMMENT = "sample 1.0.0 sha256:abc"
NUMBER = bytes.fromhex(KEY.key_id)[:8]


def lines(data: bytes) -> list[str]:
    assert data.endswith(b"\n")
    return data.decode().splitlines()


def test_minisign() -> None:
    made = export("minisign", KEY, PAYLOAD, COMMENT)
    _, first, comment, second = lines(made.signature)
    blob = base64.b64decode(first)
    assert (blob[:2], blob[2:10]) == (b"ED", NUMBER)
    assert not signature_fault(KEY.public, blob[10:], hashlib.blake2b(PAYLOAD).digest())
    assert comment == f"trusted comment: {COMMENT}"
    covered = blob[10:] + COMMENT.encode()
    assert not signature_fault(KEY.public, base64.b64decode(second), covered)
    assert base64.b64decode(lines(made.public)[1]) == b"Ed" + NUMBER + KEY.public


def test_signify() -> None:
    made = export("signify", KEY, PAYLOAD, COMMENT)
    first, second = lines(made.signature)
    assert first == f"untrusted comment: {COMMENT}"
    blob = base64.b64decode(second)
    assert (blob[:2], blob[2:10]) == (b"Ed", NUMBER)
    assert not signature_fault(KEY.public, blob[10:], PAYLOAD)
    assert base64.b64decode(lines(made.public)[1]) == b"Ed" + NUMBER + KEY.public


def test_sshsig() -> None:
    made = export("sshsig", KEY, PAYLOAD, COMMENT)
    begin, *body, end = lines(made.signature)
    assert (begin, end) == ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----")
    assert max(map(len, body)) == 70
    blob = base64.b64decode("".join(body))
    assert blob[:6] == b"SSHSIG"
    reader = Reader(blob[6:])
    assert reader.u32() == 1
    assert reader.string() == openssh_blob(KEY.public)
    common = [reader.string() for _ in range(3)]
    assert common == [SSH_NAMESPACE.encode(), b"", b"sha512"]
    inner = Reader(reader.string())
    reader.end()
    assert inner.string() == b"ssh-ed25519"
    message = b"SSHSIG" + b"".join(map(string, common)) + string(hashlib.sha512(PAYLOAD).digest())
    assert not signature_fault(KEY.public, inner.string(), message)
    (allowed,) = lines(made.public)
    assert allowed == f'{KEY.key_id} namespaces="{SSH_NAMESPACE}" {format_public_key(KEY.public)}'


@pytest.mark.parametrize("form", FORMS)
def test_the_same_key_and_payload_give_the_same_files(form: str) -> None:
    assert export(form, KEY, PAYLOAD, COMMENT) == export(form, KEY, PAYLOAD, COMMENT)


@pytest.mark.parametrize("form", FORMS)
def test_a_signer_that_cannot_be_believed(form: str) -> None:
    class Wrong:
        public = KEY.public

        def sign(self, message: bytes) -> bytes:
            return make_key(2).sign(message)

    with pytest.raises(SignerError, match="does not match"):
        export(form, Wrong(), PAYLOAD, COMMENT)


@pytest.mark.parametrize(
    ("form", "comment", "words"),
    [
        ("pgp", "x", "no form 'pgp'"),
        ("minisign", "two\nlines", "one printable line"),
        ("signify", "x" * 600, "one printable line"),
    ],
)
def test_what_is_not_made(form: str, comment: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        export(form, KEY, PAYLOAD, comment)

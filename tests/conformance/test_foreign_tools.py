"""What we sign, verified by programs that we did not write; and keys that they made."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.bundle.envelope import parse_envelope, pre_authentication_encoding
from sandbox_host.bundle.keys import load_private_key, save_private_key
from sandbox_host.bundle.public_keys import fingerprint, parse_public_key
from sandbox_host.bundle.signature import PrivateKey
from tests.support.agents import real_agent
from tests.support.bundles import make_key, write_plugin
from tests.support.command_line import LocalCommandLine
from tests.support.foreign_tools import needs_tool, run_tool

KEY, OTHER = make_key(1), make_key(2)


@pytest.fixture
def exported(cli: LocalCommandLine) -> Path:
    """Sign a plugin in every form, and return the directory of the files."""
    write_plugin(cli.home / "sample", {"main.py": "x = 'é'\n"})
    save_private_key(KEY, cli.home / "release.key")
    also = [f"--also={form}={form} file" for form in ("minisign", "signify", "sshsig")]
    ran = cli("sign", "sample", "--key", "release.key", *also)
    assert (ran.code, ran.err) == (0, "")
    payload = parse_envelope((cli.home / "sample" / ENVELOPE_NAME).read_bytes()).payload
    for form in ("minisign", "signify", "sshsig"):
        assert (cli.home / f"{form} file.payload").read_bytes() == payload
    return cli.home


def pem_of(key: PrivateKey) -> bytes:
    return (
        key.library_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@needs_tool("openssl")
def test_openssl_verifies_the_envelope(exported: Path) -> None:
    envelope = parse_envelope((exported / "sample" / ENVELOPE_NAME).read_bytes())
    message = pre_authentication_encoding(envelope.payload)
    (exported / "sig").write_bytes(envelope.signatures[0].value)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pem"]
    command += ["-sigfile", "sig", "-in", "pae"]
    for key, data, code in ((KEY, message, 0), (KEY, message + b" ", 1), (OTHER, message, 1)):
        (exported / "pae").write_bytes(data)
        (exported / "key.pem").write_bytes(pem_of(key))
        run_tool(exported, *command, code=code)


# -- minisign ----------------------------------------------------------------------------------

MINISIGN = ("minisign", "-V", "-p", "minisign file.pub", "-x", "minisign file", "-m")


@needs_tool("minisign")
def test_minisign_verifies(exported: Path) -> None:
    done = run_tool(exported, *MINISIGN, "minisign file.payload")
    assert b"Signature and comment signature verified" in done.stdout
    assert b"Trusted comment: sample 1.0.0 sha256:" in done.stdout
    public = (exported / "minisign file.pub").read_text().splitlines()[1]
    run_tool(exported, "minisign", "-V", "-P", public, *MINISIGN[4:], "minisign file.payload")


@needs_tool("minisign")
@pytest.mark.parametrize("what", ["payload", "trusted comment", "signature", "key"])
def test_minisign_refuses(exported: Path, what: str) -> None:
    run_tool(exported, *MINISIGN, "minisign file.payload")
    signature, public = exported / "minisign file", exported / "minisign file.pub"
    if what == "payload":
        (exported / "minisign file.payload").write_bytes(b"{}")
    elif what == "trusted comment":
        signature.write_text(signature.read_text().replace("sample 1.0.0", "sample 1.0.1"))
    else:
        file = signature if what == "signature" else public
        lines = file.read_text().splitlines()
        data = bytearray(base64.b64decode(lines[1]))
        data[20] ^= 1
        lines[1] = base64.b64encode(data).decode()
        file.write_text("\n".join(lines) + "\n")
    run_tool(exported, *MINISIGN, "minisign file.payload", code=1)


# -- signify -----------------------------------------------------------------------------------

SIGNIFY = ("signify-openbsd", "-V", "-p", "signify file.pub", "-x", "signify file", "-m")


@needs_tool("signify-openbsd")
def test_signify_verifies(exported: Path) -> None:
    done = run_tool(exported, *SIGNIFY, "signify file.payload")
    assert b"Signature Verified" in done.stdout
    (exported / "signify file.payload").write_bytes(b"{}")
    run_tool(exported, *SIGNIFY, "signify file.payload", code=1)


# -- OpenSSH -----------------------------------------------------------------------------------


def ssh_verify(directory: Path, payload: bytes, *, who: str = KEY.key_id, code: int = 0) -> bytes:
    command = ["ssh-keygen", "-Y", "verify", "-f", "sshsig file.pub", "-I", who]
    command += ["-n", "sandbox-host-bundle", "-s", "sshsig file"]
    return run_tool(directory, *command, stdin=payload, code=code).stdout


@needs_tool("ssh-keygen")
def test_ssh_keygen_verifies(exported: Path) -> None:
    payload = (exported / "sshsig file.payload").read_bytes()
    assert fingerprint(KEY.public).encode() in ssh_verify(exported, payload)
    ssh_verify(exported, payload + b" ", code=255)
    ssh_verify(exported, payload, who="somebody else", code=255)


@needs_tool("ssh-keygen")
@pytest.mark.parametrize(("namespace", "code"), [("sandbox-host-bundle", 0), ("git", 255)])
def test_ssh_keygen_holds_it_to_its_namespace(exported: Path, namespace: str, code: int) -> None:
    payload = (exported / "sshsig file.payload").read_bytes()
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", namespace, "-s", "sshsig file"]
    run_tool(exported, *command, stdin=payload, code=code)


@needs_tool("ssh-keygen")
@pytest.mark.parametrize("passphrase", ["", "open sesame"], ids=["no passphrase", "passphrase"])
def test_keys_go_both_ways(tmp_path: Path, passphrase: str) -> None:
    secret = passphrase.encode() or None
    run_tool(
        tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "a b", "-f", "theirs"
    )
    theirs = load_private_key(tmp_path / "theirs", secret)
    assert parse_public_key((tmp_path / "theirs.pub").read_bytes()) == theirs.public
    save_private_key(KEY, tmp_path / "ours", secret)
    done = run_tool(tmp_path, "ssh-keygen", "-y", "-P", passphrase, "-f", "ours")
    assert parse_public_key(done.stdout) == KEY.public


# -- other signers -----------------------------------------------------------------------------


@needs_tool("ssh-agent", "ssh-add", "minisign", "signify-openbsd", "ssh-keygen")
def test_every_form_is_made_with_a_key_in_an_agent(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(cli.home / "sample")
    also = [f"--also={form}={form} file" for form in ("minisign", "signify", "sshsig")]
    with real_agent() as agent:
        agent.add(KEY, "release")
        agent.add(OTHER, "another")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
        ran = cli("sign", "sample", "--key", "ssh-agent:release", *also)
    assert (ran.code, ran.err) == (0, "")
    assert KEY.key_id in ran.out
    run_tool(cli.home, *MINISIGN, "minisign file.payload")
    run_tool(cli.home, *SIGNIFY, "signify file.payload")
    ssh_verify(cli.home, (cli.home / "sshsig file.payload").read_bytes())


@needs_tool("openssl", "sh")
def test_openssl_as_a_signing_program(cli: LocalCommandLine) -> None:
    """It wants a file to sign, so a script of four lines stands between; a KMS would be so, too."""
    write_plugin(cli.home / "sample")
    run_tool(cli.home, "openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    run_tool(cli.home, "openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "key.pub")
    script = cli.home / "sign it"
    script.write_text(
        '#!/bin/sh\nset -e\ncat > "$1.message"\n'
        'openssl pkeyutl -sign -rawin -inkey "$1" -in "$1.message"\n'
    )
    script.chmod(0o755)
    command = f"exec:'{script}' key.pem"
    ran = cli("sign", "sample", "--key", command, "--public-key", "key.pub")
    assert (ran.code, ran.err) == (0, "")
    assert cli("trust", "add", "key.pub", "--label", "openssl", "--plugins", "*").code == 0
    assert cli("verify", "sample").code == 0

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox_host.bundle.envelope import parse_envelope, pre_authentication_encoding
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import complete, draft_more
from sandbox_host.cli.export import public_key_pem
from tests.support.bundles import make_key, trust_store
from tests.support.command_line import LocalCommandLine

KEY, SECOND = make_key(1), make_key(2)
ALL = ("--export", "pae=w.pae", "--export", "sig=w.sig", "--export", "pem=w.pem")
VERIFY = "openssl pkeyutl -verify -rawin -pubin -inkey w.pem -in w.pae -sigfile w.sig"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def openssl(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(VERIFY), cwd=directory, capture_output=True, text=True, check=False
    )


@needs_openssl
def test_openssl_verifies_what_is_exported(
    cli: LocalCommandLine, signed: Path, store: Path
) -> None:
    ran = cli("inspect", signed, "--trust-store", store, *ALL)
    assert (ran.code, ran.err) == (0, "")
    assert VERIFY in ran.out
    assert "Nothing was checked" in ran.out
    assert openssl(cli.home).returncode == 0
    with (cli.home / "w.pae").open("ab") as file:
        file.write(b"\n")
    assert openssl(cli.home).returncode != 0


@needs_openssl
def test_each_of_several_signatures_by_its_key(
    cli: LocalCommandLine, signed: Path, store: Path
) -> None:
    trust_store(cli.home, SECOND)
    envelope = complete(draft_more(read_directory(signed)), SECOND)
    (signed / "plugin.dsse.json").write_bytes(envelope)
    for key in (KEY, SECOND):
        ran = cli("inspect", signed, "--trust-store", store, *ALL, "--by", key.key_id[:8])
        assert ran.code == 0
        assert (cli.home / "w.pem").read_bytes() == public_key_pem(key.public)
        assert openssl(cli.home).returncode == 0
    for by in (("--by", KEY.key_id[:7]), ("--by", "0" * 64), ()):
        ran = cli("inspect", signed, "--export", "sig=other.sig", *by)
        assert (ran.code, ran.out) == (2, "")
        assert KEY.key_id in ran.err
        assert SECOND.key_id in ran.err
    assert not (cli.home / "other.sig").exists()


def test_a_part_to_standard_output_and_nothing_else(
    cli: LocalCommandLine, signed: Path, store: Path
) -> None:
    payload = parse_envelope((signed / "plugin.dsse.json").read_bytes()).payload
    ran = cli("inspect", signed, "--export", "pae")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.encode() == pre_authentication_encoding(payload)
    pem = cli("inspect", signed, "--trust-store", store, "--export", "pem", "--export", "sig=x")
    assert pem.out.encode() == public_key_pem(KEY.public)
    assert len((cli.home / "x").read_bytes()) == 64


def test_the_pem_is_what_the_library_writes() -> None:
    public = Ed25519PublicKey.from_public_bytes(KEY.public)
    ours = public_key_pem(KEY.public)
    assert ours == public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_tampered_plugin_can_be_exported_from_and_unsigned_ones_cannot(
    cli: LocalCommandLine, signed: Path, plugin: Path
) -> None:
    (signed / "plugin.json").write_text("{")
    assert cli("inspect", signed, "--export", "pae=x").code == 0
    ran = cli("inspect", plugin, "--export", "pae=y")
    assert (ran.code, ran.out) == (3, "")
    (plugin / "plugin.dsse.json").write_text("{}")
    assert cli("inspect", plugin, "--export", "pae=y").code == 1
    assert not (cli.home / "y").exists()


def test_a_key_that_the_trust_store_has_not(cli: LocalCommandLine, signed: Path) -> None:
    store = trust_store(cli.home, SECOND)
    ran = cli("inspect", signed, "--trust-store", store, "--export", "pem=x")
    assert (ran.code, ran.out) == (4, "")
    assert KEY.key_id in ran.err
    assert not (cli.home / "x").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--export", "pae", "--export", "sig"), "standard output"),
        (("--export", "key"), "'key' is none of pae, sig, pem"),
        (("--by", "0" * 8), "Give --export as well"),
    ],
    ids=["two to stdout", "unknown", "by alone"],
)
def test_what_cannot_be(
    cli: LocalCommandLine, signed: Path, options: tuple[str, ...], why: str
) -> None:
    ran = cli("inspect", signed, *options)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err


def test_a_terminal_gets_no_binary_data(cli: LocalCommandLine, signed: Path) -> None:
    master, slave = os.openpty()
    with cli.start("inspect", signed, "--export", "sig", stdout=slave) as process:
        _, err = process.communicate()
    os.set_blocking(master, False)
    os.close(slave)
    with pytest.raises(OSError, match=r"Input/output error|Resource temporarily"):
        os.read(master, 1)
    os.close(master)
    assert process.returncode == 2
    assert "sig=FILE" in err


def test_inspect_shows_every_key_that_is_claimed(cli: LocalCommandLine, signed: Path) -> None:
    envelope = complete(draft_more(read_directory(signed)), SECOND)
    (signed / "plugin.dsse.json").write_bytes(envelope)
    told = json.loads(cli("inspect", signed, "--format", "json").out)
    assert told["envelope"]["keys"] == [KEY.key_id, SECOND.key_id]
    text = cli("inspect", signed).out
    assert KEY.key_id in text
    assert SECOND.key_id in text

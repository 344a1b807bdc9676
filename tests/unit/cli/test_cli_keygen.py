from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import stat
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import (
    fingerprint,
    load_private_key,
    parse_public_key,
    save_private_key,
)
from sandbox_host.bundle.trust import Revocation, TrustStore
from sandbox_host.bundle.trust_edit import revoke
from sandbox_host.errors import PassphraseError
from tests.support.bundles import make_key
from tests.support.command_line import LocalCommandLine, Ran

TODAY = "2026-01-31"


def value(ran: Ran, label: str) -> str:
    found = re.search(rf"^  {label} +(.*)$", ran.out, re.MULTILINE)
    assert found, ran.out
    return found[1]


def test_a_key_without_a_passphrase_only_if_asked_for(cli: LocalCommandLine) -> None:
    ran = cli("keygen", "release.key", "--no-passphrase")
    assert (ran.code, ran.err) == (0, "")
    path = cli.home / "release.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    key = load_private_key(path)
    assert value(ran, "key") == key.key_id
    assert value(ran, "fingerprint") == fingerprint(key.public)
    assert parse_public_key(value(ran, "public").encode()) == key.public
    public = cli.home / "release.key.pub"
    assert f"{public.name}: its public key" in ran.out
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert cli("trust", "add", public, "--label", "x", "--plugins", "*").code == 0


def test_neither_file_of_a_pair_is_overwritten(cli: LocalCommandLine) -> None:
    (cli.home / "release.key.pub").write_text("somebody's")
    ran = cli("keygen", "release.key", "--no-passphrase")
    assert (ran.code, ran.out) == (6, "")
    assert "'release.key.pub' exists already" in ran.err
    assert [(p.name, p.read_text()) for p in cli.home.iterdir()] == [
        ("release.key.pub", "somebody's")
    ]


def test_the_printed_line_trusts_the_key(cli: LocalCommandLine) -> None:
    line = shlex.split(value(cli("keygen", "release.key", "--no-passphrase"), "trust"))
    assert line[:3] == ["sandbox-host", "trust", "add"]
    assert cli(*line[1:-1], "weather_*").code == 0
    (key,) = TrustStore.load(cli.config_dir / "trust.toml").keys.values()
    assert key.public == load_private_key(cli.home / "release.key").public
    assert (key.label, key.plugins) == ("release", ("weather_*",))


def test_a_passphrase_from_a_descriptor(cli: LocalCommandLine) -> None:
    read, write = os.pipe()
    os.write(write, b"open sesame\n")
    os.close(write)
    try:
        assert cli("keygen", "release.key", "--passphrase-fd", read).code == 0
    finally:
        os.close(read)
    with pytest.raises(PassphraseError, match="is encrypted"):
        load_private_key(cli.home / "release.key")
    assert load_private_key(cli.home / "release.key", b"open sesame")


def test_a_passphrase_from_a_variable(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEASE_PASSPHRASE", "open sesame")
    assert cli("keygen", "release.key", "--passphrase-env", "RELEASE_PASSPHRASE").code == 0
    assert load_private_key(cli.home / "release.key", b"open sesame")
    # What is started later has no business with it.
    assert "RELEASE_PASSPHRASE" not in os.environ


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "not told where"),
        (("k",), "no terminal"),
        (("k", "--no-passphrase", "--passphrase-fd", "0"), "excludes --passphrase-fd"),
        (("k", "--no-passphrase", "--passphrase-env", "HOME"), "excludes --passphrase-fd"),
        (("k", "--passphrase-fd", "0", "--passphrase-env", "HOME"), "exclude each other"),
        (("k", "--passphrase-env", "NOT_SET_HERE"), "$NOT_SET_HERE holds no passphrase"),
        (("--dev", "--passphrase-env", "HOME"), "the one development key"),
        (("k", "--dev"), "the one development key"),
        (("--dev", "--no-passphrase"), "the one development key"),
        (("k", "--passphrase-fd", "-1"), "--passphrase-fd"),
        (("k", "--passphrase", "x"), "No such option"),
    ],
)
def test_mistakes(cli: LocalCommandLine, arguments: tuple[str, ...], why: str) -> None:
    ran = cli("keygen", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert not list(cli.home.iterdir())


def test_a_key_is_never_overwritten(cli: LocalCommandLine) -> None:
    save_private_key(make_key(), cli.home / "release.key")
    ran = cli("keygen", "release.key", "--no-passphrase")
    assert ran.code == 6
    assert "never overwritten" in ran.err
    assert load_private_key(cli.home / "release.key").public == make_key().public


def test_the_development_key_is_made_once(cli: LocalCommandLine) -> None:
    first, second = cli("keygen", "--dev"), cli("keygen", "--dev")
    assert (first.code, second.code) == (0, 0)
    assert "made now" in first.out
    assert "there already" in second.out
    assert "trust add" not in first.out + second.out
    assert value(first, "key") == value(second, "key")
    (key,) = TrustStore.load(cli.config_dir / "trust.toml").keys.values()
    assert key.id == value(first, "key")
    assert key.roles == ("developer",)
    assert stat.S_IMODE((cli.config_dir / "dev.key").stat().st_mode) == 0o600


def test_it_is_trusted_where_it_is_told(cli: LocalCommandLine) -> None:
    assert cli("keygen", "--dev", "--trust-store", "other/trust.toml").code == 0
    assert TrustStore.load(cli.home / "other" / "trust.toml").keys
    assert not (cli.config_dir / "trust.toml").exists()


def test_a_revoked_development_key_stays_revoked(cli: LocalCommandLine) -> None:
    key = value(cli("keygen", "--dev"), "key")
    day = dt.date.fromisoformat(TODAY)
    revoke(cli.config_dir / "trust.toml", Revocation(key, "key", "stolen", day))
    ran = cli("keygen", "--dev")
    assert ran.code == 6
    assert f"was revoked on {TODAY}: 'stolen'" in ran.err


def test_a_key_that_others_could_have_read_is_refused(cli: LocalCommandLine, plugin: Path) -> None:
    assert cli("keygen", "--dev").code == 0
    (cli.config_dir / "dev.key").chmod(0o640)
    for arguments in (("keygen", "--dev"), ("sign", plugin)):
        ran = cli(*arguments)
        assert (ran.code, ran.out) == (6, "")
        assert "chmod go-rwx" in ran.err

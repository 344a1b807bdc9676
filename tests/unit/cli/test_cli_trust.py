from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import format_public_key
from sandbox_host.bundle.trust import TrustStore
from tests.support.bundles import make_key, trust_store
from tests.support.command_line import LocalCommandLine, snapshot

KEY, OTHER = make_key(1), make_key(2)
BASE64 = base64.b64encode(KEY.public).decode()


def loaded(cli: LocalCommandLine) -> TrustStore:
    return TrustStore.load(cli.config_dir / "trust.toml")


@pytest.mark.parametrize("form", ["base64", "line", "file"])
def test_a_key_is_added_in_each_form(cli: LocalCommandLine, form: str) -> None:
    line = format_public_key(KEY.public, "team")
    (cli.home / "team.pub").write_text(line + "\n")
    given = {"base64": BASE64, "line": line, "file": "team.pub"}[form]
    ran = cli("trust", "add", given, "--label", "the team", "--plugins", "a_*", "--plugins", "b")
    assert (ran.code, ran.err) == (0, "")
    (key,) = loaded(cli).keys.values()
    assert (key.public, key.label, key.plugins) == (KEY.public, "the team", ("a_*", "b"))
    assert key.roles == ("publisher",)
    assert KEY.key_id in ran.out


def test_a_key_for_every_plugin_is_told(cli: LocalCommandLine) -> None:
    ran = cli("trust", "add", BASE64, "--label", "team", "--role", "developer")
    assert ran.code == 0
    assert "may sign every plugin" in ran.err
    (key,) = loaded(cli).keys.values()
    assert (key.plugins, key.roles) == (("*",), ("developer",))


SMALL_ORDER = base64.b64encode(b"\x01" + bytes(31)).decode()


@pytest.mark.parametrize(
    ("given", "label", "patterns", "code", "why"),
    [
        ("no-such-file.pub", "x", "*", 2, "neither the file of a public key nor one itself"),
        ("", "x", "*", 2, "neither the file"),
        (SMALL_ORDER, "x", "*", 2, "anyone could sign for it"),
        ("private.key", "x", "*", 2, "'private.key' is a private key"),
        ("\udcff", "x", "*", 2, "it is not text"),
        (BASE64, "two\nlines", "*", 6, "not printable"),
        (BASE64, "x", "../*", 6, "plugins"),
    ],
)
def test_what_cannot_be_trusted(
    cli: LocalCommandLine, given: str, label: str, patterns: str, code: int, why: str
) -> None:
    assert cli("keygen", "private.key", "--no-passphrase").code == 0
    before = snapshot(cli.home)
    ran = cli("trust", "add", given, "--label", label, "--plugins", patterns)
    assert (ran.code, ran.out) == (code, "")
    assert why in ran.err
    after = snapshot(cli.home)
    assert not any(name.endswith(".toml") for name in after.keys() - before.keys())


def test_a_key_is_added_once(cli: LocalCommandLine) -> None:
    arguments = ("trust", "add", BASE64, "--label", "x", "--plugins", "*")
    assert cli(*arguments).code == 0
    ran = cli(*arguments)
    assert ran.code == 6
    assert "already" in ran.err


def test_revoking(cli: LocalCommandLine) -> None:
    store = trust_store(cli.home, KEY)
    ran = cli("trust", "revoke", KEY.key_id, "--reason", "stolen", "--trust-store", store)
    assert (ran.code, ran.err) == (0, "")
    bundle = "ab" * 32
    ran = cli("trust", "revoke", bundle, "--bundle", "--reason", "bad", "--trust-store", store)
    assert ran.code == 0
    revoked = TrustStore.load(store).revoked
    assert (revoked[KEY.key_id].kind, revoked[KEY.key_id].reason) == ("key", "stolen")
    assert revoked[bundle].kind == "bundle"
    before = store.read_bytes()
    again = cli("trust", "revoke", KEY.key_id, "--reason", "other", "--trust-store", store)
    assert again.code == 0
    assert "already: stolen" in again.out
    assert store.read_bytes() == before
    ran = cli("trust", "add", BASE64, "--label", "x", "--plugins", "*", "--trust-store", store)
    assert ran.code == 6
    assert "revoked" in ran.err


@pytest.mark.parametrize("digest", ["", "abc", "AB" * 32, "zz" * 32, "ab" * 33])
def test_only_a_whole_digest_is_revoked(cli: LocalCommandLine, digest: str) -> None:
    ran = cli("trust", "revoke", digest, "--reason", "x")
    assert (ran.code, ran.out) == (2, "")
    assert "64 lower-case" in ran.err
    assert not cli.config_dir.exists()


@pytest.fixture
def two_keys(cli: LocalCommandLine) -> None:
    for key, label in ((KEY, "first"), (OTHER, "second")):
        given = base64.b64encode(key.public).decode()
        assert cli("trust", "add", given, "--label", label, "--plugins", "sam*").code == 0
    assert cli("trust", "revoke", OTHER.key_id, "--reason", "lost").code == 0


@pytest.mark.usefixtures("two_keys")
def test_listing(cli: LocalCommandLine) -> None:
    text = cli("trust", "list")
    assert (text.code, text.err) == (0, "")
    for shown in (KEY.key_id[:16], "first", "second", "sam*", "valid", "revoked on", "lost"):
        assert shown in text.out
    told = json.loads(cli("trust", "list", "--format", "json").out)
    assert told["schema_version"] == 1
    standing = {key["id"]: key["standing"].split()[0] for key in told["keys"]}
    assert standing == {KEY.key_id: "valid", OTHER.key_id: "revoked"}
    assert told["revoked"][0]["digest"] == OTHER.key_id


@pytest.mark.usefixtures("two_keys")
def test_showing_one(cli: LocalCommandLine) -> None:
    ran = cli("trust", "show", KEY.key_id[:8])
    assert (ran.code, ran.err) == (0, "")
    for shown in ("first", KEY.key_id, format_public_key(KEY.public), "sam*", "valid"):
        assert shown in ran.out
    assert "revoked on" in cli("trust", "show", OTHER.key_id).out


@pytest.mark.usefixtures("two_keys")
@pytest.mark.parametrize(
    ("given", "why"), [("0" * 64, "no key"), ("abc", "first 8"), ("", "first")]
)
def test_showing_none(cli: LocalCommandLine, given: str, why: str) -> None:
    ran = cli("trust", "show", given)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err


@pytest.mark.parametrize("command", [("list",), ("show", "0" * 8)])
def test_without_a_store(cli: LocalCommandLine, command: tuple[str, ...]) -> None:
    ran = cli("trust", *command)
    assert (ran.code, ran.out) == (6, "")
    assert "does not exist" in ran.err


def test_a_store_that_others_may_write_is_refused(cli: LocalCommandLine) -> None:
    store: Path = trust_store(cli.home, KEY)
    store.chmod(0o666)
    for arguments in (
        ("list",),
        ("add", base64.b64encode(OTHER.public).decode(), "--label", "x"),
        ("revoke", KEY.key_id, "--reason", "x"),
    ):
        ran = cli("trust", *arguments, "--trust-store", store)
        assert (ran.code, ran.out) == (6, "")
        assert "chmod go-w" in ran.err

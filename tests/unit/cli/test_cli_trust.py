from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import fingerprint, format_public_key, load_private_key
from sandbox_host.bundle.signature import key_id
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
    assert fingerprint(KEY.public) in ran.out


def test_a_key_is_added_for_a_time(cli: LocalCommandLine) -> None:
    times = ("--not-before", "2026-01-01T01:00:00+01:00", "--not-after", "2999-01-01T00:00:00Z")
    arguments = ("trust", "add", BASE64, "--label", "x", "--plugins", "*")
    assert cli(*arguments, *times).code == 0
    (key,) = loaded(cli).keys.values()
    assert key.not_before == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert key.not_after == dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
    ran = cli(*arguments, "--not-after", "tomorrow")
    assert (ran.code, ran.out) == (2, "")
    assert "is not a time" in ran.err


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


def test_revoking_what_is_no_key_of_the_store_is_told(cli: LocalCommandLine) -> None:
    assert cli("trust", "add", BASE64, "--label", "x", "--plugins", "*").code == 0
    ran = cli("trust", "revoke", OTHER.key_id, "--reason", "stolen")
    assert ran.code == 0
    assert "no key in the store has this id" in ran.err
    assert cli("trust", "revoke", "ab" * 32, "--bundle", "--reason", "bad").err == ""
    assert cli("trust", "revoke", KEY.key_id, "--reason", "stolen").err == ""


def test_a_revoked_bundle_is_refused(cli: LocalCommandLine, signed: Path) -> None:
    assert cli("trust", "add", BASE64, "--label", "x", "--plugins", "*").code == 0
    (verdict,) = json.loads(cli("verify", signed, "--format", "json").out)["verdicts"]
    assert verdict["verdict"] == "verified"
    ran = cli("trust", "revoke", verdict["digest"], "--bundle", "--reason", "CVE-2026-1")
    assert (ran.code, ran.err) == (0, "")
    ran = cli("verify", signed)
    assert ran.code == 4
    assert "CVE-2026-1" in ran.out + ran.err


def test_thresholds(cli: LocalCommandLine, signed: Path) -> None:
    assert cli("trust", "add", BASE64, "--label", "x", "--plugins", "*").code == 0
    assert cli("verify", signed).code == 0
    ran = cli("trust", "threshold", "2", "--plugins", "sam*", "--plugins", "other")
    assert ran.code == 0
    assert "sam*, other needs 2 signatures" in ran.out
    assert "the store has 1 key that could sign" in ran.err
    assert cli("verify", signed).code == 4
    assert "sam*, other needs 2 signatures" in cli("trust", "list").out
    told = json.loads(cli("trust", "list", "--format", "json").out)
    assert told["thresholds"] == [{"plugins": ["sam*", "other"], "count": 2}]
    assert (told["threshold"], told["version"], told["root"]) == (1, 2, None)
    for arguments in (("0", "--plugins", "*"), ("2",), ("2", "--plugins", "A")):
        ran = cli("trust", "threshold", *arguments)
        assert ran.code in {2, 6}
        assert ran.out == ""
    assert loaded(cli).version == 2


# -- a root ------------------------------------------------------------------------------------


def test_a_store_that_belongs_to_a_root(cli: LocalCommandLine) -> None:
    for name in ("root", "next"):
        assert cli("keygen", f"{name}.key", "--no-passphrase").code == 0
    fleet = cli.home / "fleet.toml"
    at_home = ("--trust-store", fleet)
    assert cli("trust", "add", BASE64, "--label", "x", "--plugins", "*", *at_home).code == 0
    ran = cli("trust", "sign", "--key", "root.key", *at_home)
    assert (ran.code, ran.err) == (0, "")
    assert f"{fleet}.sig: signed" in ran.out

    assert cli("trust", "install", fleet).code == 6  # nothing is pinned here yet
    ran = cli("trust", "root", "root.key.pub")
    assert (ran.code, ran.err) == (0, "")
    assert cli("trust", "install", fleet).code == 0
    assert "in place already" in cli("trust", "install", fleet).out
    assert KEY.key_id in loaded(cli).keys
    text = cli("trust", "list").out
    assert "version 1, 1 key" in text
    assert "signed by its root" in text

    # Here nobody edits it; there they do, and it has to be signed again.
    key = base64.b64encode(OTHER.public).decode()
    more = ("trust", "add", key, "--label", "y", "--plugins", "*")
    ran = cli(*more)
    assert (ran.code, ran.out) == (6, "")
    assert "trust install" in ran.err
    assert cli(*more, *at_home).code == 0
    assert cli("trust", "install", fleet).code == 6
    assert cli("trust", "sign", "--key", "root.key", *at_home).code == 0
    assert cli("trust", "install", fleet).code == 0
    assert loaded(cli).version == 2

    # The root is exchanged by a store that both signed.
    public = load_private_key(cli.home / "next.key").public
    text = fleet.read_text().replace("version = 2", "version = 3")
    fleet.write_text(f'{text}\n[root]\npublic = "{base64.b64encode(public).decode()}"\n')
    assert cli("trust", "sign", "--key", "root.key", *at_home).code == 0
    assert cli("trust", "install", fleet).code == 6
    assert cli("trust", "sign", "--key", "next.key", *at_home).code == 0
    ran = cli("trust", "install", fleet)
    assert ran.code == 0
    assert "The root was exchanged" in ran.out
    assert key_id(public) in ran.out
    assert loaded(cli).mark.root == key_id(public)


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

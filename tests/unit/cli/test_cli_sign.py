from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import format_public_key, save_private_key
from sandbox_host.bundle.public_keys import openssh_blob
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import UntrustedError
from sandbox_host.signing.ssh_wire import string, u32
from tests.support.agents import scripted_agent
from tests.support.bundles import make_key, store_of, write_plugin
from tests.support.command_line import LocalCommandLine, snapshot

ENVELOPE = "plugin.dsse.json"
PUBLIC, OTHER_PUBLIC = (format_public_key(make_key(seed).public) for seed in (1, 2))
LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def key_path(cli: LocalCommandLine) -> Path:
    save_private_key(make_key(), cli.home / "keys" / "release.key")
    return cli.home / "keys" / "release.key"


def verified(directory: Path) -> str:
    now = datetime.now(UTC)
    return verify(read_directory(directory), store_of(make_key()), now).root_digest


def test_exactly_one_file_is_written(cli: LocalCommandLine, plugin: Path, key_path: Path) -> None:
    before = snapshot(plugin)
    ran = cli("sign", plugin, "--key", key_path)
    assert (ran.code, ran.err) == (0, "")
    after = snapshot(plugin)
    mode, _ = after.pop(ENVELOPE)
    assert after == before
    assert stat.S_IMODE(mode) & 0o111 == 0
    assert verified(plugin) in ran.out
    assert make_key().key_id in ran.out


def test_signing_again_replaces_the_envelope(
    cli: LocalCommandLine, plugin: Path, key_path: Path
) -> None:
    assert cli("sign", plugin, "--key", key_path).code == 0
    (plugin / "more.py").write_text("x = 1\n")
    assert cli("sign", plugin, "--key", key_path).code == 0
    assert verified(plugin)
    assert sorted(p.name for p in plugin.iterdir()) == [
        "__init__.py",
        "more.py",
        ENVELOPE,
        "plugin.json",
    ]


def test_a_signed_copy_leaves_the_plugin_alone(
    cli: LocalCommandLine, plugin: Path, key_path: Path
) -> None:
    before = snapshot(plugin)
    assert cli("sign", plugin, "--key", key_path, "--out", "dist/sample").code == 0
    assert snapshot(plugin) == before
    assert verified(cli.home / "dist" / "sample")


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("sample", "inside the plugin itself"),
        ("sample/dist", "inside the plugin itself"),
        ("full", "is not empty"),
        ("file", "is a file or a link"),
    ],
)
def test_where_a_copy_cannot_go(
    cli: LocalCommandLine, plugin: Path, key_path: Path, out: str, why: str
) -> None:
    write_plugin(cli.home / "full")
    (cli.home / "file").write_text("")
    before = snapshot(cli.home)
    ran = cli("sign", plugin, "--key", key_path, "--out", out)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert snapshot(cli.home) == before


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("__pycache__/main.cpython-311.pyc", "Python's byte-code cache"),
        (".git/config", "a Git repository"),
        ("main.py~", "left-over"),
        (".env", "secrets"),
    ],
)
def test_droppings_are_called_what_they_are(
    cli: LocalCommandLine, plugin: Path, key_path: Path, path: str, what: str
) -> None:
    (plugin / path).parent.mkdir(exist_ok=True)
    (plugin / path).write_text("")
    before = snapshot(plugin)
    ran = cli("sign", plugin, "--key", key_path)
    assert (ran.code, ran.out) == (1, "")
    assert what in ran.err
    assert snapshot(plugin) == before


def test_the_default_is_the_development_key(cli: LocalCommandLine, plugin: Path) -> None:
    ran = cli("sign", plugin)
    assert (ran.code, ran.out) == (6, "")
    assert "sandbox-host keygen --dev" in ran.err
    assert cli("keygen", "--dev").code == 0
    assert cli("sign", plugin).code == 0
    trust = TrustStore.load(cli.config_dir / "trust.toml")
    assert verify(read_directory(plugin), trust, datetime.now(UTC)).manifest.name == "sample"


def test_a_passphrase_from_a_descriptor(cli: LocalCommandLine, plugin: Path) -> None:
    save_private_key(make_key(), cli.home / "locked.key", b"open sesame")
    ran = cli("sign", plugin, "--key", "locked.key")
    assert ran.code == 2
    assert "--passphrase-fd" in ran.err
    for passphrase, code in ((b"wrong", 6), (b"open sesame\n", 0)):
        read, write = os.pipe()
        os.write(write, passphrase)
        os.close(write)
        try:
            assert cli("sign", plugin, "--key", "locked.key", "--passphrase-fd", read).code == code
        finally:
            os.close(read)
    assert verified(plugin)


def test_a_passphrase_from_a_variable(
    cli: LocalCommandLine, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_private_key(make_key(), cli.home / "locked.key", b"open sesame")
    arguments = ("sign", plugin, "--key", "locked.key", "--passphrase-env", "SECRET")
    for passphrase, code in (("wrong", 6), ("x" * 2_000, 2), ("", 2), ("open sesame", 0)):
        monkeypatch.setenv("SECRET", passphrase)
        assert cli(*arguments).code == code
        assert "SECRET" not in os.environ
    assert verified(plugin)


# -- other signers -----------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["file:keys/release.key", "./keys/release.key"])
def test_a_file_by_its_uri(cli: LocalCommandLine, plugin: Path, key_path: Path, uri: str) -> None:
    assert cli("sign", plugin, "--key", uri).code == 0
    assert verified(plugin)


def test_an_agent_that_answers_wrongly_leaves_no_trace(
    cli: LocalCommandLine, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = string(openssh_blob(make_key().public)) + string(b"release")
    signature = string(string(b"ssh-ed25519") + string(make_key(2).sign(b"something else")))
    before = snapshot(plugin)
    with scripted_agent(string(b"\x0c" + u32(1) + blob), string(b"\x0e" + signature)) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        ran = cli("sign", plugin, "--key", "ssh-agent:")
    assert (ran.code, ran.out) == (6, "")
    assert "does not match the signed bytes" in ran.err
    assert snapshot(plugin) == before


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("--key", "exec:true"), 2, "--public-key"),
        (("--key", "exec:/nowhere", "--public-key", PUBLIC), 6, "cannot be started"),
        (("--key", "exec:true", "--public-key", "nothing"), 2, "neither the file of a public key"),
        (("--key", "ssh-agent:"), 6, "SSH_AUTH_SOCK"),
        (("--key", "pkcs11:x"), 2, "no scheme"),
        (("--key", "keys/release.key", "--public-key", OTHER_PUBLIC), 2, "--public-key the key"),
        (("--key", "keys/release.key", "--expires", "2027-01-01"), 2, "is not a time"),
        (("--key", "keys/release.key", "--expires", "soon"), 2, "is not a time"),
        (("--key", "keys/release.key", "--expires", "2001-01-01T00:00:00Z"), 2, "before it is"),
        (("--key", "keys/release.key", "--add"), 3, "is not signed yet"),
        (("--key", "keys/release.key", "--add", "--expires", LATER), 2, "first signer"),
        (("--key", "keys/release.key", "--also", "pgp=x"), 2, "minisign=PATH"),
        (("--key", "keys/release.key", "--also", "minisign"), 2, "minisign=PATH"),
        (("--key", "keys/release.key", "--also", "minisign="), 2, "minisign=PATH"),
        (("--key", "keys/release.key", "--also", "minisign=sample/x"), 2, "inside the plugin"),
        (
            ("--key", "keys/release.key", "--out", "dist", "--also", "signify=dist/x"),
            2,
            "inside the plugin",
        ),
        (("--key", "keys/release.key", "--also", "minisign=nowhere/x"), 6, "cannot be written"),
    ],
)
@pytest.mark.usefixtures("key_path")
def test_mistakes_leave_no_trace(
    cli: LocalCommandLine,
    plugin: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    why: str,
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    before = snapshot(cli.home)
    ran = cli("sign", plugin, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert why in ran.err
    assert snapshot(cli.home) == before


def test_expiry(cli: LocalCommandLine, plugin: Path, key_path: Path) -> None:
    ran = cli("sign", plugin, "--key", key_path, "--expires", "2999-01-31T01:00:00+01:00")
    assert (ran.code, ran.err) == (0, "")
    assert "2999-01-31T00:00:00Z" in ran.out
    contents, trust = read_directory(plugin), store_of(make_key())
    assert verify(contents, trust, datetime(2999, 1, 31, tzinfo=UTC))
    with pytest.raises(UntrustedError, match="expired at 2999-01-31"):
        verify(contents, trust, datetime(2999, 1, 31, 0, 0, 1, tzinfo=UTC))


# -- a second person ---------------------------------------------------------------------------


def test_a_second_signature(cli: LocalCommandLine, plugin: Path, key_path: Path) -> None:
    save_private_key(make_key(2), cli.home / "second.key")
    assert cli("sign", plugin, "--key", key_path).code == 0
    digest = verified(plugin)
    ran = cli("sign", plugin, "--key", "second.key", "--add", "--out", "both/sample")
    assert ran.code == 0
    for shown in ("about to sign sample 1.0.0", digest, make_key().key_id, make_key(2).key_id):
        assert shown in ran.err
    two = store_of(make_key(1), make_key(2), more="[policy]\nthreshold = 2\n")
    contents = read_directory(cli.home / "both" / "sample")
    assert len(verify(contents, two, datetime.now(UTC)).signers) == 2
    # The first one's place was left alone.
    with pytest.raises(UntrustedError, match="needs 2"):
        verify(read_directory(plugin), two, datetime.now(UTC))
    again = cli("sign", "both/sample", "--key", "second.key", "--add")
    assert (again.code, again.out) == (2, "")
    assert "has signed this already" in again.err
    alone = cli("sign", "both/sample", "--key", "second.key")
    assert (alone.code, alone.err) == (
        0,
        "note: 2 signatures are replaced by one; --add keeps them.\n",
    )


def test_a_second_person_does_not_sign_what_was_changed_since(
    cli: LocalCommandLine, plugin: Path, key_path: Path
) -> None:
    save_private_key(make_key(2), cli.home / "second.key")
    assert cli("sign", plugin, "--key", key_path).code == 0
    (plugin / "__init__.py").write_text("x = 1\n")
    before = snapshot(plugin)
    ran = cli("sign", plugin, "--key", "second.key", "--add")
    assert (ran.code, ran.out) == (1, "")
    assert "is not what it is" in ran.err
    assert "about to sign" not in ran.err
    assert snapshot(plugin) == before


def test_other_forms_are_written_beside_each_other_and_again(
    cli: LocalCommandLine, plugin: Path, key_path: Path
) -> None:
    before = set(snapshot(plugin))
    (cli.home / "dist").mkdir()
    forms = ("minisign", "signify", "sshsig")
    arguments = [f"--also={form}=dist/{form}" for form in forms]
    for _ in range(2):
        ran = cli("sign", plugin, "--key", key_path, *arguments)
        assert (ran.code, ran.err) == (0, "")
    assert set(snapshot(plugin)) - before == {ENVELOPE}
    assert sorted(file.name for file in (cli.home / "dist").iterdir()) == sorted(
        f"{form}{ending}" for form in forms for ending in ("", ".pub", ".payload")
    )


def test_a_plugin_that_no_host_would_take_is_not_signed(
    cli: LocalCommandLine, plugin: Path, key_path: Path
) -> None:
    (plugin / "plugin.json").write_text('{"name": "sample", "name": "other"}')
    before = snapshot(plugin)
    ran = cli("sign", plugin, "--key", key_path)
    assert ran.code == 1
    assert "plugin.json" in ran.err
    assert snapshot(plugin) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(
    cli: LocalCommandLine, plugin: Path, key_path: Path
) -> None:
    plugin.chmod(0o555)
    ran = cli("sign", plugin, "--key", key_path)
    plugin.chmod(0o755)
    assert ran.code == 6
    assert "--out" in ran.err
    assert ENVELOPE not in snapshot(plugin)


def test_a_disk_that_takes_no_more(
    cli: LocalCommandLine, plugin: Path, key_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ran = cli("sign", plugin, "--key", key_path)
    assert ran.code == 6
    assert "No space left on device" in ran.err
    assert ENVELOPE not in snapshot(plugin)

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox_host.bundle.keys import save_private_key
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from tests.support.bundles import make_key, store_of, write_plugin
from tests.support.command_line import LocalCommandLine, snapshot

ENVELOPE = "plugin.dsse.json"


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

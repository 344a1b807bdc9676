from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sandbox_host.bundle.archive import read_archive
from sandbox_host.bundle.reader import read_directory
from tests.support.command_line import LocalCommandLine, snapshot


def test_a_signed_plugin_is_packed_with_its_signature(cli: LocalCommandLine, signed: Path) -> None:
    before = snapshot(signed)
    ran = cli("pack", signed, "--out", cli.home / "out.plugin")
    assert (ran.code, ran.err) == (0, "")
    assert snapshot(signed) == before
    packed = read_archive(cli.home / "out.plugin")
    assert (packed.files, packed.envelope) == (
        read_directory(signed).files,
        (signed / "plugin.dsse.json").read_bytes(),
    )
    digest = hashlib.sha256((cli.home / "out.plugin").read_bytes()).hexdigest()
    assert f"SHA-256     {digest}" in ran.out
    assert "signature   packed with it" in ran.out


def test_by_default_the_archive_is_called_after_name_and_version(
    cli: LocalCommandLine, plugin: Path
) -> None:
    ran = cli("pack", plugin)
    assert ran.code == 0
    assert "sample-1.0.0.plugin: packed" in ran.out
    assert "none: not signed" in ran.out
    assert read_archive(cli.home / "sample-1.0.0.plugin").envelope is None


def test_compressed_and_packed_again_it_is_the_same(cli: LocalCommandLine, signed: Path) -> None:
    (signed / "plugin.dsse.json").unlink()
    (signed / "long.txt").write_text("hello\n" * 5_000)
    for source, name, more in (
        (signed, "plain.plugin", ()),
        (signed, "small.plugin", ("--compress",)),
        (cli.home / "small.plugin", "again.plugin", ()),
    ):
        assert cli("pack", source, "--out", cli.home / name, *more).code == 0
    plain, small, again = (
        (cli.home / f"{name}.plugin").read_bytes() for name in ("plain", "small", "again")
    )
    assert plain == again
    assert len(small) < len(plain) / 4


def test_what_was_changed_since_it_was_signed_is_not_packed(
    cli: LocalCommandLine, signed: Path
) -> None:
    (signed / "__init__.py").write_text("changed")
    ran = cli("pack", signed, "--out", cli.home / "out.plugin")
    assert (ran.code, ran.out) == (1, "")
    assert "is not what was signed: '__init__.py' was changed" in ran.err
    assert not (cli.home / "out.plugin").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [("sample/x.plugin", "inside the plugin itself"), (".", "is a directory")],
    ids=["inside", "directory"],
)
def test_a_place_that_cannot_be_meant(
    cli: LocalCommandLine, plugin: Path, out: str, words: str
) -> None:
    before = snapshot(plugin)
    ran = cli("pack", plugin, "--out", cli.home / out)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert snapshot(plugin) == before


def test_what_is_no_plugin_is_not_packed(cli: LocalCommandLine, plugin: Path) -> None:
    (plugin / "plugin.json").unlink()
    ran = cli("pack", plugin)
    assert (ran.code, ran.out) == (1, "")
    assert "has no plugin.json" in ran.err

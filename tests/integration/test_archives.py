"""A signed archive is a plugin as it is: loaded, called, refused and found like a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_host import BlockingHost
from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.reader import read_directory
from sandbox_host.errors import BundleError, UnsignedError, VerificationError
from sandbox_host.runtime.throwaway import ThrowawayHost
from tests.support.command_line import CommandLine
from tests.support.host import Workshop

pytestmark = pytest.mark.needs

SOURCE = "@operation\ndef twice(x):\n    return 2 * x\n"


@pytest.fixture
def archive(workshop: Workshop, tmp_path: Path) -> Path:
    """A signed plugin as one file; the directory is gone, so that nothing can come from there."""
    directory = workshop.write(SOURCE, files={"data/table.csv": "1;2"}, name="packed")
    path = tmp_path / "packed 1.plugin"
    write_archive(read_directory(directory), path, compress=True)
    directory.rename(tmp_path / "elsewhere")
    return path


def rewritten(archive: Path, files: dict[str, bytes], *, signed: bool = True) -> None:
    contents = read_directory(archive.parent / "elsewhere")
    envelope = contents.envelope if signed else None
    write_archive(Contents({**contents.files, **files}, envelope, "memory"), archive)


def test_a_signed_archive_loads_as_it_is(host: BlockingHost, archive: Path) -> None:
    plugin = host.load(archive)
    assert plugin.call("twice", 21) == 42
    package = plugin._process.places.package_dir
    assert (package / "data" / "table.csv").read_text() == "1;2"
    assert [path.name for path in package.parent.iterdir()] == ["packed"]


def test_what_was_changed_in_it_is_refused(host: BlockingHost, archive: Path) -> None:
    rewritten(archive, {"main.py": b"raise SystemExit"})
    with pytest.raises(VerificationError, match=r"'main\.py' was changed"):
        host.load(archive)
    rewritten(archive, {"added.py": b""})
    with pytest.raises(VerificationError, match=r"'added\.py' was added"):
        host.load(archive)
    rewritten(archive, {}, signed=False)
    with pytest.raises(UnsignedError):
        host.load(archive)
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="is not a plugin's archive"):
        host.load(archive)


def test_an_archive_that_is_swapped_while_it_is_read_is_refused_or_harmless(
    workshop: Workshop, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox_host import SandboxHost
    from sandbox_host.runtime import launch

    read = launch.read_bundle

    def read_then_rewrite(path: Path) -> Contents:
        contents = read(path)
        rewritten(archive, {"main.py": b"raise SystemExit"})
        return contents

    monkeypatch.setattr(launch, "read_bundle", read_then_rewrite)
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(archive).call("twice", 4) == 8


def test_a_trial_takes_an_archive(archive: Path) -> None:
    rewritten(archive, {}, signed=False)
    with ThrowawayHost() as trial:
        assert trial.load(archive).identity == "packed"


@pytest.mark.skipif(os.geteuid() == 0, reason="this is about an ordinary user's files")
def test_an_archive_that_may_not_be_read(host: BlockingHost, archive: Path) -> None:
    archive.chmod(0)
    with pytest.raises(BundleError, match="cannot be opened: Permission denied"):
        host.load(archive)


def test_the_commands_take_an_archive(workshop: Workshop, archive: Path, tmp_path: Path) -> None:
    cli = CommandLine(tmp_path)
    trust = ("--trust-store", workshop.config().trust_store)
    ran = cli("call", archive, "twice", "21", *trust)
    assert (ran.code, ran.out.strip()) == (0, "42"), ran.err
    ran = cli("run", "--once", archive, *trust)
    assert (ran.code, "packed" in ran.out) == (0, True), ran.err
    ran = cli("check", "--static", archive)
    assert (ran.code, "packed 1.0.0" in ran.out) == (0, True), ran.err


def test_what_lies_in_the_plugin_directory_is_loaded(
    workshop: Workshop, archive: Path, tmp_path: Path
) -> None:
    plugins = tmp_path / "installed"
    plugins.mkdir()
    archive.rename(plugins / "packed.plugin")
    cli = CommandLine(tmp_path)
    cli.config_dir.mkdir(parents=True)
    (cli.config_dir / "config.toml").write_text(
        f'plugin_directory = "{plugins}"\ntrust_store = "{workshop.config().trust_store}"\n'
    )
    ran = cli("run", "--once")
    assert (ran.code, "packed" in ran.out) == (0, True), ran.err

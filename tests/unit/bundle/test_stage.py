from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox_host.bundle import ENVELOPE_NAME, Contents
from sandbox_host.bundle import stage as stage_module
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.stage import remove, stage, stage_source
from sandbox_host.bundle.verify import VerifiedBundle, verify
from sandbox_host.errors import BundleError, ConfigError, UsageError
from tests.support.bundles import (
    NOW,
    make_key,
    signed_contents,
    signed_plugin,
    store_of,
    verified_bundle,
    write_plugin,
)

KEY = make_key()
FILES = {"main.py": "x = 1\n", "data/deep/données.csv": "1,2\n"}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    path = tmp_path / "staged"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def bundle() -> VerifiedBundle:
    return verify(signed_contents(KEY, FILES), store_of(KEY), NOW)


def tree(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def modes(path: Path) -> set[tuple[str, int]]:
    return {
        ("directory" if entry.is_dir() else "file", stat.S_IMODE(entry.stat().st_mode))
        for entry in (path, *path.rglob("*"))
    }


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_copy_is_exact_and_read_only(bundle: VerifiedBundle, parent: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        package = stage(bundle, parent)
    finally:
        os.umask(old)
    assert package == parent / f"sample-{bundle.root_digest[:12]}" / "sample"
    assert tree(package) == dict(bundle.files)
    assert modes(package.parent) == {("directory", 0o555), ("file", 0o444)}
    assert os.listdir(package.parent) == ["sample"]


def test_the_envelope_is_not_part_of_the_copy(bundle: VerifiedBundle, parent: Path) -> None:
    assert not (stage(bundle, parent) / ENVELOPE_NAME).exists()


def test_a_swap_after_verification_changes_nothing(tmp_path: Path, parent: Path) -> None:
    directory = signed_plugin(tmp_path / "sample", KEY, FILES)
    bundle = verified_bundle(directory, KEY)
    (directory / "main.py").write_text("evil = 1\n")
    (directory / "added.py").write_text("evil = 2\n")
    (directory / "__init__.py").unlink()
    package = stage(bundle, parent)
    assert (package / "main.py").read_text() == FILES["main.py"]
    assert set(tree(package)) == {"__init__.py", "plugin.json", *FILES}


def test_copies_are_never_shared(bundle: VerifiedBundle, parent: Path) -> None:
    first, second, third = (stage(bundle, parent) for _ in range(3))
    assert second.parent.name == first.parent.name + "-2"
    assert third.parent.name == first.parent.name + "-3"
    remove(second)
    assert tree(first) == tree(third) == dict(bundle.files)


def test_something_planted_at_the_copys_place_is_not_used(
    bundle: VerifiedBundle, parent: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (parent / f"sample-{bundle.root_digest[:12]}").symlink_to(elsewhere)
    package = stage(bundle, parent)
    assert package.parent.name.endswith("-2")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777, 0o1777])
def test_a_parent_that_others_can_reach(bundle: VerifiedBundle, parent: Path, mode: int) -> None:
    parent.chmod(mode)
    with pytest.raises(ConfigError, match="not ours alone"):
        stage(bundle, parent)
    assert not list(parent.iterdir())


def test_a_parent_that_is_a_link_missing_or_a_file(bundle: VerifiedBundle, parent: Path) -> None:
    (parent.parent / "link").symlink_to(parent)
    (parent.parent / "file").write_text("")
    for name in ("link", "missing", "file"):
        with pytest.raises(ConfigError):
            stage(bundle, parent.parent / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_parent_of_somebody_else(bundle: VerifiedBundle, parent: Path) -> None:
    os.chown(parent, 12345, -1)
    with pytest.raises(ConfigError, match="owner 12345"):
        stage(bundle, parent)


def test_a_copy_that_fails_leaves_nothing_behind(
    bundle: VerifiedBundle, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage_module._write_file

    def write(directory: int, name: str, data: bytes, mode: int) -> None:
        if name == "plugin.json":
            raise OSError(28, "No space left on device")
        real(directory, name, data, mode)

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(stage_module, "_write_file", write)
    with pytest.raises(ConfigError, match="No space left on device"):
        stage(bundle, parent)
    assert not list(parent.iterdir())
    assert set(os.listdir("/proc/self/fd")) == before


def test_removing(bundle: VerifiedBundle, parent: Path) -> None:
    package = stage(bundle, parent)
    remove(package)
    assert not list(parent.iterdir())
    remove(package)
    remove(stage(bundle, parent).parent)
    assert not list(parent.iterdir())


def test_removing_follows_no_link(bundle: VerifiedBundle, parent: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    (parent / "sample-link").symlink_to(kept)
    remove(parent / "sample-link")
    assert (kept / "file").exists()


# -- a signed copy of a source tree -----------------------------------------------------------


def test_a_signed_copy_verifies(tmp_path: Path) -> None:
    source = write_plugin(tmp_path / "sample", FILES)
    contents = read_directory(source)
    envelope = sign(contents, KEY, NOW)
    before = tree(source)
    for target in (tmp_path / "a" / "b" / "out", tmp_path / "empty"):
        if target.name == "empty":
            target.mkdir()
        stage_source(contents, envelope, target)
        assert tree(target) == {**contents.files, ENVELOPE_NAME: envelope}
        assert modes(target) == {("directory", 0o755), ("file", 0o644)}
        assert verified_bundle(target, KEY).manifest.identity == "sample"
    assert tree(source) == before


def test_signing_a_signed_tree_again_replaces_the_envelope(tmp_path: Path) -> None:
    contents = read_directory(signed_plugin(tmp_path / "sample", make_key(9), FILES))
    envelope = sign(contents, KEY, NOW)
    stage_source(contents, envelope, tmp_path / "out")
    assert (tmp_path / "out" / ENVELOPE_NAME).read_bytes() == envelope


def test_a_destination_with_something_in_it(tmp_path: Path) -> None:
    contents = signed_contents(KEY, FILES)
    assert contents.envelope is not None
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").mkdir()
    for name in ("file", "full", "link"):
        with pytest.raises(UsageError):
            stage_source(contents, contents.envelope, tmp_path / name)
    assert tree(tmp_path / "full") == {"x": b"mine"}
    assert not list((tmp_path / "target").iterdir())


@pytest.mark.parametrize("path", ["../escape.py", "/etc/x", "a/../../b", "x.pyc"])
def test_names_that_lead_elsewhere_are_not_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(BundleError):
        stage_source(Contents({path: b""}, None, "x"), b"", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_byte_code_lies_beside_the_sources_and_replaces_none(
    bundle: VerifiedBundle, parent: Path
) -> None:
    bytecode = {"__pycache__/main.cpython-311.pyc": b"code", "main.py": b"evil"}
    package = stage(bundle, parent, bytecode)
    expected = {**bundle.files, "__pycache__/main.cpython-311.pyc": b"code"}
    assert tree(package) == expected
    assert stat.S_IMODE((package / "__pycache__").stat().st_mode) == 0o555
    remove(package)
    assert list(parent.iterdir()) == []

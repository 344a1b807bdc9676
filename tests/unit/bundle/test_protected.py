from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox_host.bundle import protected
from sandbox_host.bundle.protected import (
    create_secret,
    make_directories,
    read_public,
    read_secret,
    replace_public,
)
from sandbox_host.errors import TrustStoreError


def test_missing_directories_are_made_private_and_old_ones_left_alone(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir(mode=0o755)
    make_directories(old / "a" / "b")
    make_directories(old / "a" / "b")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (old, old / "a", old / "a/b")] == [
        0o755,
        0o700,
        0o700,
    ]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrustStoreError, match="cannot be written"):
        make_directories(tmp_path / "file" / "below")
    with pytest.raises(TrustStoreError, match="cannot be written"):
        create_secret(tmp_path / "file" / "key", b"", "the key")


@pytest.mark.parametrize(("before", "after"), [(None, 0o600), (0o644, 0o644), (0o666, 0o644)])
def test_replacing_keeps_no_more_than_the_old_mode(
    tmp_path: Path, before: int | None, after: int
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text("old")
        path.chmod(before)
    replace_public(path, b"new", "the file")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == after
    assert os.listdir(tmp_path) == ["file"]


def test_a_replacement_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(protected.os, "fsync", full)
    with pytest.raises(TrustStoreError, match="No space left on device"):
        replace_public(path, b"new", "the file")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "link").symlink_to(target)
    replace_public(tmp_path / "link", b"new", "the file")
    assert target.read_text() == "kept"
    assert (tmp_path / "link").read_text() == "new"


def test_sizes_up_to_the_limit_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    create_secret(path, b"12345", "the file")
    for read in (read_secret, read_public):
        assert read(path, 5, "the file") == b"12345"
        with pytest.raises(TrustStoreError, match="larger than the 4 B allowed"):
            read(path, 4, "the file")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    create_secret(tmp_path / "file", b"1", "the file")
    read_public(tmp_path / "file", 5, "the file")
    with pytest.raises(TrustStoreError):
        read_public(tmp_path, 5, "the file")
    with pytest.raises(TrustStoreError):
        read_secret(tmp_path / "missing", 5, "the file")
    assert set(os.listdir("/proc/self/fd")) == before

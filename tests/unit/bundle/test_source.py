"""A directory and the archive of it are the same contents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_host.bundle import ENVELOPE_NAME, ReadLimits
from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.source import read_bundle
from sandbox_host.errors import BundleError
from tests.support.bundles import write_files

FILES = {"__init__.py": b"", "plugin.json": b"{}", "sub/data.bin": bytes(range(256))}


@pytest.fixture
def forms(tmp_path: Path) -> list[Path]:
    directory = write_files(tmp_path / "plugin", {**FILES, ENVELOPE_NAME: b"signed"})
    archive = tmp_path / "plugin.plugin"
    write_archive(read_directory(directory), archive)
    return [directory, archive]


@pytest.mark.parametrize("form", [0, 1], ids=["directory", "archive"])
def test_both_forms_are_read(forms: list[Path], form: int) -> None:
    contents = read_bundle(forms[form])
    assert dict(contents.files) == FILES
    assert contents.envelope == b"signed"
    assert contents.origin == str(forms[form])
    with pytest.raises(BundleError, match="has 256 B, more than the 255 B allowed"):
        read_bundle(forms[form], ReadLimits(file_bytes=255))


@pytest.mark.parametrize("form", [0, 1], ids=["directory", "archive"])
def test_neither_is_read_through_a_link(forms: list[Path], form: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(forms[form])
    with pytest.raises(BundleError, match="is a symbolic link"):
        read_bundle(tmp_path / "link")


def test_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleError, match="is not a plugin's archive"):
        read_bundle(tmp_path / "text")
    with pytest.raises(BundleError, match="neither a directory nor a regular file"):
        read_bundle(tmp_path / "fifo")
    with pytest.raises(BundleError, match="cannot be opened: No such file"):
        read_bundle(tmp_path / "missing")

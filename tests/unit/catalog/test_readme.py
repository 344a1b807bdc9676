"""The README as a file: replaced in one step, never followed, never half written."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox_host.catalog.manifest import BEGIN, END, read_manifest, rewrite_manifest
from sandbox_host.catalog.readme import MAX_README_BYTES, revise_readme, update_readme
from sandbox_host.errors import ConfigError

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
ACTIVE = {"a": {"version": "1.0.0"}}


def test_all_but_the_block_stays_byte_for_byte(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    before = "# Mine\r\n\r\n\u00e9\n\n"
    readme.write_bytes(before.encode())
    readme.chmod(0o664)
    update_readme(readme, ACTIVE, {"b": {}}, WHEN)
    assert readme.read_bytes().decode() == rewrite_manifest(before, ACTIVE, {"b": {}}, WHEN)
    assert readme.read_bytes().startswith(before.encode())
    assert readme.stat().st_mode & 0o777 == 0o664
    assert os.listdir(tmp_path) == ["README.md"]


def test_a_missing_one_is_made(tmp_path: Path) -> None:
    update_readme(tmp_path / "README.md", ACTIVE, {}, WHEN)
    text = (tmp_path / "README.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


@pytest.mark.parametrize("target", ["other", "missing"])
def test_a_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "README.md").symlink_to(target)
    with pytest.raises(ConfigError, match="is a symbolic link, which is not followed"):
        update_readme(tmp_path / "README.md", ACTIVE, {}, WHEN)
    assert (tmp_path / "other").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["README.md", "other"]


def test_what_is_no_readme(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "large").write_bytes(b"x" * (MAX_README_BYTES + 1))
    for name, problem in (
        ("fifo", "not a regular file"),
        ("directory", r"not a regular file|Is a directory"),
        ("latin", "not UTF-8"),
        ("large", "larger than"),
        ("nowhere/README.md", "No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=problem):
            update_readme(tmp_path / name, ACTIVE, {}, WHEN)
    assert (tmp_path / "latin").read_bytes() == b"\xe9"


def test_a_full_disk_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "README.md").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        update_readme(tmp_path / "README.md", ACTIVE, {}, WHEN)
    assert (tmp_path / "README.md").read_text() == "old"
    assert os.listdir(tmp_path) == ["README.md"]


def test_what_is_gone_or_disabled_is_active_no_more(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    update_readme(readme, {"a": {"version": "1"}, "b": {}, "c": {}}, {"d": {}}, WHEN)
    revise_readme(readme, {"a", "b"}, {"b": {"version": "2"}}, WHEN)
    assert read_manifest(readme.read_text()) == ({"a": {"version": "1"}}, {"b": {"version": "2"}})


def test_what_is_right_already_is_not_written_again(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    update_readme(readme, ACTIVE, {"b": {}}, WHEN)
    before = readme.stat()
    revise_readme(readme, {"a", "b"}, {"b": {}}, datetime(2030, 1, 1, tzinfo=UTC))
    assert readme.stat().st_ino == before.st_ino


def test_without_a_manifest_nothing_is_made(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    revise_readme(readme, {"a"}, {}, WHEN)
    assert not readme.exists()
    readme.write_text("# Mine\n\n```json\n{}\n```\n")
    revise_readme(readme, {"a"}, {"b": {}}, WHEN)
    assert readme.read_text() == "# Mine\n\n```json\n{}\n```\n"

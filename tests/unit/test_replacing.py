"""One file in the place of another: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.replacing import replacing


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_the_old_one_is_there_until_the_new_one_is(tmp_path: Path, parent: int) -> None:
    (tmp_path / "file").write_text("old")
    with replacing(parent, "file", 0o600) as file:
        file.write(b"new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_not_finished_leaves_nothing(tmp_path: Path, parent: int) -> None:
    (tmp_path / "file").write_text("old")

    def half() -> None:
        with replacing(parent, "file", 0o600) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path: Path, parent: int) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError), replacing(parent, "file", 0o600):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, parent: int) -> None:
    (tmp_path / "other").write_text("old")
    (tmp_path / "link").symlink_to("other")
    with replacing(parent, "link", 0o600) as file:
        file.write(b"new")
    assert (tmp_path / "other").read_text() == "old"
    assert (tmp_path / "link").read_text() == "new"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(("exactly", "mode"), [(None, 0o600), (0o644, 0o644)])
def test_its_mode(tmp_path: Path, parent: int, exactly: int | None, mode: int) -> None:
    umask = os.umask(0o077)
    try:
        with replacing(parent, "file", 0o644, exactly=exactly):
            pass
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode

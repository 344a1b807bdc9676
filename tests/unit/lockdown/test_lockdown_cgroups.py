"""Entering control groups from inside; what is written, and what is said of a refusal."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from plugin_sdk.lockdown.cgroups import join_groups


def test_the_process_itself_is_written_to_each(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("memory", "pids")]
    for file in files:
        file.touch()
    assert join_groups([(str(file), False) for file in files]) == []
    assert [file.read_bytes() for file in files] == [b"0", b"0"]


def test_one_that_it_need_not_get_into(tmp_path: Path) -> None:
    there, missing = tmp_path / "memory", tmp_path / "cpu"
    there.touch()
    assert join_groups([(str(missing), True), (str(there), False)]) == [str(missing)]
    assert there.read_bytes() == b"0"


def test_one_that_it_must(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"while entering .*/pids") as caught:
        join_groups([(str(tmp_path / "pids"), False)])
    assert caught.value.errno == errno.ENOENT


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="while entering"):
        join_groups([(str(tmp_path / "link"), False)])

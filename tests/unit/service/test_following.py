"""The end of a log file, and what comes after it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from sandbox_host.service.following import MAX_BYTES, LogTail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.log"


def test_the_last_lines_and_what_is_appended(path: Path) -> None:
    path.write_text("a\nb\nc\npart")
    with contextlib.closing(LogTail(path)) as tail:
        assert tail.last(2) == ["b", "c"]
        assert tail.new() == []
        with path.open("ab") as file:
            file.write(b"ial\n\xff\nmore")
        assert tail.new() == ["partial", "\\xff"]


def test_a_file_that_comes_later(path: Path) -> None:
    with contextlib.closing(LogTail(path)) as tail:
        assert tail.last(5) == []
        assert tail.new() == []
        path.write_text("first\n")
        assert tail.new() == ["first"]


def test_a_rotated_file_is_read_to_its_end(path: Path) -> None:
    path.write_text("old\n")
    with contextlib.closing(LogTail(path)) as tail:
        tail.last(0)
        with path.open("a") as file:
            file.write("last of the old\nhalf")
        path.rename(path.with_suffix(".1"))
        path.write_text("new\n")
        told = [line for _ in range(4) for line in tail.new()]
    assert told == ["last of the old", "half", "new"]


def test_a_file_that_was_cut(path: Path) -> None:
    path.write_text("much of it\n")
    with contextlib.closing(LogTail(path)) as tail:
        tail.last(1)
        path.write_text("x\n")
        assert tail.new() == ["x"]


def test_one_look_is_bounded(path: Path) -> None:
    path.write_bytes(b"x" * 3 * MAX_BYTES + b"\n" + b"y\n" * 10)
    with contextlib.closing(LogTail(path)) as tail:
        assert tail.last(1_000) == ["y"] * 10
        with path.open("ab") as file:
            file.write(b"z" * 5 * MAX_BYTES)
        pieces = [line for _ in range(6) for line in tail.new()]
    assert pieces
    assert max(map(len, pieces)) <= 2 * MAX_BYTES


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    path.symlink_to(tmp_path / "secret")
    with contextlib.closing(LogTail(path)) as tail:
        assert tail.last(5) == []

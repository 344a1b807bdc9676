"""Marks: the same as long as nobody touched anything, and another as soon as somebody did."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sandbox_host.catalog.fingerprint as room
from sandbox_host.catalog.fingerprint import MAX_LOOKED, mark_of
from tests.support.bundles import write_plugin


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return write_plugin(tmp_path / "sample", {"data/deep/one.txt": "1", "data/two.txt": "2"})


def _rewrite(plugin: Path) -> None:
    file = plugin / "data/deep/one.txt"
    status = file.stat()
    file.write_text("3")
    # As many bytes, and the time put back: the change time tells all the same.
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _exchange(plugin: Path) -> None:
    new = plugin / "new"
    new.write_text("2")
    new.rename(plugin / "data/two.txt")


CHANGES: dict[str, Callable[[Path], object]] = {
    "written": _rewrite,
    "exchanged": _exchange,
    "added": lambda plugin: (plugin / "more.py").write_text(""),
    "removed": lambda plugin: (plugin / "data/two.txt").unlink(),
    "renamed": lambda plugin: (plugin / "data/two.txt").rename(plugin / "data/three.txt"),
    "moved": lambda plugin: (plugin / "data/two.txt").rename(plugin / "two.txt"),
    "mode": lambda plugin: (
        (plugin / "main.py").chmod(0o600)
        if (plugin / "main.py").exists()
        else (plugin / "__init__.py").chmod(0o600)
    ),
    "directory renamed": lambda plugin: (plugin / "data/deep").rename(plugin / "data/deeper"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another(place: int, plugin: Path, change: str) -> None:
    before, looked = mark_of(place, "sample")
    assert mark_of(place, "sample") == (before, looked)
    assert looked == 7  # itself, two files, data with one file, deep with one file
    CHANGES[change](plugin)
    after, _ = mark_of(place, "sample")
    assert after is not None
    assert after != before


def test_reading_it_changes_nothing(place: int, plugin: Path) -> None:
    before = mark_of(place, "sample")
    for file in plugin.rglob("*.txt"):
        file.read_bytes()
    assert mark_of(place, "sample") == before


def test_what_is_no_plugin(place: int, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("x")
    (tmp_path / "README.md").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    for name in ("docs", "README.md", "fifo", "missing"):
        assert mark_of(place, name)[0] is None


def test_an_envelope_alone_is_one_half_copied(place: int, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half/plugin.dsse.json").write_text("{}")
    assert mark_of(place, "half")[0] is not None


def test_archives_and_links_have_marks_of_their_own(place: int, tmp_path: Path) -> None:
    (tmp_path / "a.plugin").write_bytes(b"one")
    (tmp_path / "link").symlink_to("a.plugin")
    archive, link = mark_of(place, "a.plugin")[0], mark_of(place, "link")[0]
    assert archive
    assert link
    (tmp_path / "a.plugin").write_bytes(b"two")
    assert mark_of(place, "a.plugin")[0] != archive
    assert mark_of(place, "link")[0] == link  # what it leads to is not looked at


def test_links_in_a_plugin_are_not_followed(place: int, plugin: Path, tmp_path: Path) -> None:
    outside = tmp_path / ".outside"
    outside.mkdir()
    (plugin / "link").symlink_to(outside)
    before = mark_of(place, "sample")
    (outside / "file").write_text("x")
    assert mark_of(place, "sample") == before


def test_no_more_is_looked_at_than_a_plugin_may_have(
    place: int, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_LOOKED", 5)
    _, looked = mark_of(place, "sample")
    assert looked == 5
    assert MAX_LOOKED == 4_001


def test_no_deeper_than_a_plugin_may_be(place: int, plugin: Path) -> None:
    deep = plugin / "/".join("d" * 40)
    deep.mkdir(parents=True)
    before = mark_of(place, "sample")
    (deep / "file").write_text("x")
    assert mark_of(place, "sample") == before
    assert before[1] == 7 + 16


def test_one_that_is_closed_is_told_apart(
    place: int, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refusing(path: str, *args: int, **keys: int) -> int:
        # Root may read everything, so the kernel's answer is given here.
        if path == "sample":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **keys)

    open_mark = mark_of(place, "sample")[0]
    monkeypatch.setattr(room.os, "open", refusing)
    closed = mark_of(place, "sample")[0]
    assert closed is not None
    assert closed != open_mark

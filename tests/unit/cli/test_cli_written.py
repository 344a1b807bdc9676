from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox_host.cli.written import write_file
from sandbox_host.errors import ConfigError


def test_a_file_is_made_or_replaced_with_mode_0644_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "a b.json", b"one", "the report")
        write_file(tmp_path / "a b.json", b"two", "the report")
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["a b.json"]
    assert (tmp_path / "a b.json").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "a b.json").stat().st_mode) == 0o644


def test_relative_paths_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep")
    write_file(Path("er/x"), b"1", "the report")
    write_file(Path("../y"), b"2", "the report")
    assert (tmp_path / "deep" / "er" / "x").read_bytes() == b"1"
    assert (tmp_path / "y").read_bytes() == b"2"


@pytest.mark.parametrize("place", ["file", "directory", "broken", "parent", "grandparent"])
def test_no_link_is_followed(tmp_path: Path, place: str) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "report").write_text("precious")
    work = tmp_path / "work"
    work.mkdir()
    target = work / "report"
    if place in {"file", "directory", "broken"}:
        target.symlink_to({"file": victim / "report", "directory": victim}.get(place, "nowhere"))
    else:
        (work / "link").symlink_to(victim)
        target = work / "link" / ("report" if place == "parent" else "sub/report")
    with pytest.raises(ConfigError, match="symbolic link"):
        write_file(target, b"forged", "the report")
    assert (victim / "report").read_text() == "precious"
    assert os.listdir(victim / "sub") == []
    assert len(os.listdir(work)) == 1


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_nothing_but_a_file_is_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "report"
    if kind == "fifo":
        os.mkfifo(target)
    else:
        target.mkdir()
    with pytest.raises(ConfigError, match="no regular file"):
        write_file(target, b"x", "the report")
    assert os.listdir(tmp_path) == ["report"]


@pytest.mark.parametrize("name", ["missing/report", "..", "file/report"])
def test_a_place_that_is_none_is_one_paragraph(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="the report cannot be written to") as caught:
        write_file(tmp_path / name, b"x", "the report")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]

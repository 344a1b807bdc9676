"""What a directory holds is counted as it is on disk, and judged without looking again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.budget import disk
from sandbox_host.budget.disk import DiskUse, judge_disk, measure
from sandbox_host.model import Cause, Limits
from sandbox_host.trees import Walked


def test_measure(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    os.mkfifo(tmp_path / "fifo")
    use = measure(tmp_path, 100)
    assert use.complete
    assert use.files == 6
    assert 100_000 <= use.bytes < 1_000_000


def test_counting_ends_behind_the_bound(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()
    assert measure(tmp_path, 5) == DiskUse(0, 6, complete=False)
    assert measure(tmp_path, 20) == DiskUse(0, 20, complete=True)


def test_a_file_of_several_names_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    once = measure(tmp_path, 100)
    for name in ("b", "a/c"):
        os.link(tmp_path / "file", tmp_path / name)
    assert measure(tmp_path, 100) == DiskUse(once.bytes, once.files + 2, complete=True)


def test_what_cannot_be_read_may_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "walk", lambda *_, **__: Walked(3, 1, complete=True))
    assert measure(tmp_path, 100) == DiskUse(0, 3, complete=False)


@pytest.mark.parametrize(("changing", "looks"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_what_changes_is_looked_at_again_some_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changing: int, looks: int
) -> None:
    done = []

    def walk(*_: object, **__: object) -> Walked:
        done.append(1)
        return Walked(len(done), 0, complete=len(done) > changing)

    monkeypatch.setattr(disk, "walk", walk)
    assert measure(tmp_path, 100) == DiskUse(0, looks, complete=changing < 3)
    assert len(done) == looks


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure(tmp_path / "none", 5)


@given(
    st.integers(0, 1 << 40), st.integers(0, 1 << 20), st.integers(0, 1 << 40), st.integers(0, 9_999)
)
def test_an_excess_is_more_than_the_limit_and_nothing_else(
    used: int, files: int, limit: int, most: int
) -> None:
    limits = Limits(data_bytes=limit, data_files=most)
    excess = judge_disk(limits, DiskUse(used, files, complete=True))
    assert (excess is not None) == (used > limit or files > most)
    if excess is not None:
        assert excess.cause is Cause.DISK
        assert excess.used > excess.limit

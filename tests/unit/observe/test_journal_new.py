"""A journal that was changed is kept aside, and another begins that names it."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from sandbox_host.errors import JournalError
from sandbox_host.observe import journal_files
from sandbox_host.observe.journal import Journal, last_entries, verify_journal
from sandbox_host.observe.journal_files import old_files
from sandbox_host.observe.journal_head import head_path
from sandbox_host.observe.journal_rotation import start_new

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_files, "MAX_FILE_BYTES", 800)
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for _ in range(6):
            journal.append("x")
    return path


def test_all_of_it_is_kept_aside(path):
    path.write_bytes(path.read_bytes().replace(b'"x"', b'"z"'))
    before = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    assert len(before) == 3
    aside = start_new(path, "a disk was\nrestored", NOW)
    assert {one.name: one.read_bytes() for one in aside.iterdir()} == before
    assert aside.stat().st_mode & 0o777 == 0o700
    assert aside.name.startswith("journal-aside-20260131T120000Z-")
    (first,) = last_entries(path)
    assert (first.seq, first.event) == (1, "journal-new")
    assert first.time == "2026-01-31T12:00:00.000000+00:00"
    assert (
        first.detail
        == f"what was there before is in {aside.name}; the reason: a disk was\\nrestored"
    )
    assert verify_journal(path) is None
    with Journal(path) as journal:
        assert journal.append("y").seq == 2


def test_a_host_that_runs_goes_on_in_the_new_one(path):
    with Journal(path) as journal:
        start_new(path, "r", NOW)
        assert journal.append("y").seq == 2
    assert verify_journal(path) is None


@pytest.mark.parametrize("gone", ["head", "newest", "all"])
def test_whatever_is_missing(path, gone):
    there = {"head": [head_path(path)], "newest": [path], "all": [*path.parent.iterdir()]}
    for one in there[gone]:
        one.unlink()
    aside = start_new(path, "r", NOW)
    assert (aside is None) == (gone == "all")
    assert old_files(path) == []
    with Journal(path) as journal:
        assert journal.append("y").seq == 2


@pytest.mark.parametrize("make", ["link", "fifo", "directory"])
def test_whatever_stands_there(tmp_path, make):
    path = tmp_path / "state" / "journal.jsonl"
    path.parent.mkdir()
    if make == "link":
        path.symlink_to(tmp_path / "target")
    elif make == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(JournalError):
        Journal(path)
    start_new(path, "r", NOW)
    Journal(path).close()
    assert verify_journal(path) is None
    assert not (tmp_path / "target").exists()


def test_a_full_disk_leaves_what_there_was(path, monkeypatch):
    before = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(JournalError, match="cannot be put aside"):
        start_new(path, "r", NOW)
    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == before

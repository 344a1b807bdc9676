"""Following a journal: each entry once, in order, through every new file."""

from __future__ import annotations

import pytest

from sandbox_host.errors import JournalError
from sandbox_host.observe import journal_files, journal_tail
from sandbox_host.observe.journal import Journal, utc_now
from sandbox_host.observe.journal_rotation import start_new
from sandbox_host.observe.journal_tail import JournalTail


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_files, "MAX_FILE_BYTES", 800)
    return tmp_path / "journal.jsonl"


def test_only_what_is_new(path):
    with Journal(path) as journal:
        journal.append("old")
        tail = JournalTail(path)
        assert tail.new() == []
        entry = journal.append("new")
        assert tail.new() == [entry]
        assert tail.new() == []
    tail.close()
    tail.close()


@pytest.mark.parametrize("every", [1, 2, 7, 30])
def test_through_every_new_file(path, every):
    """Asked often or seldom, it misses nothing that is still there."""
    with Journal(path) as journal:
        tail = JournalTail(path)
        told = []
        for number in range(30):
            journal.append("x", "", str(number))
            if number % every == every - 1:
                told += tail.new()
        told += tail.new()
    tail.close()
    assert [one.detail for one in told if one.event == "x"] == [str(n) for n in range(30)]
    assert [one.seq for one in told] == list(range(1, len(told) + 1))


def test_a_journal_that_is_not_there_yet(path):
    tail = JournalTail(path)
    assert tail.new() == []
    with Journal(path) as journal:
        entry = journal.append("x")
    assert tail.new() == [entry]
    tail.close()


def test_into_one_that_was_begun_anew(path):
    with Journal(path) as journal:
        journal.append("x")
        tail = JournalTail(path)
        start_new(path, "r", utc_now())
        entry = journal.append("y")
    assert [one.event for one in tail.new()] == ["journal-new", "y"]
    assert entry.seq == 2
    tail.close()


def test_half_a_line_is_waited_for(path):
    with Journal(path) as journal:
        tail = JournalTail(path)
        entry = journal.append("x")
    whole = path.read_bytes()
    path.write_bytes(whole[:30])
    assert tail.new() == []
    path.write_bytes(whole)
    assert tail.new() == [entry]
    tail.close()


def test_what_is_no_line_is_left_out(path):
    tail = JournalTail(path)
    path.write_bytes(b"garbage\n" + b"x" * 40_000 + b"\n")
    assert tail.new() == []
    assert tail.unreadable == 3
    tail.close()


def test_at_most_so_many_at_a_time(path, monkeypatch):
    monkeypatch.setattr(journal_tail, "_MAX_ENTRIES", 3)
    with Journal(path) as journal:
        tail = JournalTail(path)
        for _ in range(10):
            journal.append("x")
        told = []
        while part := tail.new():
            assert len(part) <= 3
            told += part
    assert [one.event for one in told].count("x") == 10
    tail.close()


def test_a_link_is_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="cannot be read"):
        JournalTail(path)

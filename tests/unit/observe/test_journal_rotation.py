"""Old files of the journal: the chain goes through all of them, and none can be changed or lost."""

from __future__ import annotations

import itertools
import json
import os
import threading

import pytest

from sandbox_host.errors import JournalError
from sandbox_host.observe import journal_files
from sandbox_host.observe.journal import Journal, last_entries, verify_journal
from sandbox_host.observe.journal_files import old_files, walk_journal
from sandbox_host.observe.journal_head import head_path, read_head


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Files of some three lines, of which three are kept."""
    monkeypatch.setattr(journal_files, "MAX_FILE_BYTES", 800)
    monkeypatch.setattr(journal_files, "KEPT_FILES", 3)


def write(path, count, event="x"):
    with Journal(path) as journal:
        for number in range(count):
            journal.append(event, "p", str(number))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state of a host" / "journal.jsonl"
    write(path, 8)
    assert len(old_files(path)) == 2
    return path


@pytest.fixture
def long(path):
    """A journal whose first files are gone."""
    write(path, 20)
    return path


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def entry(line):
    return json.loads(line)


def test_the_chain_goes_on(path):
    files = [*old_files(path), path]
    assert files[0].name == "journal.000000000001.jsonl"
    every = [entry(line) for one in files for line in lines(one)]
    assert [one["seq"] for one in every] == list(range(1, len(every) + 1))
    assert all(b["prev"] == a["hash"] for a, b in itertools.pairwise(every))
    for one in files[1:]:
        first = entry(lines(one)[0])
        assert first["event"] == "journal-rotated"
        assert first["detail"].startswith("goes on from journal.0000")
    assert all(one.stat().st_mode & 0o777 == 0o600 for one in files)
    assert verify_journal(path) is None


def test_so_many_stay(long):
    assert len(old_files(long)) == 3
    assert entry(lines(old_files(long)[0])[0])["seq"] > 1
    walk = walk_journal(long)
    assert walk.fault is None
    assert (walk.files, walk.has_head) == (4, True)
    write(long, 1)


def test_the_last_entries_are_of_all_files(long):
    got = last_entries(long, "x", 6, plugin="p")
    assert [one.detail for one in got] == [str(number) for number in range(14, 20)]
    assert len(last_entries(long, most=5)) == 5
    assert last_entries(long, "y") == []
    assert last_entries(long.with_name("none.jsonl")) == []


def changed(data):
    data[1] = data[1].replace(b'"detail":"', b'"detail":"not ')


def removed(data):
    del data[1]


def swapped(data):
    data[0], data[1] = data[1], data[0]


def shortened(data):
    del data[-1]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("damage", [changed, removed, swapped, shortened])
def test_damage_in_an_old_file_is_told_with_its_line(long, which, damage):
    old = old_files(long)[which]
    data = lines(old)
    damage(data)
    old.write_bytes(b"".join(data))
    fault = verify_journal(long)
    later = old_files(long)[which + 1] if which < 2 else long
    # What was cut off the end of a file shows in the first line of the next.
    assert fault.file in {old.name, later.name, ""}
    with pytest.raises(JournalError, match="changed by something else") as caught:
        Journal(long)
    assert str(fault) in caught.value.message


@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_old_file_that_was_removed_is_told(long, which):
    old_files(long)[which].unlink()
    assert verify_journal(long) is not None
    with pytest.raises(JournalError, match="changed by something else"):
        Journal(long)


@pytest.mark.parametrize("which", [0, -1], ids=["old", "newest"])
def test_a_fifo_in_the_place_of_a_file_holds_nobody_up(path, which):
    file = [*old_files(path), path][which]
    file.unlink()
    os.mkfifo(file)
    for read in (verify_journal, last_entries, Journal):
        with pytest.raises(JournalError, match="no regular file"):
            read(path)


def test_the_newest_removed_is_told(path):
    path.unlink()
    with pytest.raises(JournalError, match="the file was removed"):
        Journal(path)


def test_the_newest_replaced_by_an_older_is_told(path):
    path.unlink()
    old_files(path)[-1].rename(path)
    assert verify_journal(path) is not None
    with pytest.raises(JournalError, match="it was cut off"):
        Journal(path)


def test_a_file_from_elsewhere_is_told(path, tmp_path):
    (path.parent / "journal.000000000002.jsonl").write_bytes(b"")
    with pytest.raises(JournalError, match="changed by something else"):
        Journal(path)


def test_a_forged_beginning_needs_its_old_files(tmp_path):
    """A newest file that says it goes on from another must have it."""
    path = tmp_path / "journal.jsonl"
    write(path, 8)
    for old in old_files(path):
        old.unlink()
    assert "removed" in verify_journal(path).reason
    with pytest.raises(JournalError, match="line 1: the file before it is missing"):
        Journal(path)


def test_several_hosts_rotate_one_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as one, Journal(path) as other, Journal(path) as idle:
        for number in range(10):
            (one, other)[number % 2].append("x", "", str(number))
        assert idle.append("x", "", "10").seq > 11
        told = [e.detail for e in last_entries(path, "x", 100)]
        assert told[-4:] == ["7", "8", "9", "10"]
    assert verify_journal(path) is None


def test_hosts_in_threads_lose_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_files, "KEPT_FILES", 1_000)
    path = tmp_path / "journal.jsonl"
    journals = [Journal(path) for _ in range(3)]

    def work(journal):
        for number in range(20):
            journal.append("x", "", str(number))

    threads = [threading.Thread(target=work, args=(one,)) for one in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for journal in journals:
        journal.close()
    assert len(last_entries(path, "x", 1_000)) == 60
    assert verify_journal(path) is None


class Killed(BaseException):
    """The host is no more."""


@pytest.mark.parametrize("call", ["fdatasync", "link", "rename", ""])
def test_a_host_killed_while_rotating(tmp_path, monkeypatch, call):
    """Whatever it had done by then, the next goes on, and nothing is lost."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    while path.stat().st_size < 800:
        journal.append("x")
    count = len(lines(path))
    head = head_path(path).read_bytes()

    def killed(*_):
        raise Killed

    if call:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, killed)
            with pytest.raises(Killed):
                journal.append("x")
    else:  # after the rename, and before the head
        journal.append("x")
        path.write_bytes(lines(path)[0])
        head_path(path).write_bytes(head)
    journal.close()
    assert verify_journal(path) is None
    with Journal(path) as journal:
        assert journal.repaired == ""
        journal.append("y")
    assert verify_journal(path) is None
    assert len(last_entries(path, "x", 100)) == count
    assert last_entries(path, "y") != []


def test_killed_between_the_names(tmp_path, monkeypatch):
    """The newest file has two names then, and is not its own predecessor."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        while path.stat().st_size < 800:
            journal.append("x")
    os.link(path, path.with_name("journal.000000000001.jsonl"))
    assert old_files(path) == []
    assert verify_journal(path) is None
    with Journal(path) as journal:
        journal.append("y")
    assert len(old_files(path)) == 1
    assert verify_journal(path) is None


def test_a_foreign_file_in_the_way_is_not_overwritten(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        while path.stat().st_size < 800:
            journal.append("x")
        path.with_name("journal.000000000001.jsonl").write_bytes(b"evidence")
        with pytest.raises(JournalError, match="cannot be written"):
            journal.append("y")
    assert path.with_name("journal.000000000001.jsonl").read_bytes() == b"evidence"


def test_what_is_old_is_on_the_disk(path):
    assert read_head(path).synced.seq >= entry(lines(path)[0])["seq"]

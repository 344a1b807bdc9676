"""The end of the journal: lines cut off it are told, and what a crash leaves is repaired."""

from __future__ import annotations

import json
import os

import pytest

from sandbox_host.errors import JournalError
from sandbox_host.observe import journal_head
from sandbox_host.observe.journal import Journal, verify_journal
from sandbox_host.observe.journal_files import walk_journal
from sandbox_host.observe.journal_head import Mark, head_path, read_head


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state of a host" / "journal.jsonl"
    with Journal(path) as journal:
        for number in range(4):
            journal.append("x", "", str(number))
    return path


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def restarted(path):
    """Let the head be of another start of the machine."""
    text = head_path(path).read_text()
    head_path(path).write_text(text.rpartition("boot ")[0] + f"boot {'1' * 36}\n")


def test_the_head_says_where_it_ends(path):
    head = read_head(path)
    last = json.loads(lines(path)[-1])
    assert head.written == Mark(4, last["hash"])
    assert head.synced == Mark()
    assert head_path(path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_lines_cut_off_the_end_are_told(path, kept):
    path.write_bytes(b"".join(lines(path)[:kept]))
    fault = verify_journal(path)
    assert fault.line == kept + 1
    assert "the line with seq 4, and it ends with" in fault.reason
    with pytest.raises(JournalError, match=rf"line {kept + 1}: it was cut off"):
        Journal(path)


def test_a_part_of_the_last_line_cut_off_is_no_crash(path):
    os.truncate(path, path.stat().st_size - 10)
    assert verify_journal(path).line == 4
    with pytest.raises(JournalError, match="line 4: a part of it was cut off"):
        Journal(path)


def test_a_file_that_was_removed_is_not_made_good(path):
    path.unlink()
    with pytest.raises(JournalError, match="the file was removed"):
        Journal(path)
    assert not path.exists()
    with pytest.raises(JournalError, match="cannot be read"):
        verify_journal(path)


def test_a_head_that_was_removed_is_told(path):
    head_path(path).unlink()
    assert verify_journal(path) is None  # as a copy is
    assert walk_journal(path).has_head is False
    for _ in range(2):
        with pytest.raises(JournalError, match=r"line 4: the head.*is gone"):
            Journal(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("written", "writen"),
        lambda text: text[:-2],
        lambda text: text + "x" * 600,
        lambda text: text.replace("head 1", "head 2"),
        lambda text: "\0" * len(text),
    ],
    ids=["word", "cut", "long", "version", "zeros"],
)
def test_a_head_that_is_none_is_refused(path, damage):
    head_path(path).write_text(damage(head_path(path).read_text()))
    with pytest.raises(JournalError, match="is not as the host writes it"):
        Journal(path)
    with pytest.raises(JournalError, match="is not as the host writes it"):
        verify_journal(path)


def test_a_head_that_is_a_link_or_a_fifo_is_refused(path, tmp_path):
    head_path(path).rename(tmp_path / "elsewhere")
    head_path(path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="cannot be"):
        Journal(path)
    head_path(path).unlink()
    os.mkfifo(head_path(path))
    with pytest.raises(JournalError, match="cannot be"):
        Journal(path)


def test_killed_between_the_line_and_its_head(path):
    """The next host takes the line: it is whole and follows."""
    before = head_path(path).read_bytes()
    with Journal(path) as journal:
        journal.append("x")
    head_path(path).write_bytes(before)
    assert verify_journal(path) is None
    with Journal(path) as journal:
        assert journal.repaired == ""
        assert journal.append("y").seq == 6
    assert verify_journal(path) is None


def test_more_lines_than_that_were_not_the_hosts(path):
    before = head_path(path).read_bytes()
    with Journal(path) as journal:
        journal.append("x")
        journal.append("x")
    head_path(path).write_bytes(before)
    with pytest.raises(JournalError, match="line 6: it is another than the one that was written"):
        Journal(path)


def test_a_whole_journal_forged_anew_is_told(path):
    head = head_path(path).read_bytes()
    path.unlink()
    head_path(path).unlink()
    with Journal(path) as journal:
        for _ in range(4):
            journal.append("innocent")
    head_path(path).write_bytes(head)
    assert verify_journal(path).line == 4
    with pytest.raises(JournalError, match="line 4: it is another than the one that was written"):
        Journal(path)


def test_lines_lost_with_the_machine_are_said(path):
    """The kernel had them, and nobody forced them to the disk."""
    path.write_bytes(b"".join(lines(path)[:2]) + lines(path)[2][:20])
    restarted(path)
    with Journal(path) as journal:
        assert "after line 2, 2 were lost with the machine's stop" in journal.repaired
        assert "unfinished last line of 20 bytes" in journal.repaired
    assert verify_journal(path) is None
    assert json.loads(lines(path)[-1])["event"] == "journal-repaired"
    Journal(path).close()


def test_lines_that_were_on_the_disk_cannot_be_lost(path):
    with Journal(path) as journal:
        journal.sync()
    assert read_head(path).synced.seq == 4
    path.write_bytes(b"".join(lines(path)[:3]))
    restarted(path)
    assert verify_journal(path).line == 4
    with pytest.raises(JournalError, match="line 4: it is missing, and it was on the disk"):
        Journal(path)


def test_after_a_restart_the_last_line_must_be_the_known_one(path):
    restarted(path)
    Journal(path).close()
    forged = path.parent / "forged.jsonl"
    with Journal(forged) as journal:
        for _ in range(4):
            journal.append("innocent")
    path.write_bytes(forged.read_bytes())
    with pytest.raises(JournalError, match="line 4: it is another than the one that was written"):
        Journal(path)


def test_another_line_on_the_disk_than_the_synced_one_is_told(path):
    with Journal(path) as journal:
        journal.sync()
    forged = path.parent / "forged.jsonl"
    with Journal(forged) as journal:
        for _ in range(6):
            journal.append("innocent")
    path.write_bytes(forged.read_bytes())
    restarted(path)
    with pytest.raises(JournalError, match="line 4: it is another than the one that was written"):
        Journal(path)


def test_a_system_without_a_boot_id_takes_every_stop_for_a_kill(path, monkeypatch, tmp_path):
    monkeypatch.setattr(journal_head, "_BOOT_ID", tmp_path / "none")
    assert journal_head.boot_id() == "0" * 36


def test_a_failing_head_leaves_no_line(path, monkeypatch):
    with Journal(path) as journal:
        monkeypatch.setattr(os, "pwrite", lambda *_: 0)
        with pytest.raises(JournalError, match="cannot be written"):
            journal.append("x")
        monkeypatch.undo()
        assert journal.append("y").seq == 5
    assert verify_journal(path) is None


def test_two_hosts_move_one_head(path):
    with Journal(path) as one, Journal(path) as other:
        one.append("x")
        other.sync()
        one.append("x")
        assert read_head(path).synced.seq == 5
        assert read_head(path).written.seq == 6

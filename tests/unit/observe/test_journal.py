"""The journal: appended to, chained, repaired after a crash, and never edited unnoticed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from sandbox_host.errors import JournalError
from sandbox_host.observe.journal import (
    GENESIS,
    MAX_LINE_BYTES,
    Journal,
    JournalFault,
    verify_journal,
)
from sandbox_host.observe.journal_head import head_path


@pytest.fixture
def clock():
    start, ticks = datetime(2024, 2, 29, 12, tzinfo=UTC), count()
    return lambda: start + timedelta(seconds=next(ticks))


@pytest.fixture
def path(tmp_path, clock):
    path = tmp_path / "state" / "journal.jsonl"
    with Journal(path, clock) as journal:
        journal.append("admitted", "weather_model", "key ab12")
        journal.append("killed", "weather_model", "memory")
        journal.append("host-stopped")
    return path


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def test_what_a_line_holds(path):
    first, second, third = (json.loads(line) for line in lines(path))
    assert list(first) == ["seq", "time", "event", "plugin", "detail", "prev", "hash"]
    assert (first["seq"], second["seq"], third["seq"]) == (1, 2, 3)
    assert first["prev"] == GENESIS
    assert (second["prev"], third["prev"]) == (first["hash"], second["hash"])
    assert first["time"] == "2024-02-29T12:00:00.000000+00:00"
    assert (first["event"], first["plugin"], first["detail"]) == (
        "admitted",
        "weather_model",
        "key ab12",
    )
    assert verify_journal(path) is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_one_that_others_may_write_proves_nothing(path, clock, mode):
    path.chmod(mode)
    with pytest.raises(JournalError, match="can be written by its group or by others"):
        Journal(path, clock)


def test_only_the_owner_may_read_it(path, clock):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    Journal(path, clock).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_goes_on_where_it_stopped(path, clock):
    with Journal(path, clock) as journal:
        assert journal.head[0] == 3
        assert journal.repaired == ""
        assert journal.append("again").seq == 4
    assert verify_journal(path) is None


def test_two_writers_share_one_chain(path, clock):
    with Journal(path, clock) as one, Journal(path, clock) as other:
        numbers = [journal.append("x").seq for journal in (one, other, other, one)]
    assert numbers == [4, 5, 6, 7]
    assert verify_journal(path) is None


def changed(data):
    data[1] = data[1].replace(b"killed", b"cooled")


def removed(data):
    del data[1]


def first_removed(data):
    del data[0]


def swapped(data):
    data[1], data[2] = data[2], data[1]


def doubled(data):
    data.insert(1, data[0])


def spaced(data):
    data[1] = data[1].replace(b":", b": ", 1)


def added_key(data):
    data[1] = data[1].replace(b'{"seq"', b'{"x":1,"seq"')


def mistyped(data):
    data[1] = data[1].replace(b'"seq":2', b'"seq":2.0')


def binary(data):
    data[1] = b"\xff\xfe\n"


def endless(data):
    data[1] = b"x" * (MAX_LINE_BYTES + 2) + b"\n"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (changed, 2),
        (removed, 2),
        (first_removed, 1),
        (swapped, 2),
        (doubled, 2),
        (spaced, 2),
        (added_key, 2),
        (mistyped, 2),
        (binary, 2),
        (endless, 2),
    ],
)
def test_damage_is_found_at_its_line(path, damage, line):
    data = lines(path)
    damage(data)
    path.write_bytes(b"".join(data))
    before = path.read_bytes()
    fault = verify_journal(path)
    assert isinstance(fault, JournalFault)
    assert fault.line == line
    assert fault.reason
    with pytest.raises(
        JournalError, match=rf"changed by something else.*: line {line}: "
    ) as caught:
        Journal(path)
    assert "sandbox-host journal new" in caught.value.remedy
    assert path.read_bytes() == before


def test_a_forged_line_needs_every_later_line_forged(path, tmp_path, clock):
    forged = tmp_path / "forged.jsonl"
    with Journal(forged, clock) as journal:
        journal.append("admitted", "weather_model", "key of somebody else")
    data = lines(forged) + lines(path)[1:]
    path.write_bytes(b"".join(data))
    assert verify_journal(path) == JournalFault(
        2, "it continues another line than the one before it"
    )


@pytest.mark.parametrize("kept", [1, 50, -1])
def test_an_unfinished_last_line_is_cut_off_and_told(path, clock, kept):
    data = lines(path)
    # The machine stopped before the whole line, and the head that tells of it, were written.
    path.unlink()
    head_path(path).unlink()
    with Journal(path, clock) as journal:
        for line in map(json.loads, data[:2]):
            journal.append(line["event"], line["plugin"], line["detail"])
    path.write_bytes(path.read_bytes() + data[2][:kept])
    fault = verify_journal(path)
    assert fault is not None
    assert fault.line == 3
    with Journal(path, clock) as journal:
        assert "unfinished last line" in journal.repaired
        assert journal.head[0] == 3
    assert verify_journal(path) is None
    told = json.loads(lines(path)[-1])
    assert told["event"] == "journal-repaired"
    assert "{" in told["detail"]


def test_a_journal_of_only_an_unfinished_line(tmp_path, clock):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"seq":1,"ti')
    with Journal(path, clock) as journal:
        assert journal.head[0] == 1
    assert verify_journal(path) is None


@pytest.mark.parametrize("tail", [b"garbage\n", b"x" * (3 * MAX_LINE_BYTES), b"\n"])
def test_a_foreign_end_is_refused_and_kept(path, clock, tail):
    before = path.read_bytes() + tail
    path.write_bytes(before)
    with pytest.raises(JournalError, match="changed by something else"):
        Journal(path, clock)
    assert path.read_bytes() == before


def test_cutting_it_while_it_is_open_is_noticed(path, clock):
    with Journal(path, clock) as journal:
        os.truncate(path, 10)
        with pytest.raises(JournalError, match="line 3: it, or a part of it, was cut off"):
            journal.append("x")


def test_texts_are_bounded_and_cannot_forge_a_line(path, clock):
    with Journal(path, clock) as journal:
        entry = journal.append(
            "e" * 99, "p" * 99, 'x\n{"seq":9}\x1b[31m\u202e' + "\U0001f600" * 5_000
        )
    assert (len(entry.event), len(entry.plugin), len(entry.detail)) == (64, 64, 2_000)
    assert entry.detail.startswith('x\\n{"seq":9}\\x1b[31m\\u202e')
    assert len(lines(path)[-1]) < MAX_LINE_BYTES
    assert verify_journal(path) is None


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\\", '"', "\u2028"])
def test_any_text_survives(path, clock, text):
    with Journal(path, clock) as journal:
        journal.append(text, text, text)
    assert verify_journal(path) is None
    Journal(path, clock).close()


def test_a_link_is_not_followed(tmp_path, clock):
    target = tmp_path / "target"
    target.write_bytes(b"")
    (tmp_path / "journal.jsonl").symlink_to(target)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "journal.jsonl", clock)
    with pytest.raises(JournalError, match="cannot be read"):
        verify_journal(tmp_path / "journal.jsonl")


def test_a_fifo_is_no_journal(tmp_path, clock):
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(JournalError, match="no regular file"):
        Journal(tmp_path / "journal.jsonl", clock)


def test_closed(path, clock):
    journal = Journal(path, clock)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append("x")


def test_a_failing_disk_leaves_no_half_line(path, clock, monkeypatch):
    with Journal(path, clock) as journal:
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:20]))
        with pytest.raises(JournalError, match="cannot be written"):
            journal.append("x")
        monkeypatch.undo()
        assert verify_journal(path) is None
        assert journal.append("y").seq == 4
    assert verify_journal(path) is None


def test_an_empty_file_is_whole(tmp_path):
    (tmp_path / "j").write_bytes(b"")
    assert verify_journal(tmp_path / "j") is None

"""What a plugin printed: bounded on disk, harmless when it is shown."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.observe.plugin_log import PluginLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PluginLog]:
    opened = PluginLog(tmp_path / "sample.log", 100)
    yield opened
    opened.close()


def test_the_tail_cannot_move_a_terminal(log: PluginLog) -> None:
    log.write(b"first\n\x1b[2Jlook \xff\n\xe2\x80\xaelast\n")
    assert log.tail(2) == ["\\x1b[2Jlook \ufffd", r"\u202elast"]
    assert log.path.read_bytes().startswith(b"first\n\x1b[2J")


def test_a_long_line_is_cut(log: PluginLog) -> None:
    log.write(b"x" * 9_000)
    (line,) = log.tail(1)
    assert len(line) == 8_000
    assert line.endswith("x...")


def test_at_its_limit_the_file_is_replaced(log: PluginLog) -> None:
    for text in (b"a" * 60, b"b" * 60, b"c" * 60):
        log.write(text)
    assert log.path.read_bytes() == b"c" * 60
    assert log.path.with_name("sample.log.1").read_bytes() == b"b" * 60
    assert log.lost_bytes == 0


def test_what_the_disk_does_not_take_is_counted(
    log: PluginLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    log.write(b"lost")
    monkeypatch.undo()
    log.close()
    log.write(b"also")
    assert log.lost_bytes == 8


def test_without_a_file_there_is_no_tail(log: PluginLog) -> None:
    log.path.unlink()
    assert log.tail(5) == []


def test_what_one_process_printed_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "sample.log"
    path.write_bytes(b"of another process\n")
    log = PluginLog(path, 100)
    assert log.printed(5) == []
    log.write(b"first\n\x1b[2Jsecond\n")
    log.write(b"the host's\n", printed=False)
    other = PluginLog(path, 100)
    other.write(b"of the next\n")
    other.close()
    log.close()
    assert log.printed(5) == ["first", "\\x1b[2Jsecond"]
    assert log.printed(1) == ["\\x1b[2Jsecond"]
    assert log.tail(2) == ["the host's", "of the next"]


def test_of_what_was_printed_only_the_end_is_kept(log: PluginLog) -> None:
    for number in range(20_000):
        log.write(b"%d\n" % number)
    kept = log.printed(20_000)
    assert kept[-1] == "19999"
    assert len("\n".join(kept)) < 64 * 1024
    assert len(log._printed) == 64 * 1024

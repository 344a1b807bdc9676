"""Forwarding: datagrams of the native protocol to a socket of the test's own."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from sandbox_host.observe.journal import Journal
from sandbox_host.observe.journal_forward import SystemJournal


@pytest.fixture
def journald(tmp_path):
    path = tmp_path / "socket"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(path))
        server.setblocking(False)
        yield path, server


def fields(server):
    lines = server.recv(65_536).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_every_entry_is_sent(tmp_path, journald):
    path, server = journald
    system = SystemJournal(path)
    with Journal(tmp_path / "journal.jsonl", forward=system.send) as journal:
        entry = journal.append("admitted", "weather", "key ab\nMESSAGE=forged \U0001f600")
        journal.append("host_stopped")
    got = fields(server)
    assert got == {
        "MESSAGE": f"admitted: weather: {entry.detail}",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "sandbox-host",
        "SANDBOX_HOST_SEQ": "1",
        "SANDBOX_HOST_EVENT": "admitted",
        "SANDBOX_HOST_PLUGIN": "weather",
        "SANDBOX_HOST_HASH": entry.hash,
    }
    assert fields(server)["MESSAGE"] == "host_stopped"
    system.close()
    system.close()
    assert system.lost == 0


def test_what_is_not_taken_is_counted(tmp_path, journald):
    path, server = journald
    with Journal(tmp_path / "journal.jsonl") as journal:
        entry = journal.append("x", "", "d" * 1_900)
    system = SystemJournal(path)
    for _ in range(2_000):
        system.send(entry)
    assert 0 < system.lost < 2_000
    with contextlib.suppress(BlockingIOError):
        while server.recv(65_536):
            pass
    before = system.lost
    system.send(entry)
    assert system.lost == before
    system.close()


def test_where_there_is_none(tmp_path):
    system = SystemJournal(tmp_path / "nothing" / "here")
    with Journal(tmp_path / "journal.jsonl", forward=system.send) as journal:
        journal.append("x")
    assert system.lost == 1
    system.close()


def test_one_that_was_restarted(tmp_path, journald):
    path, server = journald
    with Journal(tmp_path / "journal.jsonl") as journal:
        entry = journal.append("x")
    system = SystemJournal(path)
    system.send(entry)
    server.close()
    path.unlink()
    system.send(entry)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as again:
        again.bind(str(path))
        system.send(entry)
        assert again.recv(65_536)
    assert system.lost == 1
    system.close()


def test_a_path_that_no_socket_can_have(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        entry = journal.append("x")
    system = SystemJournal(Path("/" + "x" * 300))
    system.send(entry)
    assert system.lost == 1
    system.close()

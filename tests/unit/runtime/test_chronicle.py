"""What the journal is told of plugins' lives."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest

from sandbox_host.config import HostConfig
from sandbox_host.health.hysteresis import StatusChange
from sandbox_host.health.verdict import HealthStatus
from sandbox_host.model import Cause, State
from sandbox_host.observe.journal_forward import SystemJournal
from sandbox_host.runtime import chronicle
from sandbox_host.runtime.chronicle import MAX_USES, Chronicle


@pytest.fixture
def config(tmp_path):
    return HostConfig(state_dir=tmp_path / "state")


@pytest.fixture
def book(config):
    made = Chronicle(config)
    yield made
    made.close()


def told(config):
    lines = map(json.loads, config.journal_path.read_text().splitlines())
    return [(line["event"], line["plugin"], line["detail"]) for line in lines]


def process(cause=Cause.CRASHED, state=State.FAILED):
    receipt = SimpleNamespace(pid=5, active=("landlock", "seccomp"))
    return SimpleNamespace(
        identity="weather", cause=cause, cause_text="why", state=state, receipt=receipt
    )


def test_lives(config, book):
    book.host_started()
    book.started(process(), again=False)
    book.started(process(), again=True)
    book.host_stopped()
    assert [line[0] for line in told(config)] == [
        "host_started",
        "started",
        "restarted",
        "host_stopped",
    ]
    assert told(config)[1] == ("started", "weather", "pid 5, layers landlock, seccomp")


KILLED = {
    *(Cause.MEMORY, Cause.CPU, Cause.DEADLINE, Cause.THREADS, Cause.DISK, Cause.NETWORK),
    *(Cause.PROTOCOL_VIOLATION, Cause.SYSCALL, Cause.UNLOADED, Cause.HOST_SHUTDOWN),
    *(Cause.CANCELLED, Cause.UNRESPONSIVE),
}


@pytest.mark.parametrize("cause", Cause)
def test_who_ended_it(config, book, cause):
    book.ended(process(cause))
    assert told(config) == [("killed" if cause in KILLED else "ended", "weather", f"{cause}: why")]


def test_one_that_left_was_unloaded(config, book):
    book.ended(process(Cause.UNLOADED, State.STOPPED))
    assert told(config) == [("unloaded", "weather", "unloaded: why")]


def test_health_that_turns(config, book):
    book.turned(process(), StatusChange(HealthStatus.HEALTHY, HealthStatus.DEGRADED, "slow"))
    book.turned(process(), StatusChange(HealthStatus.DEGRADED, HealthStatus.UNHEALTHY, "dead"))
    book.turned(process(), StatusChange(HealthStatus.UNHEALTHY, HealthStatus.HEALTHY, "fine"))
    assert told(config) == [
        ("degraded", "weather", "degraded, was healthy: slow"),
        ("degraded", "weather", "unhealthy, was degraded: dead"),
        ("recovered", "weather", "healthy, was unhealthy: fine"),
    ]


def test_every_line_is_heard(config):
    heard = []
    chronicle = Chronicle(config, heard.append)
    chronicle.started(process(), again=False)
    chronicle.close()
    assert [(entry.event, entry.plugin) for entry in heard] == [("started", "weather")]


def test_the_first_use_of_each_permission(config, book):
    plugin = process()
    for what in ("a:1", "a:1", "b:2"):
        book.used(plugin, "network", what)
    book.used(plugin, "publish", "a:1")
    assert [line[2] for line in told(config)] == ["network: a:1", "network: b:2", "publish: a:1"]
    book.ended(plugin)
    book.used(plugin, "network", "a:1")
    assert told(config)[-1] == ("permission_used", "weather", "network: a:1")


def test_uses_are_bounded(config, book):
    for number in range(MAX_USES + 20):
        book.used(process(), "publish", f"type{number}")
    assert len(told(config)) == MAX_USES


def test_a_journal_that_fails_ends_no_plugin(config, book, caplog):
    book.close()
    book.used(process(), "publish", "x")
    book.ended(process())
    book.host_stopped()
    assert "The journal is closed" in caplog.text


def test_forwarding(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        monkeypatch.setattr(chronicle, "SystemJournal", lambda: SystemJournal(tmp_path / "s"))
        Chronicle(HostConfig(state_dir=tmp_path / "one")).close()
        config = HostConfig(state_dir=tmp_path / "two", forward_journal=True)
        book = Chronicle(config)
        book.host_started()
        server.settimeout(5)
        assert b"SANDBOX_HOST_EVENT=host_started" in server.recv(65_536)
        (tmp_path / "s").unlink()
        book.used(process(), "publish", "x")
        book.host_stopped()
        book.close()
    assert told(config)[-1][2] == "1 entries were not taken by the system journal"


def test_a_repair_is_told(config, caplog):
    Chronicle(config).close()
    config.journal_path.write_bytes(b'{"seq":1,"ti')
    Chronicle(config).close()
    assert "was repaired: cut off an unfinished last line" in caplog.text

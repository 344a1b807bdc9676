"""Where alerts go: a webhook that is not what it should be, a command that hangs, and the rest."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from datetime import UTC, datetime

import pytest

from sandbox_host.health.alerts import Alert, Kind, Severity
from sandbox_host.monitoring_terms import AlertSettings
from sandbox_host.runtime.alert_sinks import (
    CommandSink,
    EventSink,
    JournalSink,
    LogSink,
    SinkError,
    WebhookSink,
    sinks_of,
)
from sandbox_host.runtime.alerting import Message
from tests.support.traces import eventually, is_running

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def message(kind=Kind.RAISED, severity=Severity.ERROR):
    alert = Alert("sample", "health", kind, severity, "it is dead", 1.0, 2.0, 3)
    return Message(alert, NOW, NOW)


@pytest.fixture
def server():
    """A server that says to each who connects what it is told to, and keeps what it heard."""
    heard = []

    def serve(answer, *, then=None):
        def run():
            made, _ = listening.accept()
            with made:
                made.settimeout(20)
                got = b""
                while b'"times": 3}' not in got:
                    got += made.recv(65_536)
                heard.append(got)
                made.sendall(answer)
                if then is not None:
                    then.wait(20)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listening.getsockname()[1]}/secret?token=x"

    threads = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield serve, heard
        for thread in threads:
            thread.join()


def test_a_webhook_gets_json(server):
    serve, heard = server
    WebhookSink(serve(b"HTTP/1.1 204 No Content\r\n\r\n"), 10.0).tell(message())
    head, body = heard[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /secret?token=x HTTP/1.1\r\n")
    assert b"Content-Type: application/json" in head
    assert json.loads(body) == {
        "plugin": "sample",
        "rule": "health",
        "kind": "raised",
        "severity": "error",
        "message": "it is dead",
        "since": "2026-01-31T12:00:00.000+00:00",
        "at": "2026-01-31T12:00:00.000+00:00",
        "times": 3,
    }


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "answered 100"),
        (b"SSH-2.0-nonsense\r\n", "no HTTP"),
        (b"x" * 10_000, "no HTTP"),
        (b"", "no HTTP"),
    ],
    ids=["redirect", "error", "informational", "another", "endless", "silent"],
)
def test_what_is_no_success(server, answer, why):
    serve, heard = server
    with pytest.raises(SinkError, match=why) as caught:
        WebhookSink(serve(answer), 10.0).tell(message())
    assert "secret" not in str(caught.value)
    assert len(heard) == 1  # nothing was followed, and nothing tried again


def test_a_webhook_that_does_not_answer_is_left(server):
    serve, _ = server
    go = threading.Event()
    try:
        with pytest.raises(SinkError, match=r"timed out|in time"):
            WebhookSink(serve(b"HTTP/1.1 2", then=go), 0.2).tell(message())
    finally:
        go.set()


def test_a_webhook_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(SinkError, match="refused"):
        WebhookSink(f"http://127.0.0.1:{port}/", 10.0).tell(message())


def test_a_webhook_with_https_wants_tls():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run():
            made, _ = listening.accept()
            with made:
                made.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=run)
        thread.start()
        sink = WebhookSink(f"https://127.0.0.1:{listening.getsockname()[1]}/", 10.0)
        with pytest.raises(SinkError):
            sink.tell(message())
        thread.join()


def python(code, *words):
    return (sys.executable, "-c", code, *words)


def test_a_command_gets_json_and_its_words_as_they_are(tmp_path):
    target = tmp_path / "a b; $(touch c)"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    CommandSink(python(code, str(target)), 20.0).tell(message())
    assert json.loads(target.read_text()) == message().document
    assert [path.name for path in tmp_path.iterdir()] == ["a b; $(touch c)"]


def test_a_command_that_fails():
    with pytest.raises(SinkError, match="ended with status 3"):
        CommandSink(python("raise SystemExit(3)"), 20.0).tell(message())
    with pytest.raises(SinkError, match="No such file"):
        CommandSink(("/nowhere/at-all",), 20.0).tell(message())


def test_what_a_command_has_started_is_killed_with_it(tmp_path):
    note = tmp_path / "pid"
    sink = CommandSink(("/bin/sh", "-c", f"sleep 600 & echo $! > '{note}'; wait"), 1.0)
    with pytest.raises(SinkError, match="was killed after 1 s"):
        sink.tell(message())
    assert eventually(lambda: not is_running(int(note.read_text())))


def test_a_command_that_hangs_is_killed(tmp_path):
    note = tmp_path / "pid"
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    sink = CommandSink(python(code, str(note)), 60.0)
    failed = []

    def tell():
        try:
            sink.tell(message())
        except SinkError as error:
            failed.append(str(error))

    thread = threading.Thread(target=tell)
    thread.start()
    assert eventually(lambda: note.exists() and note.read_text().isdigit())
    sink.abandon()  # as at the end of its host
    thread.join(20)
    assert not is_running(int(note.read_text()))
    assert failed == [f"{sys.executable} ended with status -9"]
    with pytest.raises(SinkError, match=r"was killed after 0\.1 s"):
        CommandSink(python(code, str(note)), 0.1).tell(message())


def test_log_journal_and_event(caplog):
    told, events = [], []
    with caplog.at_level(logging.INFO, "sandbox_host"):
        LogSink().tell(message())
        LogSink().tell(message(severity=Severity.WARNING))
        LogSink().tell(message(Kind.RECOVERED))
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "INFO"]
    assert caplog.messages[0] == "alert: sample: health raised: it is dead (3 times)"
    JournalSink(lambda *line: told.append(line)).tell(message())
    assert told == [("alert", "sample", "health raised (error): it is dead")]
    EventSink(lambda *event: events.append(event)).tell(message())
    assert events == [
        (
            "error_occurred",
            {
                "plugin": "sample",
                "rule": "health",
                "kind": "raised",
                "severity": "error",
                "event": "alert",
                "message": "it is dead",
            },
        )
    ]


def test_those_that_are_set():
    def names(**settings):
        return [sink.name for sink in sinks_of(AlertSettings(**settings), print, print)]

    assert names() == ["log", "event"]
    assert names(log=False, event=False) == []
    assert names(journal=True, webhook="https://x.example/", command=("/bin/true",)) == [
        *("log", "journal", "event", "webhook", "command")
    ]

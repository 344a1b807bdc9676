"""What systemd is told, by its protocol (sd_notify(3)), against a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host.service.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    name = path if request.param == "path" else f"@{path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(20)
        yield listening, name


def heard(listening: socket.socket) -> list[str]:
    return listening.recv(4_096).decode().splitlines()


def test_a_life(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "KEPT": "x"}
    with Notifier(environment) as notifier:
        assert environment == {"KEPT": "x"}  # what is started is told nothing of them
        assert notifier.watchdog_seconds == 30
        notifier.ready("2 of 2")
        assert heard(listening) == ["READY=1", "STATUS=2 of 2"]
        notifier.status("2 of 2")
        notifier.status("1 of 2\nREADY=0")
        assert heard(listening) == ["STATUS=1 of 2\\nREADY=0"]
        notifier.reloading()
        reloading, stamp = heard(listening)
        assert reloading == "RELOADING=1"
        assert stamp.removeprefix("MONOTONIC_USEC=").isdecimal()
        notifier.stopping(1.5)
        assert heard(listening) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=1500000"]


def test_signs_of_life_come_more_often_than_they_have_to(
    manager: tuple[socket.socket, str],
) -> None:
    listening, name = manager
    with Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"}) as notifier:
        assert notifier.sign_is_due(100.0)
        notifier.alive(100.0)
        assert heard(listening) == ["WATCHDOG=1"]
        assert not notifier.sign_is_due(100.9)
        assert notifier.sign_is_due(101.5)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1000"},
    ],
    ids=["none", "relative", "empty"],
)
def test_without_a_supervisor_nothing_is_told(environment: dict[str, str]) -> None:
    with Notifier(environment) as notifier:
        notifier.ready()
        assert not notifier.sign_is_due(1e9)


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("2000000", "", 2.0),
        ("2000000", str(os.getpid()), 2.0),
        ("2000000", "1", 0.0),
        ("-5", "", 0.0),
        ("soon", "", 0.0),
    ],
    ids=["whose it is", "its own", "another's", "negative", "no number"],
)
def test_the_watchdog_of_another_process_is_not_ours(usec: str, pid: str, seconds: float) -> None:
    given = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    with Notifier(given) as notifier:
        assert notifier.watchdog_seconds == seconds


def test_a_supervisor_that_is_gone_or_does_not_read_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}) as notifier:
        notifier.ready()
        notifier.ready()
    assert caplog.text.count("cannot be told") == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "deaf"))
        with Notifier({"NOTIFY_SOCKET": str(tmp_path / "deaf")}) as notifier:
            for _ in range(1_000):
                notifier.alive(0.0)

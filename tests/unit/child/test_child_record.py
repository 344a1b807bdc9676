"""What a trial hears: the events of the audit hook, handed in one by one, without any hook."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.child.record import MAX_DENIED, Recorder
from tests.support.child_session import order_for

HERE = Path(__file__).parent


@pytest.fixture
def heard(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function of grants and events: what is reported; this file is the plugin's code."""

    def report(granted: dict[str, Any], *events: tuple[Any, ...]) -> dict[str, Any]:
        places = {"data_dir": str(tmp_path / "data"), "scratch_dir": str(tmp_path / "scratch")}
        order = order_for(HERE, granted=granted, **places)
        recorder = Recorder(order)
        recorder._look_at_maps = lambda: None  # type: ignore[method-assign]  # of the test's process
        for event, *arguments in events:
            recorder._hook(event, tuple(arguments))
        return recorder.report()

    return report


Heard = Callable[..., dict[str, Any]]


def denied(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["rule"], one["asked"]) for one in report["denied"]]


@pytest.mark.parametrize(
    ("event", "refused"),
    [
        (("open", "/srv/x", "r", os.O_RDONLY), ("read", "/srv/x")),
        (("open", b"/srv/x", "w", 0), ("write", "/srv/x")),
        (("open", Path("/srv/x"), None, os.O_RDWR), ("write", "/srv/x")),
        (("os.listdir", "/srv"), ("read", "/srv")),
        (("os.mkdir", "/srv/x", 0o777, -1), ("write", "/srv/x")),
        (("os.rename", "/srv/x", "/srv/y", -1, -1), ("write", "/srv/x")),
        (("sqlite3.connect", "/srv/db"), ("write", "/srv/db")),
        (("socket.connect", None, ("example.org", 80)), ("network", "example.org:80")),
        (("socket.connect", None, ("::1", 80, 0, 0)), ("network", "[::1]:80")),
        (("socket.connect", None, "/run/x"), ("unix", "/run/x")),
        (("socket.getaddrinfo", b"example.org", None, 0), ("network", "example.org")),
        (("subprocess.Popen", "ls", ["ls"], None, None), ("subprocess", "ls")),
        (("os.fork",), ("subprocess", "")),
        (("os.system", b"ls"), ("subprocess", "ls")),
    ],
    ids=lambda value: str(value[0]),
)
def test_refusals(heard: Heard, event: tuple[Any, ...], refused: tuple[str, str]) -> None:
    report = heard({}, event)
    assert denied(report)[0] == refused
    assert report["denied"][0]["where"].startswith("test_child_record.py:")
    assert report["used"] == []


def test_what_is_granted_is_used(heard: Heard) -> None:
    granted = {
        "read": ["/srv/a", "/srv/b"],
        "write": ["/srv/out"],
        "unix": ["/run/x"],
        "subprocess": True,
    }
    report = heard(
        granted,
        ("open", "/srv/a/below", "r", 0),
        ("open", "/srv/out/x", "w", 0),
        ("socket.connect", None, "/run/x"),
        ("os.fork",),
        ("os.fork",),
    )
    assert report["used"] == [
        ["read", "/srv/a"],
        ["subprocess", ""],
        ["unix", "/run/x"],
        ["write", "/srv/out"],
    ]
    assert report["denied"] == []


@pytest.mark.parametrize(
    "event",
    [
        ("open", 3, "r", 0),
        ("open", "/dev/null", "w", 0),
        ("open", os.__file__, "r", 0),
        ("open", f"{HERE}/data.csv", "r", 0),
        ("sqlite3.connect", ":memory:"),
        ("sqlite3.connect", 3),
        ("ctypes.dlopen", None),
        ("ctypes.dlopen", "libc.so.6"),
        ("import", "json", None, [], [], []),
        ("os.listdir", None),
        ("os.chdir", "/srv"),
        ("compile", b"", "x"),
    ],
    ids=str,
)
def test_what_is_no_matter(heard: Heard, event: tuple[Any, ...]) -> None:
    assert heard({}, event) == {"used": [], "denied": []}


def test_own_places(heard: Heard, tmp_path: Path) -> None:
    report = heard(
        {},
        ("open", str(tmp_path / "data" / "x"), "w", 0),
        ("open", str(tmp_path / "scratch" / "x"), "w", 0),
        ("open", f"{HERE}/main.py", "w", 0),
    )
    assert denied(report) == [("bundle", f"{HERE}/main.py")]


def test_native_code_of_its_own(heard: Heard, tmp_path: Path) -> None:
    path = str(tmp_path / "data" / "x.so")
    assert denied(heard({}, ("ctypes.dlopen", path))) == [("native_code", path)]
    report = heard({"native_code": True}, ("import", "x", f"{HERE}/x.so", [], [], []))
    assert report["used"] == [["native_code", ""]]


def test_hostile_arguments(heard: Heard) -> None:
    class Broken:
        def __fspath__(self) -> str:
            raise ValueError

    events = [("open", Broken(), "r", 0), ("open",), ("socket.connect", None, ()), ("os.rename", 1)]
    assert heard({}, *events) == {"used": [], "denied": []}


def test_it_is_bounded(heard: Heard) -> None:
    events = [("open", f"/srv/{number}" + "x" * 1_000, "r", 0) for number in range(1_000)]
    report = heard({}, *events)
    assert len(report["denied"]) == MAX_DENIED
    assert max(len(one["asked"]) for one in report["denied"]) <= 300

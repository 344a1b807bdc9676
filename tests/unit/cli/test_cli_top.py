"""`top` on terminals, and where there is none: what it clears, and how much it shows."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.cli import top

CLEARED = "\x1b[2J"
FACTS = {
    "pid": 1,
    "version": "0.1.0",
    "phase": "running",
    "uptime_seconds": 5.0,
    "watchdog": True,
    "plugin_directory": None,
    "watching": "no",
    "restarts": True,
    "clients": 1,
}


class Output(io.StringIO):
    """Standard output, which is a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def plugin(number: int) -> dict[str, Any]:
    names = ("cpu_seconds", "memory_peak_bytes", "calls", "failures", "p99_seconds")
    return {
        "plugin": f"p{number}",
        "state": "ready",
        "cause": None,
        "quarantine": None,
        "pid": number,
        "memory_limit_bytes": 1,
        "usage": dict.fromkeys(names, 0),
    }


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs `top`, and returns what it wrote."""
    told = {"service": FACTS, "plugins": [plugin(n) for n in range(50)], "problems": []}
    monkeypatch.setattr(top, "ask", lambda *_: told)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*words: str, term: str = "xterm", terminal: bool = True) -> str:
        monkeypatch.setenv("TERM", term)
        output = Output(terminal=terminal)
        monkeypatch.setattr(sys, "stdout", output)
        fixed = ["--count", "2", "--interval", "0.1", "--state-dir", str(tmp_path)]
        top.command.main([*fixed, *words], standalone_mode=False)
        return output.getvalue()

    return run


def rows(drawn: str) -> int:
    """Return how many plugins each of two looks showed."""
    return sum(line.startswith("p") and "ready" in line for line in drawn.splitlines()) // 2


def test_a_terminal_is_cleared_before_each_look(show: Any) -> None:
    assert show().count(CLEARED) == 2


@pytest.mark.parametrize("term", ["", "dumb", "unknown"])
def test_one_that_takes_no_commands_gets_none(show: Any, term: str) -> None:
    drawn = show(term=term)
    assert CLEARED not in drawn
    assert drawn.count("process 1: running") == 2


def test_a_file_gets_plain_text(show: Any) -> None:
    drawn = show(terminal=False)
    assert "\x1b" not in drawn
    assert rows(drawn) == 20
    assert "left out: 30 plugins" in drawn


def test_as_many_as_fit_the_terminal(show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "24")
    drawn = show()
    assert rows(drawn) == 15
    assert len(drawn.splitlines()) <= 2 * 24
    monkeypatch.setenv("LINES", "3")
    assert rows(show()) == 1


def test_as_many_as_are_asked_for(show: Any) -> None:
    assert rows(show("--rows", "3")) == 3
    drawn = show("--rows", "60", terminal=False)
    assert rows(drawn) == 50
    assert "left out" not in drawn

"""What the example prints fits where it goes, and says so where nothing can be printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.weather_flow import Report
from tests.support.command_line import REPOSITORY


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("", 120), ("x", 120)])
def test_the_width_of_a_pipe(
    columns: str,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    Report().line("event", "[red]word \x1b[2J" * 30)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert "[red]word ?[2J" in lines[0]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told(tmp_path: Path, unbuffered: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": unbuffered,
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, REPOSITORY / "plugins" / "weather_flow.py"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            check=False,
        )
    assert ran.returncode == 6
    assert ran.stderr == (
        "weather_flow: standard output cannot be written: No space left on device.\n"
    )

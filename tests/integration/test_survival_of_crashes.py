"""Plugins that crash and start again, in every way there is: nothing is left, nothing grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.crashes import check_that_crashes_leave_nothing
from tests.support.host import Workshop

pytestmark = [
    pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root"),
    pytest.mark.usefixtures("own_temporary"),
]

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(("start", "count"), [("nursery", 30), ("exec", 6)])
def test_crashes(workshop: Workshop, start: str, count: int) -> None:
    check_that_crashes_leave_nothing(workshop, count, start=start)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("start", ["nursery", "exec"])
def test_200_crashes(tmp_path: Path, start: str) -> None:
    """In a process of its own: what is logged here is kept, and would look like growth."""
    command = [sys.executable, "-m", "tests.support.crashes", str(tmp_path / "own"), "200", start]
    (tmp_path / "own").mkdir()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]

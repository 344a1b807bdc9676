"""Months in fast motion: each call has an answer or a typed error, and nothing is left at the end.

In a process of its own: what is logged here is kept, and would look like growth. The seed is in
what it prints; ``python -m tests.support.chaos DIRECTORY SECONDS SEED`` decides the same again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root")

REPOSITORY = Path(__file__).parents[2]

SECONDS = float(os.environ.get("SANDBOX_HOST_CHAOS_SECONDS", "600"))
"""Of the long form, all in all; half an hour is 1800."""

SEED = os.environ.get("SANDBOX_HOST_CHAOS_SEED", "9")
"""Of both forms. The same unless said, so that whom it refuses can try again; say others to look
for more.
"""

BESIDES_SECONDS = 240
"""For what is done before and after, at worst."""


def storm(root: Path, seconds: float, seed: str, face: str) -> dict[str, Any]:
    arguments = [str(root / "storm"), f"{seconds:g}", seed, face]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.chaos", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-20_000:]}"
    told: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(told))
    return told


def happened(told: dict[str, Any]) -> set[str]:
    """Return the kinds of outcome that there were."""
    return {code for kind in told["outcomes"].values() for code in kind}


def test_chaos(tmp_path: Path) -> None:
    told = storm(tmp_path, 30, SEED, "threads")
    assert happened(told) >= {"answer", "ended", "budget", "deadline", "operation", "reload"}


@pytest.mark.soak
@pytest.mark.timeout(SECONDS / 2 + BESIDES_SECONDS)
@pytest.mark.parametrize("face", ["threads", "asyncio"])
def test_chaos_for_long(tmp_path: Path, face: str) -> None:
    told = storm(tmp_path, SECONDS / 2, SEED, face)
    assert happened(told) >= {"answer", "ended", "budget", "deadline", "operation", "reload"}
    assert told["journal_files"] > 1

"""The rest of the tests start plugins by the nursery; here those parts run whose outcome could
depend on that, with an interpreter of its own for each plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PARTS = (
    "tests/contract",
    "tests/hostile",
    "tests/integration/test_budgets.py",
    "tests/integration/test_cancel.py",
    "tests/integration/test_memory.py",
    "tests/integration/test_reload.py",
    "tests/integration/test_restart.py",
    "tests/integration/test_streams.py",
)


@pytest.mark.soak
def test_contract_hostile_and_lifecycle_with_exec() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *PARTS],
        cwd=REPOSITORY,
        env={**os.environ, "SANDBOX_HOST_TEST_START": "exec"},
        capture_output=True,
        text=True,
        timeout=1_000,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:]

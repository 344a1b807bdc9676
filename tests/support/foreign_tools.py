"""Programs and packages that we did not write: run by name, or a reason to skip a test.

Where the environment demands that nothing is missing (see `tests.conftest`), a missing one fails.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

REQUIRED = "SANDBOX_HOST_REQUIRED_LAYERS"


def needs_tool(*names: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a program is not installed and need not be."""
    return _skip([name for name in names if shutil.which(name) is None])


def needs_package(*names: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a package is not installed and need not be."""
    return _skip([name for name in names if importlib.util.find_spec(name) is None])


def _skip(missing: list[str]) -> pytest.MarkDecorator:
    # Where all is required, the test runs and fails on what it lacks.
    excused = bool(missing) and not os.environ.get(REQUIRED)
    return pytest.mark.skipif(excused, reason=f"not installed: {', '.join(missing)}")


def run_tool(
    directory: Path, *command: object, stdin: bytes = b"", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run a program in `directory` and expect it to end with `code`."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=directory, input=stdin, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done

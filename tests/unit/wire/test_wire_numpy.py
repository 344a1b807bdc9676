"""Arrays where numpy is imported: in another process, because this one is to have none."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ENVIRONMENT = ROOT / ".plugin-env"
SCRIPT = ROOT / "tests" / "support" / "with_numpy.py"
NAMES = re.findall(r"^def check_(\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)


@functools.cache
def outcomes() -> dict[str, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.with_numpy"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ENVIRONMENT)))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_with_numpy(name: str) -> None:
    if not (ENVIRONMENT / "numpy").is_dir():
        pytest.fail("the plugin environment is not made: run `make env`")
    assert outcomes()[name] == "ok"

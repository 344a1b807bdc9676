"""The positive controls: every attack in a plain interpreter, where it has to succeed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.errors import ConfigError
from sandbox_host.selftest import collection
from sandbox_host.selftest.report import Control

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLLECTION: Final = Path(collection.__file__).parent

_CONTROL_SECONDS: Final = 120.0
_MAX_TOLD: Final = 500


def run_controls(
    names: Iterable[str], target: dict[str, Any], code: Path, keep: Sequence[int]
) -> dict[str, Control]:
    """Make attacks without the sandbox, each against a parent that may be harmed.

    Args:
        names: the attacks.
        target: what they attack.
        code: where a copy of the collection goes, which some of them change.
        keep: descriptors that the interpreter inherits.

    Raises:
        ConfigError: the interpreter did not get through them.
    """
    shutil.copytree(COLLECTION, code, ignore=shutil.ignore_patterns("__pycache__"))
    python = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own file
            [python, "-I", "-S", "-B", str(code / "runner.py"), str(code)],
            input=json.dumps([sorted(names), target]),
            pass_fds=keep,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CONTROL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from error
    if done.returncode != 0:
        raise _failed(done.stderr)
    return {name: Control(met, by) for name, (met, by) in json.loads(done.stdout).items()}


def _failed(told: str) -> ConfigError:
    text = f"The attacks cannot be tried without the sandbox: {told.strip()[-_MAX_TOLD:]}"
    return ConfigError(text, remedy="Run `sandbox-host doctor` without --attack, and report this.")

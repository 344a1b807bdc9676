"""Runs a module of the tests as root and as an ordinary user, whichever of them runs the tests."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import ordinary_user

ROOT, ORDINARY = "root", "ordinary-user"
USERS = (ROOT, ORDINARY)


class Users:
    """Runs modules; what it copied for the ordinary user is removed with the stack."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._copy: Path | None = None

    def run(self, user: str, module: str, *arguments: str, timeout: float = 55.0) -> str:
        """Return what the module printed; the test is skipped where there is no such user."""
        if user == ROOT and os.geteuid() != 0:
            pytest.skip("not root")
        if user == ORDINARY and os.geteuid() == 0:
            if reason := ordinary_user.why_not():
                pytest.skip(reason)
            if self._copy is None:
                self._copy = self._stack.enter_context(ordinary_user.readable_copy())
            return ordinary_user.run_module(module, self._copy, *arguments, timeout=timeout)
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ordinary_user.REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def outcomes(module: str) -> Iterator[Callable[[str], Any]]:
    """Yield a function of a user: the JSON that a module printed, run once for each."""
    with users() as runner:
        yield functools.cache(lambda user: json.loads(runner.run(user, module)))


@contextmanager
def users() -> Iterator[Users]:
    """Yield what runs modules as either user."""
    with ExitStack() as stack:
        yield Users(stack)

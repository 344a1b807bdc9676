"""Runs a module of the tests as an ordinary user, from tests that run as root.

The environment's interpreter may lie where only root can read it; the system's can be started by
everybody. It gets a copy of the packages under test and of what they import, in a directory that
everybody can read.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65_534
REPOSITORY = Path(__file__).parents[2]
_PACKAGES = ("sandbox_host", "plugin_sdk", "tests")
_DEPENDENCIES = (
    *("msgpack", "pydantic", "pydantic_core", "annotated_types", "typing_extensions"),
    *("typing_inspection", "cryptography", "cffi", "_cffi_backend", "psutil", "packaging"),
    *("click", "rich", "watchdog"),
)
_IMPORTED = "sandbox_host.selftest.audit, tests.support.host"
"""With all that they import: most of what is run as an ordinary user begins with it."""


def why_not() -> str:
    """Return why nothing can be run as an ordinary user here, or ""."""
    if os.geteuid() != 0:
        return "not root: all tests run as an ordinary user already"
    if system_python() is None:
        return f"no system interpreter of the version {sys.version_info[:2]}"
    missing = [name for name in _DEPENDENCIES if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def system_python() -> Path | None:
    """Return the system's interpreter of our version, for which the same wheels work."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for directory in ("/usr/bin", "/usr/local/bin"):
        python = Path(directory, version)
        if python.is_file() and str(python.resolve()).startswith("/usr/"):
            return python
    return None


@contextmanager
def readable_copy() -> Iterator[Path]:
    """Yield a directory with ``tree`` (the copy) and ``own`` (the ordinary user's).

    The copy is the same for all of a process, see `remove_copies`; the ordinary user's directory
    is there as long as the context.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-host-test-") as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "tree").symlink_to(_tree())
        own = root / "own"
        own.mkdir(mode=0o700)
        os.chown(own, NOBODY, NOBODY)
        yield root


def remove_copies() -> None:
    """Remove what was copied in this process."""
    if _tree.cache_info().currsize:
        shutil.rmtree(_tree())
        _tree.cache_clear()


@functools.cache
def _tree() -> Path:
    tree = Path(tempfile.mkdtemp(prefix="sandbox-host-test-"))
    rewritten = shutil.ignore_patterns("*-pytest-*.pyc")
    for package in _PACKAGES:
        shutil.copytree(REPOSITORY / package, tree / package, ignore=rewritten)
    for dependency in _DEPENDENCIES:
        spec = importlib.util.find_spec(dependency)
        assert spec is not None
        assert spec.origin is not None
        if spec.submodule_search_locations:
            shutil.copytree(Path(spec.submodule_search_locations[0]), tree / dependency)
        else:
            shutil.copy(spec.origin, tree)
    # Root leaves byte code there once, or each process of the ordinary user compiles it all.
    imported = _run(("-c", f"import {_IMPORTED}"), tree, {}, timeout=60.0)
    assert imported.returncode == 0, imported.stderr
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tree


def run_module(
    module: str, root: Path, *arguments: str, timeout: float, by: tuple[str, ...] = ()
) -> str:
    """Run ``module`` of the copy as nobody, and return what it printed.

    Args:
        by: a command, with its arguments, that runs the one that follows them.
    """
    own = str(root / "own")
    done = _run(
        ("-m", module, *arguments),
        (root / "tree").resolve(),
        {"PYTHONDONTWRITEBYTECODE": "1", "HOME": own},
        by=by,
        cwd=own,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(
    arguments: tuple[str, ...],
    tree: Path,
    variables: dict[str, str],
    by: tuple[str, ...] = (),
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    python = system_python()
    assert python is not None
    fixed = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    return subprocess.run(
        [*by, str(python), "-s", *arguments],
        env={**fixed, **variables},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )

"""The hook, run by the real pre-commit from a repository of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.bundles import signed_plugin
from tests.support.ci_services import (
    KEY,
    REPOSITORY,
    base_environment,
    make_store,
    make_tree,
    read_yaml,
)

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

_SHIPPED = (".pre-commit-hooks.yaml", "LICENSE", "README.md", "pyproject.toml")


def _git(directory: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    ran = subprocess.run(
        ["git", *identity, *words],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | quiet,
    )
    return ran.stdout.strip()


def _repository(directory: Path) -> str:
    """Make `directory` a repository with everything in it committed, and return the commit."""
    _git(directory, "init", "--quiet")
    _git(directory, "add", "--all")
    _git(directory, "commit", "--quiet", "--message", "all")
    return _git(directory, "rev-parse", "HEAD")


def _ours(directory: Path) -> str:
    """Make a repository of what this one ships, whether this one is a clone or an export."""
    directory.mkdir()
    for name in _SHIPPED:
        shutil.copy(REPOSITORY / name, directory)
    for package in ("sandbox_host", "plugin_sdk"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, directory / package, ignore=ignored)
    return _repository(directory)


def test_the_hook_is_one_that_judges_plugins_as_wholes() -> None:
    (hook,) = read_yaml(".pre-commit-hooks.yaml")
    assert hook["id"] == "sandbox-host-verify"
    assert hook["pass_filenames"] is False
    assert hook["always_run"] is True
    assert [*hook["entry"].split(), *hook["args"]] == ["sandbox-host", "verify", "plugins"]


def test_a_commit_passes_with_good_plugins_and_fails_with_a_tampered_one(tmp_path: Path) -> None:
    revision = _ours(tmp_path / "ours")
    theirs = tmp_path / "their work"
    shutil.rmtree(make_tree(theirs))
    signed_plugin(theirs / "plugins" / "good", KEY)
    (theirs / ".pre-commit-config.yaml").write_text(
        f"repos:\n- repo: {tmp_path / 'ours'}\n  rev: {revision}\n"
        "  hooks:\n  - id: sandbox-host-verify\n"
    )
    _repository(theirs)
    environment = base_environment(tmp_path / "home") | {
        # Stands for the index: pre-commit's environment finds the tests' packages here.
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PRE_COMMIT_HOME": str(tmp_path / "pre-commit"),
        "VIRTUALENV_NO_DOWNLOAD": "1",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    (tmp_path / "config").mkdir()
    store = make_store(tmp_path)
    store.parent.rename(tmp_path / "config" / "sandbox-host")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose"],
            cwd=theirs,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    ran = run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "plugins/good: verified" in ran.stdout
    (theirs / "plugins" / "good" / "main.py").write_text("x = 1\n")
    _git(theirs, "add", "--all")
    ran = run()
    assert ran.returncode == 1
    assert "plugins/good: NOT VERIFIED (tampered)" in ran.stdout
    assert "main.py" in ran.stdout

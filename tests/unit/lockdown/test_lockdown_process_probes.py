"""The probes of a plugin that may start processes succeed where nothing stops them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
TRY = """
import json, os, sys
# A first line of a script takes no path with a space; the interpreter of a plugin is the real one.
sys.executable = os.path.realpath(sys.executable)
sys.path.insert(0, sys.argv[1])
from plugin_sdk.lockdown.probes import try_all
print(json.dumps(try_all(sys.argv[2:], "/", 1)))
"""


def tried(directory: Path, *names: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(REPOSITORY), *names],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["fork", "start-interpreter", "execute-own-file", "resume-self"])
def test_allowed(tmp_path: Path, name: str) -> None:
    assert tried(tmp_path, name) == {name: "allowed"}
    assert list(tmp_path.iterdir()) == []


def test_library_that_is_executed(tmp_path: Path) -> None:
    """It is no program: it crashes, if its mode lets it be executed at all."""
    assert tried(tmp_path, "execute-library")["execute-library"] in {"EIO", "EACCES"}


def test_file_that_stands_in_the_way(tmp_path: Path) -> None:
    """What is told is what was met, whatever it is."""
    (tmp_path / "program").touch()
    met = tried(tmp_path, "execute-own-file")["execute-own-file"]
    assert met == errno.errorcode[errno.EEXIST]
    assert os.listdir(tmp_path) == ["program"]

"""The command line in a test: run in this process or in one of its own, with a home of its own."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox_host.cli import main

if TYPE_CHECKING:
    import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What a command left behind: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def checked(code: int, out: str, err: str) -> Ran:
    """Return what a command left, once it is sure that no mistake of a user's gave a traceback."""
    assert "Traceback" not in out + err, err
    return Ran(code, out, err)


class CommandLine:
    """Runs ``sandbox-host`` with its configuration and state below `home`.

    Args:
        home: a directory of the test's.
    """

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.config_dir = home / "config" / "sandbox-host"
        self.state_dir = home / "state" / "sandbox-host"
        self.variables = {
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
        }

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a process of its own."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {
            **kept,
            **self.variables,
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "80",
        }

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Start the command in a process of its own; `options` as for Popen."""
        words = [sys.executable, "-m", "sandbox_host", *map(str, arguments)]
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        chosen = {**piped, "env": self.environment, "cwd": self.home, "text": True, **options}
        # A shell has what it runs in the background ignore it, and that is passed on.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(words, **chosen)
        finally:
            signal.signal(signal.SIGINT, before)

    def __call__(self, *arguments: object, **options: Any) -> Ran:
        """Run the command in a process of its own, to its end."""
        with self.start(*arguments, **options) as process:
            out, err = process.communicate()
        return checked(process.returncode, out or "", err or "")


class LocalCommandLine(CommandLine):
    """Runs ``sandbox-host`` in the test's own process, which is faster and is no terminal."""

    def __init__(
        self,
        home: pathlib.Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        super().__init__(home)
        self._capsys = capsys
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.delenv("SANDBOX_HOST_DEBUG", raising=False)
        monkeypatch.chdir(home)

    def __call__(self, *arguments: object, **options: Any) -> Ran:
        """Run the command; there are no `options` here."""
        assert not options
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return checked(code, out, err)


def snapshot(directory: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of everything below a directory, to compare with later."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(directory.rglob("*"))
    }

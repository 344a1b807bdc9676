from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.errors import ConfigError
from sandbox_host.selftest import control
from sandbox_host.selftest.collection.registry import SUCCEEDED
from sandbox_host.selftest.report import Control


def test_attacks_in_a_plain_interpreter(tmp_path: Path) -> None:
    target = {"own": str(tmp_path), "host_pid": 1}
    names = ("fork", "terminate_host", "read_environment")
    met = control.run_controls(names, target, tmp_path / "code" / "attacks", ())
    assert met == {
        "fork": Control(SUCCEEDED),
        "terminate_host": Control(SUCCEEDED, 15),
        "read_environment": Control("KeyError"),
    }


def test_a_program_in_place_of_the_attacker_is_success(tmp_path: Path) -> None:
    met = control.run_controls(["execute"], {}, tmp_path / "code" / "attacks", ())
    assert met == {"execute": Control(SUCCEEDED)}


@pytest.mark.parametrize("how", ["status", "timeout", "none"])
def test_an_interpreter_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def run(words: list[str], **_: Any) -> Any:
        if how == "timeout":
            raise subprocess.TimeoutExpired(words, 1)
        if how == "none":
            raise FileNotFoundError(2, "no interpreter")
        return subprocess.CompletedProcess(words, 1, "", "it broke")

    monkeypatch.setattr(control.subprocess, "run", run)
    with pytest.raises(ConfigError, match="cannot be tried without the sandbox"):
        control.run_controls(["fork"], {}, tmp_path / "code" / "attacks", ())

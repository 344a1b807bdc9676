"""`sandbox-host doctor` on the machine that it runs on, in a process of its own.

What it tells of all attacks is in tests/hostile/test_attacks.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.bundles import make_key, trust_store
from tests.support.command_line import CommandLine, snapshot
from tests.support.traces import eventually

LAYERS = (
    *("pid-namespace", "network-namespace", "uts-namespace", "own-root"),
    *("rlimits", "landlock", "seccomp"),
)

# All attacks take a quarter of a minute, and a busy machine's several times that.
pytestmark = [pytest.mark.needs(*LAYERS), pytest.mark.timeout(300)]


class Doctor:
    """Runs it with a trust store, and with a directory for temporary files of its own."""

    def __init__(self, root: Path, temporary: Path) -> None:
        self.home = root / "home"
        self.temporary = temporary
        self.home.mkdir()
        self.cli = CommandLine(self.home)
        self.options: dict[str, Any] = {
            "env": {**self.cli.environment, "TMPDIR": str(self.temporary)}
        }
        self.store = trust_store(self.home, make_key())

    def arguments(self, *more: object) -> list[object]:
        return ["doctor", "--trust-store", self.store, *more]

    def left(self) -> list[str]:
        """Return what is left of temporary files."""
        return os.listdir(self.temporary)


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    # Short: what is attacked are sockets by path too, and a path of theirs has 107 bytes (unix(7)).
    with tempfile.TemporaryDirectory(prefix="doctor-") as temporary:
        yield Doctor(tmp_path, Path(temporary))


def test_this_machine(doctor: Doctor) -> None:
    before = snapshot(doctor.home)
    ran = doctor.cli(*doctor.arguments(), **doctor.options)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("Plugins can be confined here.\n")
    assert snapshot(doctor.home) == before
    assert doctor.left() == []


def test_a_layer_that_is_switched_off_is_told(doctor: Doctor) -> None:
    config = doctor.home / "host.toml"
    config.write_text('disable_layers = ["uts-namespace"]\n')
    ran = doctor.cli(*doctor.arguments("--config", config), **doctor.options)
    assert ran.code == 6
    assert "missing: uts-namespace" in ran.err
    config.write_text('disable_layers = ["uts-namespace"]\naccept_missing = ["uts-namespace"]\n')
    told = json.loads(
        doctor.cli(*doctor.arguments("--config", config, "--format", "json"), **doctor.options).out
    )
    (layer,) = [one for one in told["layers"] if one["layer"] == "uts-namespace"]
    assert layer["status"] == "disabled"
    assert told["accepted_missing"] == ["uts-namespace"]
    assert told["confined"]


@pytest.fixture
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell that starts tests in the background has them, and what they start, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def attacks_without_the_sandbox(pid: int) -> bool:
    """Tell whether a doctor has come so far, with a host and a plugin that run."""
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if any(word.endswith("/runner.py") for word in child.cmdline()):
                return True
    return False


@pytest.mark.usefixtures("_ctrl_c_is_heard")
def test_ctrl_c_leaves_nothing_behind(doctor: Doctor) -> None:
    with doctor.cli.start(*doctor.arguments("--attack"), **doctor.options) as process:
        assert eventually(lambda: attacks_without_the_sandbox(process.pid), 60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert doctor.left() == []

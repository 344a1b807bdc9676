"""What README.md shows works as it is printed: commands, the ten lines, the plugin, the flow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLUGIN_ENVIRONMENT = ROOT / ".plugin-env"

needs_numpy = pytest.mark.skipif(
    not (PLUGIN_ENVIRONMENT / "numpy").is_dir(),
    reason="the plugin environment is not there; `make env` makes it",
)


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has nothing of ours yet."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    return {
        **kept,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": str(ROOT),
    }


def run(arguments: list[str], where: Path, home: dict[str, str]) -> str:
    """Run a command and return what it printed; it must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=where,
        env=home,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_indented(start: str, where: Path, home: dict[str, str]) -> None:
    """Run the commands that README shows indented after the line that starts with ``start``."""
    text = README[README.index(start) :]
    for line in re.findall(r"^    \.venv/bin/sandbox-host (.*)$", text, re.MULTILINE):
        run(["-m", "sandbox_host", *line.split()], where, home)


@needs_numpy
def test_the_ten_lines(tmp_path: Path, home: dict[str, str]) -> None:
    (tmp_path / "plugins").symlink_to(ROOT / "plugins")
    (tmp_path / ".plugin-env").symlink_to(PLUGIN_ENVIRONMENT)
    run_indented("With a development key", tmp_path, home)
    (tmp_path / "application.py").write_text(blocks("python")[0])
    printed = run(["application.py"], tmp_path, home)
    assert printed.startswith("weather_model {'loss': ")
    assert "Receipt(plugin='weather_model'" in printed


def test_the_plugin(tmp_path: Path, home: dict[str, str]) -> None:
    greeter = tmp_path / "greeter"
    greeter.mkdir()
    (greeter / "plugin.json").write_text(blocks("json")[0])
    (greeter / "__init__.py").write_text(blocks("python")[1])
    run(["-m", "sandbox_host", "keygen", "--dev"], tmp_path, home)
    run(["-m", "sandbox_host", "check", "greeter"], tmp_path, home)
    run(["-m", "sandbox_host", "sign", "greeter"], tmp_path, home)
    arguments = ["-m", "sandbox_host", "call", "greeter", "greet", '"Ada"']
    assert run(arguments, tmp_path, home) == '"hello Ada"\n'


@needs_numpy
def test_make_run(home: dict[str, str]) -> None:
    """What `make run` runs: three plugins, one flow, a model that beats the majority class."""

    def files() -> set[Path]:
        return set((ROOT / "plugins").rglob("*"))

    before = files()
    for _ in range(2):  # with the key that the first time made
        printed = run(["plugins/weather_flow.py"], ROOT, {**home, "PYTHONDONTWRITEBYTECODE": "1"})
        accuracy = re.search(r"accuracy +([0-9.]+)%", printed)
        majority = re.search(r"majority class +([0-9.]+)%", printed)
        assert accuracy is not None
        assert majority is not None
        assert float(accuracy[1]) > float(majority[1]) + 10
        for name in ("weather_source", "weather_features", "weather_model"):
            assert name in printed
    assert files() == before

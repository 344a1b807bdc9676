"""`trace` proposes the smallest permissions and limits that a plugin's own tests needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.runtime.trace import TRACE_VARIABLE
from tests.support.bundles import write_plugin
from tests.support.command_line import REPOSITORY, LocalCommandLine, Ran, snapshot
from tests.support.example_plugins import NAMES, PLUGINS

pytestmark = pytest.mark.needs

WEATHER_TESTS = REPOSITORY / "tests" / "integration" / "test_weather_in_sandbox.py"
COPY = f"import os, shutil, sys; shutil.copy(sys.argv[1], os.environ[{TRACE_VARIABLE!r}])"


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


# -- the examples ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was written down of all three examples by one run of their tests."""
    record = tmp_path_factory.mktemp("weather") / "traces.jsonl"
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(WEATHER_TESTS))
    environment = {**os.environ, TRACE_VARIABLE: str(record), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if "skipped" in ran.stdout:
        pytest.skip("needs numpy, which `make env` installs")
    return record


def trace_again(cli: LocalCommandLine, directory: Path, record: Path, *options: object) -> Ran:
    """Trace with tests that need what was needed when this was recorded."""
    return cli("trace", directory, *options, "--", sys.executable, "-c", COPY, record)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_ask_for_what_they_need(
    name: str, weather: Path, cli: LocalCommandLine
) -> None:
    ran = trace_again(cli, PLUGINS / name, weather)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"{PLUGINS / name}/plugin.json asks for what is needed, and for no more.\n"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_that_asks_for_more_is_brought_back(
    name: str, weather: Path, cli: LocalCommandLine
) -> None:
    directory = cli.home / name
    shutil.copytree(PLUGINS / name, directory)
    shipped = json.loads((directory / "plugin.json").read_text())
    greedy = json.loads((directory / "plugin.json").read_text())
    greedy["permissions"] = {
        "read": ["/srv"],
        "env": ["TOKEN"],
        "network": ["example.org:443"],
        "threads": True,
        "native_code": True,
        "publish": ["*"],
    }
    greedy["limits"]["memory"], greedy["limits"]["threads"] = "8 GiB", 64
    (directory / "plugin.json").write_text(json.dumps(greedy, indent=2))
    ran = trace_again(cli, directory, weather, "--write")
    assert ran.code == 0
    written = json.loads((directory / "plugin.json").read_text())
    assert written["permissions"] == shipped["permissions"]
    assert written["limits"].keys() == shipped["limits"].keys()
    assert written["limits"]["memory"] in {"64 MiB", "128 MiB"}
    assert trace_again(cli, directory, weather).out == ""


# -- a plugin with tests of its own ----------------------------------------------------------------

SOURCE = """
import os, threading
from plugin_sdk import context, on, operation

@operation
def look(path):
    with open(path) as file:
        return file.read() + os.environ["WANTED_BY_PLUGIN"]

@operation
def tell():
    thread = threading.Thread(target=context().publish, args=("some_event", 1))
    thread.start()
    thread.join()

@operation
def try_more():
    try:
        open("/etc/hosts")
    except OSError:
        return "without"

@on("user_action")
def heard(event):
    pass
"""

TESTS = """
GRANTS = {GRANTS!r}

def test_look(sandbox):
    plugin = sandbox({DIRECTORY!r}, grants={{"sample": GRANTS}})
    assert plugin.call("look", {WANTED!r} + "/file") == "text" + "value"

def test_tell(sandbox):
    sandbox({DIRECTORY!r}, grants={{"sample": GRANTS}}).call("tell")
"""

MORE_TESTS = """
def test_more(sandbox):
    sandbox({DIRECTORY!r}, grants={{"sample": GRANTS}}).call("try_more")
"""


@pytest.fixture
def plugin(cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin that asks for more than its tests need."""
    wanted, unwanted = cli.home / "wanted", cli.home / "unwanted"
    for path in (wanted, unwanted):
        path.mkdir(mode=0o755)
    (wanted / "file").write_text("text")
    cli.home.chmod(0o755)
    monkeypatch.setenv("WANTED_BY_PLUGIN", "value")
    monkeypatch.setenv("PYTHONPATH", cli.environment["PYTHONPATH"])
    permissions: dict[str, Any] = {
        "read": [str(unwanted), str(wanted)],
        "env": ["WANTED_BY_PLUGIN", "UNWANTED_BY_PLUGIN"],
        "publish": ["some_*", "other_event"],
        "native_code": True,
        "threads": True,
    }
    directory = write_plugin(
        cli.home / "sample",
        {"main.py": SOURCE},
        permissions=permissions,
        events=["user_action", "model_updated"],
        limits={"memory": "512 MiB", "cpu_time": "10 s", "wall_time": "20 s", "threads": 8},
    )
    names = {"GRANTS": permissions, "DIRECTORY": str(directory), "WANTED": str(wanted)}
    (directory / "tests").mkdir()
    (directory / "tests" / "test_sample.py").write_text(TESTS.format(**names))
    return directory


def test_what_its_tests_need_is_proposed_and_written(cli: LocalCommandLine, plugin: Path) -> None:
    text = (plugin / "plugin.json").read_text()
    ran = cli("trace", plugin, "--write")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == f"--- {plugin / 'plugin.json'}"
    removed = [line[1:].strip(" ,") for line in lines if line.startswith("-") and line[1] != "-"]
    assert f'"{cli.home / "unwanted"}"' in "".join(removed)
    assert '"memory": "512 MiB"' in removed
    written = json.loads((plugin / "plugin.json").read_text())
    assert written["permissions"] == {
        "read": [str(cli.home / "wanted")],
        "env": ["WANTED_BY_PLUGIN"],
        "publish": ["some_event"],
        "threads": True,
    }
    assert written["events"] == ["user_action"]
    assert written["limits"]["memory"] == "64 MiB"
    # The rest is as it was.
    assert {k: v for k, v in written.items() if k not in {"permissions", "events", "limits"}} == {
        k: v for k, v in json.loads(text).items() if k not in {"permissions", "events", "limits"}
    }
    ran = cli("trace", plugin)
    assert (ran.code, ran.out) == (0, "")
    assert "no more" in ran.err


def test_what_was_refused_is_proposed_and_told(cli: LocalCommandLine, plugin: Path) -> None:
    path = plugin / "tests" / "test_sample.py"
    path.write_text(path.read_text() + MORE_TESTS.format(DIRECTORY=str(plugin)))
    before = snapshot(plugin)
    ran = cli("trace", plugin)
    assert ran.code == 0
    assert snapshot(plugin) == before
    assert '/etc/hosts"' in ran.out
    (told,) = [line for line in ran.err.splitlines() if line.startswith("note: ")]
    assert '"permissions": {"read": ["/etc/hosts"]} is added, for the plugin\'s word alone' in told
    assert "at main.py:" in told


def test_tests_that_fail_propose_nothing(cli: LocalCommandLine, plugin: Path) -> None:
    ran = cli("trace", plugin, "--write", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert (ran.code, ran.out) == (1, "")
    assert "the tests failed (exit code 3)" in ran.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((sys.executable, "-c", "pass"), "do not load sample with the fixture"),
        (("/nonexistent/pytest",), "No such file"),
    ],
    ids=["no fixture", "no program"],
)
def test_tests_that_are_none(
    cli: LocalCommandLine, plugin: Path, words: tuple[str, ...], why: str
) -> None:
    ran = cli("trace", plugin, "--", *words)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err


def test_what_was_written_by_something_else(cli: LocalCommandLine, plugin: Path) -> None:
    record = cli.home / "record"
    for line in ("{}", "[]", "x", '{"plugin": "sample"}'):
        record.write_text(line + "\n")
        ran = trace_again(cli, plugin, record)
        assert (ran.code, ran.out) == (2, "")
        assert "written by something else" in ran.err


# -- without tests ---------------------------------------------------------------------------------


def test_without_tests_its_start_is_looked_at(cli: LocalCommandLine) -> None:
    source = "import threading\nthread = threading.Thread(target=int)\nthread.start()\n"
    permissions = {"threads": True, "publish": ["a"]}
    limits = {"memory": "128 MiB", "cpu_time": "10 s", "wall_time": "20 s", "descriptors": 64}
    manifest = {"permissions": permissions, "limits": limits}
    directory = write_plugin(cli.home / "sample", {"main.py": source}, **manifest)
    before = json.loads((directory / "plugin.json").read_text())
    ran = cli("trace", directory, "--write")
    assert ran.code == 0, ran.err
    assert "there are no tests" in ran.err
    written = json.loads((directory / "plugin.json").read_text())
    assert written == {**before, "permissions": {"threads": True}}


def test_one_that_does_not_start(cli: LocalCommandLine) -> None:
    directory = write_plugin(cli.home / "sample", {"main.py": "import nothere"})
    ran = cli("trace", directory)
    assert (ran.code, ran.out) == (1, "")
    assert "No module named 'nothere'" in ran.err


def test_one_that_ends_before_it_can_tell(cli: LocalCommandLine) -> None:
    source = "import os\n\ndef cleanup():\n    os._exit(3)\n"
    ran = cli("trace", write_plugin(cli.home / "sample", {"main.py": source}))
    assert (ran.code, ran.out) == (1, "")
    assert "not all that it needed is known" in ran.err

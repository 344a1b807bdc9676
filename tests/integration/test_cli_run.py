"""`run` in a process of its own: it stays, it goes when told, and takes its plugins along."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.catalog.manifest import BEGIN, END
from tests.support.bundles import make_key, signed_plugin, trust_store, write_plugin
from tests.support.command_line import CommandLine, checked

pytestmark = pytest.mark.needs

CLEANS_UP = """
import os
from plugin_sdk import context

def cleanup():
    open(os.path.join(context().data_dir, "left"), "w").close()
    return True
"""
STUCK = "import time\n\ndef cleanup():\n    time.sleep(60)\n    return True\n"
ENDS_SOON = """
import os
from plugin_sdk import on

@on("plugin_loaded")
def leave(event):
    os._exit(4)
"""


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    trust_store(tmp_path, make_key())
    return CommandLine(tmp_path)


def plugin(cli: CommandLine, name: str, source: str = CLEANS_UP, **manifest: Any) -> Path:
    return signed_plugin(cli.home / name, make_key(), {"main.py": source}, **manifest)


def start(cli: CommandLine, *arguments: object) -> subprocess.Popen[str]:
    return cli.start("run", *arguments, "--trust-store", "trust/trust.toml")


def until_running(process: subprocess.Popen[str]) -> str:
    """Wait for the note that says so; return what was printed on standard error by then."""
    assert process.stderr is not None
    for line in process.stderr:
        if "running" in line:
            return line
    raise AssertionError("it ended before anything ran")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_stop(cli: CommandLine, number: signal.Signals) -> None:
    with start(cli, plugin(cli, "one"), plugin(cli, "two")) as process:
        assert until_running(process).startswith("2 plugins running.")
        process.send_signal(number)
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 0
    assert "unloading" in ran.err
    pids = [int(pid) for pid in re.findall(r"process (\d+), confined by", ran.out)]
    assert len(pids) == 2
    assert not any(map(alive, pids))
    for name in ("one", "two"):
        assert (cli.state_dir / "data" / name / "left").exists()
        assert re.search(rf"{name} 1\.0\.0 +ready", ran.out)


def test_who_asks_twice_does_not_wait(cli: CommandLine) -> None:
    with start(cli, plugin(cli, "stuck", STUCK)) as process:
        until_running(process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "unloading" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert checked(process.returncode, out, err).code == 130
    # It did not stay to tidy up; the next host does.
    assert list((cli.state_dir / "run").iterdir())
    with start(cli, plugin(cli, "one"), "--once") as process:
        process.communicate()
    assert process.returncode == 0
    assert not list((cli.state_dir / "run").iterdir())


def test_one_that_is_refused_stops_the_start_of_all(cli: CommandLine) -> None:
    unsigned = write_plugin(cli.home / "unsigned", {"main.py": CLEANS_UP})
    with start(cli, plugin(cli, "one"), unsigned) as process:
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 3
    assert "unsigned" in ran.err
    # All are verified before one of them starts.
    assert "confined by" not in ran.out


def test_one_that_fails_ends_those_that_had_started(cli: CommandLine) -> None:
    one = plugin(cli, "one")
    broken = plugin(cli, "broken", "raise OSError('no luck')\n", dependencies=["one"])
    with start(cli, broken, one) as process:
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 1
    assert "no luck" in ran.err
    (pid,) = re.findall(r"process (\d+), confined by", ran.out)
    assert not alive(int(pid))
    assert (cli.state_dir / "data" / "one" / "left").exists()


def test_one_that_lacks_another_stops_the_start_too(cli: CommandLine) -> None:
    with start(cli, plugin(cli, "user", dependencies=["nowhere"])) as process:
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 1
    assert "user cannot start: user -> nowhere: user needs nowhere, and there is no" in ran.err


def test_it_ends_when_no_plugin_is_left(cli: CommandLine) -> None:
    with start(cli, plugin(cli, "sample", ENDS_SOON, events=["plugin_loaded"])) as process:
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 1
    assert "exit status 4" in ran.err
    assert "no plugin is running any more" in ran.err


def test_one_that_does_not_start_is_told_once(cli: CommandLine) -> None:
    broken = plugin(cli, "broken", "print('hello')\nraise OSError('no luck')\n")
    with start(cli, broken) as process:
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 1
    assert ran.err.count("did not start") == 1
    assert ran.err.endswith(f"log: {cli.state_dir}/logs/broken.log\n")


# -- the plugin manifest in a README -----------------------------------------------------------


def told(readme: Path) -> dict[str, Any]:
    """Return the manifest in a README."""
    block = readme.read_text().partition(BEGIN)[2].partition(END)[0]
    found: dict[str, Any] = json.loads(block.strip().removeprefix("```json").removesuffix("```"))
    return found


def until_told(readme: Path, *names: str) -> None:
    """Wait until the README says that these plugins are active, and no others."""
    give_up = time.monotonic() + 60
    while sorted(told(readme)["active_plugins"]) != sorted(names):
        assert time.monotonic() < give_up, readme.read_text()
        time.sleep(0.01)


def pid_of(process: subprocess.Popen[str], name: str) -> int:
    """Wait for a plugin's receipt, and return the plugin's process."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.match(rf"{name}: process (\d+), confined by", line):
            return int(found[1])
    raise AssertionError(f"{name} was never shown")


def test_a_readme_says_what_is_loaded(cli: CommandLine) -> None:
    readme = cli.home / "README.md"
    readme.write_text("# Mine\n")
    one, two = plugin(cli, "one", capabilities=["ai_model"]), plugin(cli, "two")
    with start(cli, one, two, "--manifest", "README.md", "--no-restart") as process:
        pid = pid_of(process, "two")
        until_told(readme, "one", "two")
        assert told(readme)["active_plugins"]["one"] == {
            "version": "1.0.0",
            "description": "A plugin for tests.",
            "capabilities": ["ai_model"],
            "status": "ready",
        }
        os.kill(pid, signal.SIGKILL)
        until_told(readme, "one")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert checked(process.returncode, out, err).code == 0
    assert told(readme)["active_plugins"] == {}
    assert readme.read_text().startswith("# Mine\n")


def test_a_link_for_a_readme_is_refused_before_anything_is_loaded(cli: CommandLine) -> None:
    (cli.home / "other").write_text("kept")
    (cli.home / "README.md").symlink_to("other")
    ran = cli("run", plugin(cli, "one"), "--manifest", "README.md")
    assert ran.code == 6
    assert "README.md, because it is a symbolic link" in ran.err
    assert ran.out == ""
    assert (cli.home / "other").read_text() == "kept"


def test_a_readme_that_fails_later_ends_no_plugin(cli: CommandLine) -> None:
    readme = cli.home / "README.md"
    one, two = plugin(cli, "one"), plugin(cli, "two")
    with start(cli, one, two, "--manifest", "README.md") as process:
        pid = pid_of(process, "two")
        until_running(process)
        until_told(readme, "one", "two")
        readme.unlink()
        readme.mkdir()
        os.kill(pid, signal.SIGKILL)
        assert process.stderr is not None
        assert any("cannot be kept in README.md" in line for line in process.stderr)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 6
    assert (cli.state_dir / "data" / "one" / "left").exists()


def test_a_refused_plugin_decides_the_exit_code(cli: CommandLine) -> None:
    unsigned = write_plugin(cli.home / "unsigned", {"main.py": CLEANS_UP})
    with start(cli, unsigned, "--manifest", "README.md") as process:
        out, err = process.communicate()
    assert checked(process.returncode, out, err).code == 3
    assert told(cli.home / "README.md")["active_plugins"] == {}


# -- the plugin directory ----------------------------------------------------------------------


def configure(cli: CommandLine, more: str = "") -> Path:
    """Write a configuration with a plugin directory, and return that directory."""
    directory = cli.home / "plugins"
    directory.mkdir()
    cli.config_dir.mkdir(parents=True)
    (cli.config_dir / "config.toml").write_text(f'plugin_directory = "{directory}"\n{more}')
    return directory


def test_without_a_directory_all_that_are_found_run(cli: CommandLine) -> None:
    configure(cli, "[plugin_config.off]\nenabled = false\n[plugin_config.on]\nenabled = true\n")
    for name, config in (("one", {}), ("off", {}), ("on", {"enabled": False})):
        plugin(cli, f"plugins/{name}", config=config)
    write_plugin(cli.home / "plugins" / "sleeping", config={"enabled": False})
    (cli.home / "plugins" / "README.md").write_text("# Plugins\n")
    with start(cli, "--once", "--manifest", "plugins/README.md") as process:
        out, err = process.communicate()
    ran = checked(process.returncode, out, err)
    assert ran.code == 0, ran.err
    assert re.findall(r"(\w+): process", ran.out) == ["on", "one"]
    assert "note: sleeping is disabled" in ran.err
    manifest = told(cli.home / "plugins" / "README.md")
    assert manifest["disabled_plugins"] == {
        "off": {"version": "1.0.0"},
        "sleeping": {"version": "1.0.0"},
    }


def test_one_that_fails_does_not_stop_the_rest(cli: CommandLine) -> None:
    directory = configure(cli)
    plugin(cli, "plugins/zebra")
    plugin(cli, "plugins/broken", "raise OSError('no luck')\n")
    write_plugin(directory / "unsigned")
    (directory / "odd").mkdir()
    (directory / "odd" / "plugin.json").write_text("{}")
    with start(cli) as process:
        pid_of(process, "zebra")
        heard = []
        assert process.stderr is not None
        for line in process.stderr:
            heard.append(line)
            if " running." in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert checked(process.returncode, out, err).code == 1
    text = "".join(heard)
    for name, problem in (("broken", "no luck"), ("odd", "plugin.json"), ("unsigned", "unsigned")):
        assert re.search(rf"{directory / name}: .*{problem}", text), text
    assert heard[-1].startswith("1 plugin running.")
    assert (cli.state_dir / "data" / "zebra" / "left").exists()


def test_nothing_to_run(cli: CommandLine) -> None:
    ran = cli("run")
    assert ran.code == 2
    assert "Missing argument 'PLUGIN...'" in ran.err
    configure(cli)
    ran = cli("run", "--trust-store", "trust/trust.toml")
    assert ran.code == 1
    assert "there is no plugin to run" in ran.err


def test_what_concerns_all_is_told_once(cli: CommandLine) -> None:
    configure(cli)
    for name in ("one", "two"):
        plugin(cli, f"plugins/{name}")
    ran = cli("run", "--trust-store", "missing.toml")
    assert ran.code == 6
    assert ran.err.count("missing.toml") == 1

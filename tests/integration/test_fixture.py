"""The pytest fixture `sandbox`, in a pytest of its own, as a plugin's author uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_host.testing
from tests.support.bundles import write_plugin
from tests.support.command_line import CommandLine, snapshot

pytestmark = pytest.mark.needs

SOURCE = """
import os
from plugin_sdk import context, operation

@operation
def pid():
    return os.getpid()

@operation
def keep(text):
    path = os.path.join(context().data_dir, "kept")
    with open(path, "a") as file:
        file.write(text)
    return open(path).read()

@operation
def config():
    return context().config

@operation
def read(path):
    return open(path).read()
"""

TESTS = """
import os
import sys

import pytest


def test_it_runs_in_a_process_of_its_own(sandbox, record):
    plugin = sandbox("sample")
    assert plugin.receipt.pid != os.getpid()
    assert "sample" not in sys.modules
    assert "seccomp" in plugin.receipt.active
    record(plugin)


def test_it_is_confined(sandbox):
    from sandbox_host.errors import OperationError

    with pytest.raises(OperationError, match="No such file"):
        sandbox("sample").call("read", __file__)


def test_two_do_not_share_their_data(sandbox, record):
    one, other = sandbox("sample"), sandbox("sample")
    assert one.call("keep", "a") == "a"
    assert other.call("keep", "b") == "b"
    assert one.call("keep", "c") == "ac"
    record(one, other)


def test_configuration(sandbox):
    plugin = sandbox("sample", plugin_config={"sample": {"rows": 7}})
    assert plugin.call("config") == {"rows": 7}


@pytest.mark.parametrize("name", ["trust_store", "state_dir"])
def test_what_the_fixture_makes_itself(sandbox, name):
    from sandbox_host.errors import UsageError

    with pytest.raises(UsageError, match=name):
        sandbox("sample", **{name: "elsewhere"})


def test_a_refusal_is_raised(sandbox):
    from sandbox_host.errors import BundleError

    with pytest.raises(BundleError, match="nowhere"):
        sandbox("nowhere")


def test_one_that_fails_the_test_is_unloaded_too(sandbox, record):
    record(sandbox("sample"))
    assert not "on purpose"
"""

CONFTEST = """
import pytest


@pytest.fixture
def record():
    def record(*plugins):
        with open("pids", "a") as file:
            file.writelines(f"{plugin.receipt.pid}\\n" for plugin in plugins)
    return record
"""


def test_the_fixture(tmp_path: Path) -> None:
    cli = CommandLine(tmp_path)
    plugin = write_plugin(tmp_path / "sample", {"main.py": SOURCE})
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_sample.py").write_text(TESTS)
    (tmp_path / "temporary").mkdir()
    before = snapshot(plugin)
    # Named here, so that it also works where the entry point is not installed.
    ran = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q", "-p", "sandbox_host.testing", "."), "-Werror"],
        cwd=tmp_path,
        env={
            **cli.environment,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TMPDIR": str(tmp_path / "temporary"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 7 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "on purpose" in ran.stdout
    assert snapshot(plugin) == before
    assert not list((tmp_path / "temporary").iterdir())
    assert not cli.config_dir.exists()
    assert not cli.state_dir.exists()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_its_module_imports_nothing_of_the_host() -> None:
    name = sandbox_host.testing.__name__
    code = (
        "import sys, pytest, sandbox_host\n"
        "before = set(sys.modules)\n"
        f"import {name}\n"
        f"assert set(sys.modules) - before == {{{name!r}}}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

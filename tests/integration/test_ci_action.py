"""The composite action, its steps run as GitHub's runner runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.ci_services import (
    REPOSITORY,
    ActionRunner,
    installed_command,
    make_store,
    make_tree,
    offline_python,
    read_yaml,
)
from tests.support.sarif import checked_log
from tests.support.workflow_commands import workflow_commands

ACTION = ".ci/action"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "check out"
    make_tree(made)
    return made


@pytest.fixture
def runner(tmp_path: Path, workspace: Path) -> ActionRunner:
    return ActionRunner(ACTION, tmp_path / "home", workspace)


@pytest.fixture
def command(tmp_path: Path) -> str:
    return str(installed_command(tmp_path / "bin"))


def test_a_mixed_tree_fails_with_annotations_and_reports(
    runner: ActionRunner, tmp_path: Path, workspace: Path, command: str
) -> None:
    store = make_store(tmp_path)
    _, verify = runner.run(command=command, trust_store=str(store), junit="junit.xml")
    assert verify.code == 1
    found = workflow_commands(verify.out)
    assert [one.properties["file"] for one in found] == [
        "plugins/foreign/plugin.json",
        "plugins/tampered/main.py",
        "plugins/unsigned/plugin.json",
    ]
    assert verify.outputs == {"exit-code": "1", "sarif": "sandbox-host.sarif"}
    log = checked_log((workspace / verify.outputs["sarif"]).read_text())
    assert len(log["runs"][0]["results"]) == 3
    assert ET.parse(workspace / "junit.xml").getroot().get("failures") == "3"


def test_a_good_tree_passes_with_an_empty_run(
    runner: ActionRunner, tmp_path: Path, workspace: Path, command: str
) -> None:
    text = make_store(tmp_path).read_text()
    _, verify = runner.run(command=command, trust_store_text=text, paths="plugins/good\n\n")
    assert (verify.code, verify.out) == (0, "1 plugin: 1 verified\n"), verify.err
    assert checked_log((workspace / "sandbox-host.sarif").read_text())["runs"][0]["results"] == []


def test_a_trust_store_that_everybody_may_write_is_copied_with_its_signature(
    runner: ActionRunner, tmp_path: Path, command: str
) -> None:
    store = make_store(tmp_path)
    store.chmod(0o666)
    _, verify = runner.run(command=command, trust_store=str(store), paths="plugins/good", sarif="")
    assert (verify.code, verify.outputs) == (0, {"exit-code": "0", "sarif": ""})
    store.with_name("trust.toml.root.pub").write_text("not a key")
    _, verify = runner.run(command=command, trust_store=str(store), paths="plugins/good")
    assert verify.code == 6
    assert "root.pub" in verify.err


def test_without_a_trust_store_there_is_no_verdict(runner: ActionRunner, command: str) -> None:
    for inputs in ({}, {"trust_store": "nowhere.toml"}):
        _, verify = runner.run(command=command, **inputs)
        assert verify.code == 6


SUBSTITUTED = "a'; touch forged; '\"; touch forged; \"$(touch forged)`touch forged`"
HOSTILE = [
    *((name, SUBSTITUTED) for name in ("paths", "sarif", "junit", "trust_store")),
    ("trust_store_text", SUBSTITUTED),
    ("command", SUBSTITUTED),
    ("paths", "--trust-store=elsewhere"),
    ("sarif", "a\nexit-code=0"),
    ("command", "a\ncommand=true"),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=repr)
def test_an_input_is_never_a_script_an_option_or_an_output(
    runner: ActionRunner, tmp_path: Path, command: str, name: str, value: str
) -> None:
    inputs = {"command": command, "trust_store": str(make_store(tmp_path)), name: value}
    last = runner.run(**inputs)[-1]
    assert last.code != 0
    assert last.outputs.get("exit-code") != "0"
    assert not list(tmp_path.rglob("forged"))


def test_no_script_holds_an_expression_and_no_python_trusts_the_checkout() -> None:
    action = read_yaml(f"{ACTION}/action.yml")
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]
        for line in step["run"].splitlines():
            if "PYTHON" in line or "bin/python" in line:
                assert " -I " in line
    used = json.dumps(action["runs"])
    assert all(f"inputs.{name} " in used for name in action["inputs"])


def test_it_installs_itself_and_nothing_of_the_checkout_is_run(
    tmp_path: Path, workspace: Path
) -> None:
    python = offline_python(tmp_path / "python")
    runner = ActionRunner(ACTION, tmp_path / "home", workspace)
    for name in ("venv", "pip", "json", "sandbox_host", "sitecustomize"):
        (workspace / f"{name}.py").write_text("open('forged', 'w')\nraise SystemExit(0)\n")
    install, verify = runner.run(python=str(python), trust_store=str(make_store(tmp_path)))
    assert install.code == 0, install.err
    assert Path(install.outputs["command"]).is_relative_to(tmp_path / "home")
    assert verify.code == 1, verify.err
    assert len(workflow_commands(verify.out)) == 3
    assert not (workspace / "forged").exists()
    assert (REPOSITORY / ACTION / "../.." / "pyproject.toml").exists()

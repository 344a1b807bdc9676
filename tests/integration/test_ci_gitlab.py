"""The job for GitLab, run as its runner runs it, with bash and with a plain sh."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support.ci_services import (
    REPOSITORY,
    base_environment,
    installed_command,
    make_store,
    make_tree,
    offline_python,
    read_yaml,
    run_gitlab_job,
)
from tests.support.sarif import checked_log

TEMPLATE = ".ci/gitlab/sandbox-host.gitlab-ci.yml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "group" / "a project"
    make_tree(made)
    return made


def _job() -> Any:
    (job,) = read_yaml(TEMPLATE).values()
    return job


def _installed(tmp_path: Path) -> Any:
    """Return the job with its installation replaced, which one test runs as it is."""
    environment = tmp_path / "environment"
    installed_command(environment / "bin")
    return {**_job(), "before_script": [f"environment='{environment}'"]}


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_mixed_tree_fails_and_leaves_what_the_artifacts_name(
    tmp_path: Path, project: Path, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    store = make_store(tmp_path)
    store.chmod(0o666)  # as the runner leaves it
    job = _installed(tmp_path)
    environment = base_environment(tmp_path / "home")
    environment["SANDBOX_HOST_TRUST_STORE"] = str(store)
    ran = run_gitlab_job(job, project, environment, shell)
    assert ran.code == 1, ran.err
    assert "4 plugins: 1 verified, 1 tampered, 1 unsigned, 1 untrusted" in ran.out
    assert job["artifacts"]["when"] == "always"
    junit = project / job["artifacts"]["reports"]["junit"]
    assert ET.parse(junit).getroot().get("failures") == "3"
    (sarif,) = job["artifacts"]["paths"]
    assert len(checked_log((project / sarif).read_text())["runs"][0]["results"]) == 3


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_paths_are_lines_and_never_scripts(tmp_path: Path, project: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    job = _installed(tmp_path)
    environment = base_environment(tmp_path / "home")
    environment["SANDBOX_HOST_TRUST_STORE"] = str(make_store(tmp_path))
    (project / "plugins" / "good").rename(project / "a good one")
    environment["SANDBOX_HOST_PATHS"] = "a good one\n\n./a good one\n"
    ran = run_gitlab_job(job, project, environment, shell)
    assert ran.code == 0, ran.err
    assert "2 plugins: 2 verified" in ran.out
    for hostile in ("$(touch forged)", "`touch forged`", "'; touch forged; '", "--config=x"):
        environment["SANDBOX_HOST_PATHS"] = hostile
        assert run_gitlab_job(job, project, environment, shell).code == 2
    assert not list(tmp_path.rglob("forged"))


def test_without_a_trust_store_there_is_no_verdict(tmp_path: Path, project: Path) -> None:
    ran = run_gitlab_job(_installed(tmp_path), project, base_environment(tmp_path / "home"), "sh")
    assert ran.code == 6
    assert "SANDBOX_HOST_TRUST_STORE" in ran.err


def test_it_installs_what_is_required_and_nothing_of_the_checkout_is_run(
    tmp_path: Path, project: Path
) -> None:
    for name in ("venv", "pip", "json", "sandbox_host", "sitecustomize"):
        (project / f"{name}.py").write_text("open('forged', 'w')\nraise SystemExit(0)\n")
    # With a pip of its own, tests/integration/test_ci_action.py does the same.
    python = offline_python(tmp_path / "python", own_pip=False)
    environment = base_environment(tmp_path / "home", python.parent)
    environment |= {
        "TMPDIR": str(tmp_path),
        "SANDBOX_HOST_REQUIREMENT": str(REPOSITORY),
        "SANDBOX_HOST_TRUST_STORE": str(make_store(tmp_path)),
        "SANDBOX_HOST_PATHS": "plugins/good",
    }
    ran = run_gitlab_job(_job(), project, environment, "sh")
    assert ran.code == 0, ran.err
    assert "plugins/good: verified" in ran.out
    assert not (project / "forged").exists()
    assert os.listdir(project / "plugins" / "good") != []

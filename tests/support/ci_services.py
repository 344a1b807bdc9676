"""CI services for tests: what they do with our templates, by their documentation, on this machine.

Nothing is fetched. Where a template installs sandbox-host with pip, `offline_python` stands before
the Python in PATH, and lets its virtual environments see what the tests' own environment has.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.bundles import make_key, signed_plugin, trust_store, write_plugin

REPOSITORY = Path(__file__).parents[2]
KEY, STRANGER = make_key(1), make_key(9)
_EXPRESSION = re.compile(r"\$\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}")
_SITE = sysconfig.get_path("purelib")


def read_yaml(path: str) -> Any:
    """Return a template of the repository's, parsed."""
    return yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))


def make_tree(workspace: Path) -> Path:
    """Write ``plugins`` with one good, one tampered, one unsigned and one foreign plugin."""
    plugins = workspace / "plugins"
    signed_plugin(plugins / "good", KEY)
    tampered = signed_plugin(plugins / "tampered", KEY, {"main.py": "x = 1\n"})
    (tampered / "main.py").write_text("x = 2\n")
    write_plugin(plugins / "unsigned")
    signed_plugin(plugins / "foreign", STRANGER)
    return plugins


def make_store(directory: Path) -> Path:
    """Return a trust store that has the key of the good and the tampered plugin."""
    return trust_store(directory, KEY, ("good", "tampered"), label="weather team")


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def installed_command(directory: Path) -> Path:
    """Return a ``sandbox-host`` of this tree's."""
    words = shlex.join([f"PYTHONPATH={REPOSITORY}", sys.executable, "-P", "-m", "sandbox_host"])
    return _script(
        directory / "sandbox-host",
        f'#!/bin/sh\nexec env {words} "$@"\n',
    )


def offline_python(directory: Path, *, own_pip: bool = True) -> Path:
    """Return a ``python3`` whose virtual environments hold the tests' packages.

    Args:
        directory: where it goes.
        own_pip: whether its virtual environments have a pip of their own as well, which takes
            seconds to install; or else that of the tests.
    """
    more = "" if own_pip else "--without-pip"
    return _script(
        directory / "python3",
        f"""#!/bin/sh
case " $* " in *" -m venv "*) ;; *) exec {shlex.quote(sys.executable)} "$@" ;; esac
{shlex.quote(sys.executable)} "$@" {more} || exit
for last; do :; done
for site in "$last"/lib/python*/site-packages; do
    printf '%s\\n' {shlex.quote(_SITE)} >"$site/tests.pth"
done
""",
    )


def base_environment(home: Path, *first: Path) -> dict[str, str]:
    """Return a runner's environment: nothing of ours, pip without an index, `first` in PATH."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.pathsep.join([*map(str, first), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "CI": "true",
        # Also what builds the package is found in the tests' environment.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@dataclass
class Step:
    """What a step of a job left behind."""

    code: int
    out: str
    err: str
    outputs: dict[str, str] = field(default_factory=dict)


class ActionRunner:
    """Runs a composite action as GitHub's runner does.

    Inputs are substituted in ``env`` only by the action's own design; a script that holds an
    expression would be substituted as well, which is the injection that the tests look for.
    """

    def __init__(self, action: str, home: Path, workspace: Path, *first: Path) -> None:
        self.path = REPOSITORY / action
        self.action = read_yaml(f"{action}/action.yml")
        self.workspace = workspace
        self.temporary = home / "temp"
        self.temporary.mkdir(parents=True)
        self.environment = base_environment(home, *first) | {
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "RUNNER_TEMP": str(self.temporary),
        }

    def run(self, **inputs: str) -> list[Step]:
        """Run the steps up to the first that fails; names have ``_`` where inputs have ``-``."""
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        declared = self.action["inputs"]
        assert given.keys() <= declared.keys()
        context = {"github.action_path": str(self.path)}
        context |= {f"inputs.{name}": str(one["default"]) for name, one in declared.items()}
        context |= {f"inputs.{name}": value for name, value in given.items()}
        done: list[Step] = []
        for step in self.action["runs"]["steps"]:
            done.append(self._step(step, context))
            context |= {
                f"steps.{step['id']}.outputs.{name}": value
                for name, value in done[-1].outputs.items()
            }
            if done[-1].code:
                break
        return done

    def _step(self, step: dict[str, Any], context: dict[str, str]) -> Step:
        assert step["shell"] == "bash"
        outputs = self.temporary / f"outputs-{step['id']}"
        outputs.write_text("")
        script = self.temporary / f"{step['id']}.sh"
        script.write_text(_substituted(step["run"], context))
        variables = {key: _substituted(value, context) for key, value in step["env"].items()}
        # "Exit codes and error action preference" of the workflow syntax, for `shell: bash`.
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.workspace,
            env=self.environment | variables | {"GITHUB_OUTPUT": str(outputs)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        told = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
        return Step(ran.returncode, ran.stdout, ran.stderr, told)


def _substituted(text: str, context: dict[str, str]) -> str:
    return _EXPRESSION.sub(lambda match: context[match[1]], text)


def run_gitlab_job(
    job: dict[str, Any], project: Path, environment: dict[str, str], shell: str
) -> Step:
    """Run a job as GitLab's runner does: ``before_script`` and ``script`` in one shell.

    Args:
        job: as the template has it.
        project: the checkout.
        environment: of the runner, with the project's CI/CD variables, which go before the job's.
        shell: "bash", or "sh" as in images without it.
    """
    lines = [*job.get("before_script", []), *job["script"]]
    strict = "set -eo pipefail" if shell == "bash" else "set -e"
    ran = subprocess.run(
        [shell, "-c", "\n".join([strict, *lines])],
        cwd=project,
        env={**job["variables"], **environment, "GITLAB_CI": "true"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        umask=0,  # as the runner's helper image has it
        check=False,
    )
    return Step(ran.returncode, ran.stdout, ran.stderr)

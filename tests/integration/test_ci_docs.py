"""What docs/ci.md shows is what there is: exit codes, formats, inputs, names and paths."""

from __future__ import annotations

import re
from typing import Any

import yaml

from sandbox_host.cli.exits import Exit
from sandbox_host.cli.reports import FORMATS
from sandbox_host.cli.reports.sarif_rules import RULES
from tests.support.ci_services import REPOSITORY, read_yaml

TEXT = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")


def _rows(mark: str) -> list[list[str]]:
    table = TEXT.split(f"<!-- {mark} -->\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def _yaml(after: str) -> Any:
    section = TEXT.split(f"\n## {after}\n", 1)[1]
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1])


def test_exit_codes_and_verdicts() -> None:
    rows = _rows("verify exits")
    assert [int(code) for code, _, _ in rows] == [code for code in Exit if code <= Exit.INTERNAL]
    verdicts = {name for _, names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert verdicts == {"verified", *(rule.id for rule in RULES)}


def test_formats() -> None:
    assert [name.strip("`") for name, _, _ in _rows("verify formats")] == list(FORMATS)


def test_the_action_s_inputs_and_outputs() -> None:
    action = read_yaml(".ci/action/action.yml")
    _, ours, upload = _yaml("GitHub")["jobs"]["plugins"]["steps"]
    assert ours["uses"] == "OWNER/sandbox-host/.ci/action@COMMIT"
    assert ours["with"].keys() <= action["inputs"].keys()
    outputs = re.findall(r"steps\.verify\.outputs\.([\w-]+)", str(upload))
    assert set(outputs) <= action["outputs"].keys()
    section = TEXT.split("\n## GitHub\n", 1)[1].split("\n## ", 1)[0]
    for name in (*action["inputs"], *action["outputs"]):
        assert f"`{name}`" in section or f"{name}:" in section


def test_the_hook_and_the_template() -> None:
    (hook,) = read_yaml(".pre-commit-hooks.yaml")
    (repository,) = _yaml("pre-commit")["repos"]
    assert repository["hooks"][0]["id"] == hook["id"]
    (include,) = _yaml("GitLab")["include"]
    (job,) = read_yaml(include["file"]).values()
    for variable in (*job["variables"], "SANDBOX_HOST_TRUST_STORE"):
        assert f"`{variable}`" in TEXT

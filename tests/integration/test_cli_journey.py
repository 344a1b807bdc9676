"""What an author and an operator do, from nothing to a result."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, LocalCommandLine, snapshot

pytestmark = pytest.mark.needs

CALLS = {
    "functions": [(("count", '"one two two"'), {"one": 1, "two": 2})],
    "model": [
        (("train", "[1, 2, 3]"), {"rows": 3, "mean": 2.0}),
        (("health_check",), {"status": "healthy", "message": "ready"}),
    ],
    "data-source": [
        (("write", '[{"a": 1}, {"a": 2}]'), 2),
        # The data directory outlives the process.
        (("read", "--kw", "limit=1"), [{"a": 1}]),
        (("connect",), {"rows": 2}),
    ],
    "pipeline": [(("process", "[[1, -2], []]"), [[1, -2]]), (("stages",), ["drop_empty"])],
}


@pytest.fixture
def local(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("kind", CALLS)
def test_from_nothing_to_a_result(tmp_path: Path, local: LocalCommandLine, kind: str) -> None:
    # Once with a process for each command; after that it is only slower.
    cli = CommandLine(tmp_path) if kind == "functions" else local
    plugin = tmp_path / "a place with spaces" / "first_try"
    assert cli("new", "first_try", "--kind", kind, "--directory", plugin).code == 0
    made = snapshot(plugin)

    checked = cli("check", plugin)
    assert (checked.code, checked.err) == (0, "")
    assert "no complaints" in checked.out
    assert snapshot(plugin) == made
    # A check leaves nothing of the user's behind, either.
    assert not cli.config_dir.exists()
    assert not cli.state_dir.exists()

    assert cli("keygen", "--dev").code == 0
    assert cli("verify", plugin).code == 3
    assert cli("call", plugin, "health_check").code == 3
    assert cli("sign", plugin).code == 0
    assert cli("verify", plugin).code == 0
    signed = snapshot(plugin)
    assert signed.keys() - made.keys() == {"plugin.dsse.json"}

    for arguments, expected in CALLS[kind]:
        ran = cli("call", plugin, *arguments)
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out) == expected

    shown = cli("run", plugin, "--once")
    assert (shown.code, shown.err) == (0, "")
    assert "first_try 0.1.0" in shown.out
    assert "seccomp" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert snapshot(plugin) == signed
    assert stat.S_IMODE(cli.state_dir.stat().st_mode) == 0o700
    assert not list((cli.state_dir / "run").iterdir())


def test_doctor_knows_this_machine(tmp_path: Path) -> None:
    cli = CommandLine(tmp_path)
    assert cli("keygen", "--dev").code == 0
    before = snapshot(tmp_path)
    ran = cli("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert "Plugins can be confined here." in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert snapshot(tmp_path) == before

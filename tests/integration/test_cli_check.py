"""`check` runs plugins that nobody signed: in the real sandbox, and without a trace of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from sandbox_host.errors import ConfinementError
from sandbox_host.runtime import core
from tests.support.bundles import plugin_files, write_files
from tests.support.command_line import LocalCommandLine, Ran, snapshot

pytestmark = pytest.mark.needs

METADATA = 'def get_metadata():\n    return {"name": "sample"}\n'
READY = f"def init_plugin():\n    return True\n{METADATA}"


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return LocalCommandLine(tmp_path, capsys, monkeypatch)


def check(cli: LocalCommandLine, source: str, *arguments: object, **manifest: object) -> Ran:
    """Check a plugin of this source, and be sure that the check left nothing behind."""
    files = plugin_files({"__init__.py": source, "README.md": "x"}, **manifest)
    directory = write_files(cli.home / "sample", files)
    before = snapshot(cli.home)
    ran = cli("check", directory, *arguments)
    assert snapshot(cli.home) == before
    return ran


def test_what_a_plugin_offers_is_shown(cli: LocalCommandLine) -> None:
    source = (
        READY
        + "from plugin_sdk import Model, on\n"
        + "class Mine(Model):\n    def predict(self, rows):\n        return rows\n"
        + "model = Mine()\n"
        + "@on('model_updated')\ndef heard(event):\n    pass\n"
        + "def health_check():\n    return {'status': 'warning', 'message': 'a bit tired'}\n"
        + "def cleanup():\n    print('bye \\x1b[2J')\n    return True\n"
    )
    ran = check(cli, source, events=["model_updated", "user_action"])
    assert (ran.code, ran.err) == (0, "")
    for shown in (
        "kind        Model",
        "predict",
        "handles     model_updated",
        "degraded",
        "a bit tired",
        "landlock",
        "cleanup     done",
        "printed     bye \\x1b[2J",
        '"user_action", but nothing handles it',
        "1 warning",
    ):
        assert shown in ran.out


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nothere\n", "No module named 'nothere'"),
        ("def broken(:\n", "SyntaxError"),
        (METADATA, "init_plugin() is missing"),
        (f"def init_plugin():\n    return False\n{METADATA}", "refuses to start"),
        (f"def init_plugin():\n    raise KeyError('the key')\n{METADATA}", "the key"),
        (READY.replace("sample", "other"), "differ in 'name'"),
        ("import os\nos._exit(3)\n", "exit status 3"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        (READY + "print('\\x1b[2J'); raise ValueError('\\x1b]0;x\\x07')\n", "ValueError"),
    ],
)
def test_a_plugin_that_does_not_start_is_told_why(
    cli: LocalCommandLine, source: str, why: str
) -> None:
    ran = check(cli, source)
    assert ran.code == 1
    assert why in ran.err
    assert ran.err.splitlines()[-1].startswith("sandbox-host: ")
    assert "\x1b" not in ran.err + ran.out
    # The private copy is gone, so its path would help nobody.
    assert "sandbox-host-trial" not in ran.err


def test_the_place_of_an_error_is_shown(cli: LocalCommandLine) -> None:
    source = f"def helper():\n    return 1 / 0\ndef init_plugin():\n    return helper()\n{METADATA}"
    ran = check(cli, source)
    assert ran.code == 1
    assert '  |   File "__init__.py", line 2, in helper' in ran.err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def cleanup():\n    return False\n", "cleanup() returned False"),
        ("def cleanup():\n    raise OSError('stuck')\n", "stuck"),
        ("import os\ndef cleanup():\n    os._exit(5)\n", "exit status 5"),
        ("def health_check():\n    return {'status': 'error', 'message': 'ill'}\n", "ill"),
        ("def health_check():\n    raise OSError('very ill')\n", "very ill"),
    ],
)
def test_what_goes_wrong_after_the_start_is_a_warning(
    cli: LocalCommandLine, source: str, told: str
) -> None:
    ran = check(cli, READY + source)
    assert (ran.code, ran.err) == (0, "")
    (warning,) = [line for line in ran.out.splitlines() if line.startswith("  warning")]
    assert told in warning


def test_the_sandbox_is_the_real_one(cli: LocalCommandLine) -> None:
    ran = check(cli, f"print(open({__file__!r}).read())\n{READY}")
    assert ran.code == 1
    assert "FileNotFoundError" in ran.err
    assert f'"permissions": {{"read": ["{__file__}"]}}' in ran.err


def test_what_a_plugin_is_denied_and_goes_on_without_is_told(cli: LocalCommandLine) -> None:
    source = (
        "import os\n"
        "try:\n    open('/etc/hosts')\nexcept OSError:\n    pass\n"
        "os.environ.get('WANTED')\n"
        "os.system('ls')\n" + READY
    )
    ran = check(cli, source)
    assert (ran.code, ran.err) == (0, "")
    told = [line for line in ran.out.splitlines() if line.startswith("  warning     denied")]
    assert [line.partition(" at ")[0].removeprefix("  warning     ") for line in told] == [
        'denied, by its own word: reading "/etc/hosts"',
        'denied, by its own word: seeing the environment variable "WANTED"',
        'denied, by its own word: starting a process ("ls")',
    ]
    assert "__init__.py:3 in <module>" in told[0]
    assert '"permissions": {"read": ["/etc/hosts"]}' in told[0]
    assert "3 warnings" in ran.out


def test_grants_and_the_plugin_environment_come_from_the_command_line(
    cli: LocalCommandLine,
) -> None:
    environment = cli.home / "environment"
    environment.mkdir()
    (environment / "helper_of_tests.py").write_text("VALUE = 1\n")
    config = cli.home / "host.toml"
    wanted = cli.home / "wanted.txt"
    wanted.write_text("hello")
    source = f"import helper_of_tests\nassert open({str(wanted)!r}).read() == 'hello'\n{READY}"
    permissions = {"read": [str(wanted)]}
    config.write_text("")
    ran = check(cli, source, "--config", config, permissions=permissions)
    assert ran.code == 1
    assert "is not granted" in ran.err
    assert '[grants."sample"]' in ran.err
    config.write_text(f'[grants.sample]\nread = ["{wanted}"]\n')
    ran = check(
        cli,
        source,
        "--config",
        config,
        "--plugin-environment",
        environment,
        permissions=permissions,
    )
    assert (ran.code, ran.err) == (0, "")


def test_a_machine_that_cannot_confine_is_exit_6(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise ConfinementError("not on Plan 9.", layer="backend", remedy="Use Linux.")

    monkeypatch.setattr(core, "select_backend", none)
    ran = check(cli, READY)
    assert ran.code == 6
    assert "not on Plan 9. Use Linux." in ran.err

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

import sandbox_host
from sandbox_host.cli import app
from sandbox_host.cli.app import COMMANDS
from sandbox_host.cli.app import cli as group
from tests.support.command_line import REPOSITORY, CommandLine, LocalCommandLine


def commands() -> list[tuple[str, click.Command]]:
    """Return every command and subcommand by its full name."""
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", below) for sub, below in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda v: v if v is str else None)
def test_every_help_text_has_an_example(
    cli: LocalCommandLine, name: str, command: click.Command
) -> None:
    ran = cli(*name.split(), "--help")
    assert ran.code == 0
    assert f"Example:\n    sandbox-host {name.split(maxsplit=1)[0]}" in ran.out
    assert command.short_help == command.get_short_help_str(200)
    assert not ran.err


def test_the_help_says_of_each_command_what_the_command_says(cli: LocalCommandLine) -> None:
    ran = cli("--help")
    by_name = dict(commands())
    for name, summary in COMMANDS.items():
        assert by_name[name].short_help == summary
        assert summary in ran.out
    for line in ran.out.splitlines():
        assert len(line) <= 80


def test_version(cli: LocalCommandLine) -> None:
    ran = cli("--version")
    assert (ran.code, ran.out) == (0, f"sandbox-host {sandbox_host.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "Missing command. See `sandbox-host --help`."),
        (("trust",), "Missing command. See `sandbox-host trust --help`."),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("verfy",), "No such command 'verfy'; did you mean 'verify'?"),
        (("trust", "lst"), "No such command 'lst'; did you mean 'list'?"),
        (("verify",), "Missing argument 'PATH...'"),
        (("verify", "no-such-directory"), "does not exist"),
        (("doctor", "--format", "xml"), "'xml' is not one of"),
        (("sign", ".", "--nope"), "No such option"),
        (("trust", "add", "key"), "Missing option '--label'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    cli: LocalCommandLine, arguments: tuple[str, ...], why: str
) -> None:
    ran = cli(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("sandbox-host: ")
    assert why in ran.err
    assert "--help`." in ran.err
    assert ran.err.count("\n") == 1


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("a bug \x1b[31m of ours")


def test_an_unexpected_exception_is_exit_7_without_a_traceback(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.cli, "invoke", broken)
    ran = cli("doctor")
    assert (ran.code, ran.out) == (7, "")
    assert "internal error: RuntimeError: a bug \\x1b[31m of ours." in ran.err
    assert ran.err.count("\n") == 1


def test_its_traceback_is_there_for_who_asks(
    cli: LocalCommandLine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(app.cli, "invoke", broken)
    monkeypatch.setenv("SANDBOX_HOST_DEBUG", "1")
    assert app.run(["doctor"]) == 7
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_ctrl_c(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(app.cli, "invoke", interrupted)
    ran = cli("doctor")
    assert (ran.code, ran.err) == (130, "sandbox-host: interrupted.\n")


@pytest.mark.parametrize("arguments", [("--help",), ("doctor",), ("doctor", "--format", "json")])
def test_a_reader_that_left_is_no_error(cli: LocalCommandLine, arguments: tuple[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ran = CommandLine.__call__(cli, *arguments, stdout=write)
    finally:
        os.close(write)
    assert (ran.code, ran.err) == (141, "")


def test_what_the_terminal_cannot_show_is_escaped(cli: LocalCommandLine) -> None:
    environment = {**cli.environment, "PYTHONIOENCODING": "latin-1"}
    ran = CommandLine.__call__(cli, "verify", "погода", env=environment)
    assert ran.code == 2
    assert r"\u043f\u043e\u0433\u043e\u0434\u0430" in ran.err


def test_the_help_imports_no_command_and_no_tables() -> None:
    names = {f"sandbox_host.cli.{name}" for name in COMMANDS}
    code = (
        "import sys, sandbox_host\n"
        "from sandbox_host.cli import main\n"
        "code = main(['--help'])\n"
        f"heavy = [n for n in sys.modules if n.split('.')[0] == 'rich' or n in {names}]\n"
        "assert code == 0 and not heavy, heavy\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--help",), ("doctor",), ("doctor", "--format", "json")])
def test_a_full_disk_is_told(cli: LocalCommandLine, arguments: tuple[str], unbuffered: str) -> None:
    environment = {**cli.environment, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        ran = CommandLine.__call__(cli, *arguments, stdout=full, env=environment)
        both = CommandLine.__call__(cli, *arguments, stdout=full, stderr=full, env=environment)
    assert (ran.code, both.code) == (6, 6)
    assert "standard output cannot be written: No space left on device." in ran.err
    assert ran.err.count("\n") == 1


def test_a_closed_output_is_told(cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert app.run(["doctor"]) == 6


def test_any_other_fault_of_the_system_is_still_ours(
    cli: LocalCommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_file(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(app.cli, "invoke", broken_file)
    ran = cli("doctor")
    assert (ran.code, ran.out) == (7, "")

"""Commands for a running service, where there is none or the words are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import LocalCommandLine


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("top", "--count", "1"),
        ("unload", "one"),
        ("reload", "one"),
        ("reload",),
        ("release", "one"),
        ("logs", "one"),
        ("events",),
        ("drain",),
        ("call", "--running", "one", "x"),
    ],
    ids=" ".join,
)
def test_without_a_service(cli: LocalCommandLine, words: tuple[str, ...]) -> None:
    ran = cli(*words)
    assert (ran.code, ran.out) == (6, "")
    assert "No service runs with the state directory" in ran.err
    assert not cli.state_dir.exists()  # asking makes nothing


def test_load_without_a_service(cli: LocalCommandLine, signed: Path) -> None:
    assert cli("load", signed).code == 6
    assert cli("load", "nowhere").code == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--limit", "memory=1"), "name it with --instance"),
        (("--instance-config", "{}"), "name it with --instance"),
        (("--instance", "a", "--limit", "memory"), "is not NAME=VALUE"),
        (("--instance", "a", "--limit", "=1"), "is not NAME=VALUE"),
        (("--instance", "a", "--instance-config", "["), "is not a JSON object"),
        (("--instance", "a", "--instance-config", "[1]"), "is not a JSON object"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_instance_that_is_none(
    cli: LocalCommandLine, signed: Path, options: tuple[str, ...], told: str
) -> None:
    ran = cli("load", signed, *options)
    assert (ran.code, told in ran.err) == (2, True), ran


def test_a_call_of_one_that_runs_loads_nothing(cli: LocalCommandLine) -> None:
    ran = cli("call", "--running", "one", "x", "--allow-downgrade", "one", "1.0.0", "why")
    assert (ran.code, "loads nothing" in ran.err) == (2, True)
    ran = cli("call", "one", "x")
    assert (ran.code, "does not exist" in ran.err) == (2, True)

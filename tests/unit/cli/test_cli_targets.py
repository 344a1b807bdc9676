from __future__ import annotations

from pathlib import Path

import click
import pytest

from sandbox_host.cli.targets import Target, check_targets, reads_targets
from sandbox_host.errors import UsageError

_OPTION = click.Option(["--format"])


def read(*values: str) -> tuple[Target, ...]:
    context = click.Context(click.Command("x"))
    return reads_targets("text", "json")(context, _OPTION, values)


def test_a_kind_goes_to_standard_output_or_to_its_file() -> None:
    assert read("text", "json=a=b.json", "json=-") == (
        Target("text", None),
        Target("json", Path("a=b.json")),
        Target("json", None),
    )
    assert read() == ()


@pytest.mark.parametrize("value", ["", "xml", "=x", "json=", "text\x1b[2J", "json=a\0b"], ids=ascii)
def test_anything_else_is_a_mistake_of_the_command_line(value: str) -> None:
    with pytest.raises(click.BadParameter):
        read(value)


def test_each_has_a_place_of_its_own() -> None:
    fine = (Target("text", None), Target("json", Path("a")), Target("json", Path("b")))
    assert check_targets(fine, "--format") == fine
    with pytest.raises(UsageError, match="standard output"):
        check_targets([Target("text", None), Target("json", None)], "--format")
    with pytest.raises(UsageError, match="--format json"):
        check_targets([Target("text", Path("a")), Target("json", Path("./x/../a"))], "--format")

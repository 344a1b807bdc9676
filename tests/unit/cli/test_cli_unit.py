"""`unit` prints a systemd unit for this very program."""

from __future__ import annotations

import pytest

from tests.support.command_line import LocalCommandLine


def test_a_unit(cli: LocalCommandLine) -> None:
    ran = cli("unit", "--user", "plugins", "--config", "my config.toml")
    assert (ran.code, ran.err) == (0, "")
    (line,) = [one for one in ran.out.splitlines() if one.startswith("ExecStart=")]
    assert line.startswith(("ExecStart=/", 'ExecStart="/'))  # quoted, where the path has a space
    assert line.endswith(f' run --stay --config "{cli.home}/my config.toml"')
    assert "\nUser=plugins\n" in ran.out


@pytest.mark.parametrize("name", ["a b", "x\nExecStart=/bin/evil", "", "-"])
def test_what_is_no_account(cli: LocalCommandLine, name: str) -> None:
    ran = cli("unit", "--user", name)
    assert (ran.code, ran.out) == (2, "")


def test_a_path_that_would_be_another_setting(cli: LocalCommandLine) -> None:
    ran = cli("unit", "--config", "a\nUser=root")
    assert (ran.code, ran.out) == (2, "")

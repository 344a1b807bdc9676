from __future__ import annotations

import dataclasses
import shlex

import pytest

from sandbox_host.cli.exits import Exit
from sandbox_host.cli.reports.model import next_command
from tests.support.verdicts import FOREIGN, GOOD, TAMPERED, UNSIGNED, mixed, report


def test_the_gravest_verdict_is_the_run_s() -> None:
    assert mixed().exit_code is Exit.REFUSED
    assert report(GOOD, FOREIGN, UNSIGNED).exit_code is Exit.UNTRUSTED
    assert report(GOOD).exit_code is Exit.OK
    assert mixed().refused == (TAMPERED, UNSIGNED, FOREIGN)


def test_the_summary_counts_each_kind() -> None:
    assert mixed().summary == "4 plugins: 1 verified, 1 tampered, 1 unsigned, 1 untrusted"
    assert report(UNSIGNED).summary == "1 plugin: 0 verified, 1 unsigned"


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("/srv/checkout", "plugins/a", "plugins/a"),
        ("/srv/checkout", "./plugins//a/", "plugins/a"),
        ("/srv/checkout", "/srv/checkout/plugins/a", "plugins/a"),
        ("/srv/checkout", "/srv/checkout-2/a", "/srv/checkout-2/a"),
        ("/srv/checkout", "../a", "/srv/a"),
        ("/srv/checkout", "plugins/../../other", "/srv/other"),
        ("/srv/checkout", ".", "."),
        ("/srv/checkout", "//elsewhere/a", "/elsewhere/a"),
        ("/", "plugins/a", "plugins/a"),
    ],
    ids=repr,
)
def test_paths_below_the_base_are_relative_to_it(base: str, path: str, expected: str) -> None:
    assert report(base=base).relative(path) == expected


def test_a_verdict_points_at_the_differing_file_or_at_what_makes_it_a_plugin() -> None:
    assert TAMPERED.pointed_at == "plugins/tampered/main.py"
    assert UNSIGNED.pointed_at == "plugins/unsigned/plugin.json"
    assert dataclasses.replace(UNSIGNED, anchor="").pointed_at == "plugins/unsigned"
    assert dataclasses.replace(TAMPERED, archive=True).pointed_at == "plugins/tampered"


@pytest.mark.parametrize(
    "path", ["plugins/a", "-x", "it's; touch forged", "a b", "$(touch forged)", "\n"], ids=repr
)
@pytest.mark.parametrize("code", ["tampered", "unsigned", "bundle", "another"])
def test_the_next_command_has_the_path_as_one_word_and_never_as_an_option(
    code: str, path: str
) -> None:
    words = shlex.split(next_command(code, path))
    assert words[0] == "sandbox-host"
    assert words[-1].removeprefix("./") == path
    assert not words[-1].startswith("-")

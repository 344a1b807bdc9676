from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.rules import check_contents
from sandbox_host.cli.templates import KINDS
from tests.support.command_line import LocalCommandLine, snapshot


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_a_well_formed_plugin(cli: LocalCommandLine, kind: str) -> None:
    ran = cli("new", "WordCounter", "--kind", kind, "--author", 'A "quoted" name')
    assert (ran.code, ran.err) == (0, "")
    contents = read_directory(cli.home / "word_counter")
    assert set(contents.files) == {"plugin.json", "__init__.py", "main.py", "README.md"}
    manifest = check_contents(contents.files)
    assert (manifest.name, manifest.identity) == ("WordCounter", "word_counter")
    assert manifest.author == 'A "quoted" name'
    for name, data in contents.files.items():
        if name.endswith(".py"):
            # Our own text, so it may be compiled here.
            compile(data, name, "exec")
        assert b"$" not in data


def test_it_goes_where_it_is_told(cli: LocalCommandLine) -> None:
    empty = cli.home / "some" / "place"
    empty.mkdir(parents=True)
    assert cli("new", "sample", "--directory", empty).code == 0
    assert json.loads((empty / "plugin.json").read_text())["name"] == "sample"


@pytest.mark.parametrize(
    "name",
    ["", "1st", "a-b", "../up", "a/b", "class", "json", "numpy", "plugin_sdk", "ä", "x" * 65],
)
def test_a_name_that_no_plugin_can_have_is_a_mistake(cli: LocalCommandLine, name: str) -> None:
    before = snapshot(cli.home)
    ran = cli("new", name)
    assert (ran.code, ran.out) == (2, "")
    assert "No plugin can be called" in ran.err
    assert snapshot(cli.home) == before


def test_nothing_is_overwritten(cli: LocalCommandLine, plugin: Path) -> None:
    before = snapshot(plugin)
    ran = cli("new", "sample")
    assert ran.code == 2
    assert "is not empty" in ran.err
    assert snapshot(plugin) == before


def test_a_file_in_the_way(cli: LocalCommandLine) -> None:
    (cli.home / "taken").write_text("")
    ran = cli("new", "taken")
    assert ran.code == 2
    assert "cannot be written" in ran.err

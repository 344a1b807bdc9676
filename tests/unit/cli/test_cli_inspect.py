from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bundles import NOW, make_key, signed_plugin, write_plugin
from tests.support.command_line import LocalCommandLine, snapshot


def document(cli: LocalCommandLine, directory: Path) -> dict[str, object]:
    ran = cli("inspect", directory, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    value: dict[str, object] = json.loads(ran.out)
    return value


def test_it_says_that_it_is_no_verification(cli: LocalCommandLine, signed: Path) -> None:
    before = snapshot(cli.home)
    text = cli("inspect", signed)
    assert text.code == 0
    assert "Inspecting is not verifying" in text.out
    assert "sandbox-host verify" in text.out
    assert document(cli, signed)["verified"] is False
    assert snapshot(cli.home) == before


def test_what_is_signed_by_whom_and_what_it_asks_for(cli: LocalCommandLine) -> None:
    directory = signed_plugin(
        cli.home / "sample",
        make_key(),
        {"data/table.csv": "a,b\n"},
        permissions={"publish": ["data_processed"], "read": ["/srv/data"], "native_code": True},
        limits={"memory": "64 MiB"},
        config={"rows": 3},
        config_schema={"type": "object", "properties": {"rows": {"type": "integer"}}},
        events=["model_updated"],
    )
    text = cli("inspect", directory).out
    for shown in (
        make_key().key_id,
        "publish data_processed",
        "read /srv/data",
        "bring native code",
        "memory 64 MiB",
        '"rows": 3',
        '"properties"',
        "model_updated",
        "data/table.csv",
        "2026-01-31T12:00:00Z",
    ):
        assert shown in text
    told = document(cli, directory)
    assert told["plugin"]["limits"] == {"memory_bytes": 64 * 2**20}
    assert told["plugin"]["permissions"]["publish"] == ["data_processed"]
    assert told["envelope"]["key"] == make_key().key_id
    assert told["envelope"]["created"] == NOW.isoformat().replace("+00:00", "Z")
    assert told["envelope"]["differences"] == []
    assert [one["path"] for one in told["files"]] == [
        "__init__.py",
        "data/table.csv",
        "plugin.json",
    ]


def test_differences_to_what_the_envelope_lists_are_shown(
    cli: LocalCommandLine, signed: Path
) -> None:
    (signed / "__init__.py").write_text("x = 1\n")
    (signed / "extra.py").write_text("")
    differences = document(cli, signed)["envelope"]["differences"]
    assert len(differences) == 2
    text = cli("inspect", signed).out
    assert "was changed" in text
    assert "was added" in text


def test_an_unsigned_plugin_and_a_malformed_envelope(cli: LocalCommandLine, plugin: Path) -> None:
    assert document(cli, plugin)["envelope"] == {"signed": False}
    assert "unsigned" in cli("inspect", plugin).out
    (plugin / "plugin.dsse.json").write_text('{"payload": "\\u001b[2J"}')
    assert "malformed" in document(cli, plugin)["envelope"]
    text = cli("inspect", plugin)
    assert text.code == 0
    assert "\x1b" not in text.out


@pytest.mark.parametrize("content", ["{", '{"name": "x", "name": "y"}', "[]"])
def test_a_manifest_that_cannot_be_read_is_one_paragraph(
    cli: LocalCommandLine, plugin: Path, content: str
) -> None:
    (plugin / "plugin.json").write_text(content)
    ran = cli("inspect", plugin)
    assert (ran.code, ran.out) == (1, "")
    assert "plugin.json" in ran.err
    assert ran.err.count("\n") == 1


def test_hostile_words_are_escaped(cli: LocalCommandLine) -> None:
    directory = write_plugin(
        cli.home / "sample", author="[red]me[/red]", description="it's\u00a0me"
    )
    ran = cli("inspect", directory)
    assert ran.code == 0
    assert "[red]me[/red]" in ran.out

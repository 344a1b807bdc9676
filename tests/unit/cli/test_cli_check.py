from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.cli import check
from tests.support.bundles import write_plugin
from tests.support.command_line import LocalCommandLine, snapshot


@pytest.fixture(autouse=True)
def _nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("--static ran something")

    monkeypatch.setattr(check, "ThrowawayHost", fails)


def test_a_good_plugin(cli: LocalCommandLine) -> None:
    directory = write_plugin(cli.home / "sample", {"README.md": "# sample\n"})
    before = snapshot(cli.home)
    ran = cli("check", directory, "--static")
    assert (ran.code, ran.err) == (0, "")
    assert "no complaints" in ran.out
    assert snapshot(cli.home) == before


def test_what_the_author_should_know(cli: LocalCommandLine) -> None:
    directory = write_plugin(
        cli.home / "sample",
        {"__init__.py": ""},
        permissions={"read": ["/srv/data"]},
        capabilities={"file_system_access": True},
        limits={"memory": "4 GiB"},
        config={"enabled": False},
    )
    ran = cli("check", directory, "--static")
    assert ran.code == 0
    for hint in (
        "there is no main.py and __init__.py is empty",
        "there is no README.md",
        "config.enabled is false",
        'permissions.read[0]: reading "/srv/data" is not granted',
        "limits.memory: asks for",
        "5 warnings",
    ):
        assert hint in ran.out


def test_source_is_neither_parsed_nor_compiled(cli: LocalCommandLine) -> None:
    nested = "(" * 100_000
    directory = write_plugin(cli.home / "sample", {"main.py": nested, "README.md": "x"})
    assert cli("check", directory, "--static").code == 0


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("plugin.json", "{}", "plugin.json"),
        ("__pycache__/a.pyc", "", "byte-code cache"),
        ("native.so", "", "shared object"),
    ],
)
def test_what_could_not_be_signed_is_refused(
    cli: LocalCommandLine, plugin: Path, path: str, content: str, why: str
) -> None:
    (plugin / path).parent.mkdir(exist_ok=True)
    (plugin / path).write_text(content)
    ran = cli("check", plugin, "--static")
    assert (ran.code, ran.out) == (1, "")
    assert why in ran.err


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (
            {"permissions": {"publish": ["plugin_loaded"]}},
            'only the host publishes "plugin_loaded"',
        ),
        ({"plugin_api": ">= 99"}, 'plugin_api: asks for ">= 99"'),
        ({"dependencies": ["core_framework >= 99"]}, "dependencies[0]: asks for"),
    ],
)
def test_what_no_host_of_this_version_loads_is_exit_1(
    cli: LocalCommandLine, manifest: dict[str, object], why: str
) -> None:
    directory = write_plugin(cli.home / "sample", **manifest)
    ran = cli("check", directory, "--static")
    assert ran.code == 1
    assert why in ran.err
    assert "no complaints" not in ran.out
    assert "warning     there is no README.md" in ran.out

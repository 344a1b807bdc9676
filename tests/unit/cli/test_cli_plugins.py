"""The commands list, remove, enable and disable."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from sandbox_host.bundle.archive_write import write_archive
from sandbox_host.bundle.reader import read_directory
from sandbox_host.catalog import placing
from sandbox_host.runtime.data_locks import DataLocks
from tests.support.bundles import make_key, signed_plugin, trust_store, write_plugin
from tests.support.command_line import LocalCommandLine


@pytest.fixture
def plugins(cli: LocalCommandLine) -> Path:
    """A plugin directory with one good plugin, configured."""
    directory = cli.home / "the plugins"
    store = trust_store(cli.home, make_key())
    cli.config_dir.mkdir(mode=0o700, parents=True)
    (cli.config_dir / "config.toml").write_text(
        f'plugin_directory = "{directory}"\ntrust_store = "{store}"\n'
    )
    signed_plugin(directory / "good", make_key())
    return directory


def states(cli: LocalCommandLine) -> dict[str, tuple[str, str | None]]:
    document = json.loads(cli("list", "--format", "json").out)
    return {Path(p["path"]).name: (p["state"], p["code"]) for p in document["plugins"]}


def events(cli: LocalCommandLine) -> list[tuple[str, str]]:
    lines = (cli.state_dir / "journal.jsonl").read_text().splitlines()
    return [(json.loads(line)["event"], json.loads(line)["plugin"]) for line in lines]


def test_list_says_what_a_host_would_make_of_each(cli: LocalCommandLine, plugins: Path) -> None:
    signed_plugin(plugins / "off", make_key(), config={"enabled": False})
    write_plugin(plugins / "unsigned")
    signed_plugin(plugins / "stranger", make_key(2))
    (write_plugin(plugins / "broken") / "plugin.json").write_text("{")
    for name in ("twin1", "twin2"):
        signed_plugin(plugins / name, make_key(), name="twin")
    (plugins / "linked").symlink_to(plugins / "good")
    ran = cli("list")
    assert ran.code == 0
    assert "the plugins: 8 plugins" in ran.out
    assert "note: unsigned is unverified: the bundle" in ran.err
    assert "note: twin1 is unreadable: its name is also that of the plugin in twin2" in ran.err
    assert "nothing unverified or unreadable is loaded" in ran.err
    assert states(cli) == {
        "good": ("found", None),
        "off": ("disabled", None),
        "unsigned": ("unverified", "unsigned"),
        "stranger": ("unverified", "untrusted"),
        "broken": ("unverified", "unsigned"),
        "twin1": ("unreadable", "clash"),
        "twin2": ("unreadable", "clash"),
        "linked": ("unreadable", "bundle"),
    }
    assert not cli.state_dir.exists()  # looking writes nothing


def test_list_says_what_waits_and_for_what(cli: LocalCommandLine, plugins: Path) -> None:
    for name, needs in (("far", "near"), ("near", "off"), ("late", "good >= 2"), ("glad", "good")):
        signed_plugin(plugins / name, make_key(), dependencies=[needs])
    signed_plugin(plugins / "off", make_key(), config={"enabled": False})
    write_plugin(plugins / "unsigned", name="good_too")
    signed_plugin(plugins / "fooled", make_key(), dependencies=["good_too"])
    ran = cli("list")
    assert ran.code == 0
    told = ran.err.replace("\n", " ")
    assert "far is waiting: far cannot start: far -> near -> off: off does not run: config" in told
    assert "late -> good: late needs good >= 2, and there is good 1.0.0" in told
    assert {name: state for name, (state, _) in states(cli).items()} == {
        "good": "found",
        "glad": "found",
        "off": "disabled",
        "unsigned": "unverified",
        **dict.fromkeys(("far", "near", "late", "fooled"), "waiting"),
    }


def test_list_as_data(cli: LocalCommandLine, plugins: Path) -> None:
    document = json.loads(cli("list", "--format", "json").out)
    assert document["plugin_directory"] == str(plugins)
    (one,) = document["plugins"]
    assert (one["plugin"], one["version"], one["signer"]) == (
        "good",
        "1.0.0",
        "test key (publisher)",
    )
    assert len(one["digest"]) == 64
    assert one["since"].endswith("Z")
    assert one["reason"] is None


def test_list_without_a_trust_store(cli: LocalCommandLine, plugins: Path) -> None:
    (cli.home / "trust/trust.toml").unlink()
    ran = cli("list")
    assert ran.code == 6
    assert "unverified" in ran.out
    assert "does not exist" in ran.err


def test_list_of_nothing(cli: LocalCommandLine, plugins: Path) -> None:
    ran = cli("list", "--plugin-directory", cli.home / "trust")
    assert (ran.code, ran.err) == (0, "")
    assert "0 plugins" in ran.out
    assert cli("list", "--plugin-directory", "nowhere").code == 6


def test_names_are_escaped(cli: LocalCommandLine, plugins: Path) -> None:
    write_plugin(plugins / "x\x1b[31m\n", name="x")
    ran = cli("list")
    assert "\x1b[31m" not in ran.out + ran.err
    ran = cli("remove", "x\x1b[31m\n", "--yes")
    assert ran.code == 0
    assert "\x1b" not in ran.out + ran.err


def test_off_and_on_again(cli: LocalCommandLine, plugins: Path) -> None:
    assert cli("disable", "Good").out.startswith("good: disabled;")
    assert states(cli) == {"good": ("disabled", None)}
    assert "since" in cli("list", "--format", "json").out
    assert cli("disable", "good").out == "good: it is disabled already\n"
    assert cli("enable", "good").out == "good: enabled\n"
    assert cli("enable", "good").out == "good: it is enabled already\n"
    assert states(cli) == {"good": ("found", None)}
    assert events(cli) == [("disabled", "good"), ("enabled", "good")]
    assert (cli.state_dir / "disabled.json").stat().st_mode & 0o777 == 0o600


def test_what_a_configuration_disables_enable_does_not(
    cli: LocalCommandLine, plugins: Path
) -> None:
    signed_plugin(plugins / "off", make_key(), config={"enabled": False})
    ran = cli("enable", "off")
    assert ran.code == 1
    assert "in its plugin.json" in ran.err
    assert "[plugin_config.off] enabled = true" in ran.err
    cli("disable", "off")
    assert cli("enable", "off").code == 1
    assert "off" not in (cli.state_dir / "disabled.json").read_text()


def test_one_that_is_broken_can_be_disabled(cli: LocalCommandLine, plugins: Path) -> None:
    (plugins / "good/plugin.json").write_text("{")
    assert cli("disable", "good").code == 0
    write_archive(read_directory(write_plugin(cli.home / "x")), plugins / "other.plugin")
    (plugins / "other.plugin").write_bytes(b"half")
    assert cli("disable", "Other").code == 0
    (plugins / "no name").mkdir()
    (plugins / "no name/plugin.json").write_text("{")
    ran = cli("disable", "no name")
    assert ran.code == 2
    assert "nobody knows its name" in ran.err


@pytest.mark.parametrize("command", ["disable", "enable", "remove"])
@pytest.mark.parametrize("name", ["missing", "../good", "/etc", "."])
def test_names_that_are_none(cli: LocalCommandLine, plugins: Path, command: str, name: str) -> None:
    ran = cli(command, name, *(["--yes"] if command == "remove" else []))
    assert ran.code == 1
    assert "There is no plugin" in ran.err
    assert "sandbox-host list" in ran.err


def test_one_that_is_gone_can_be_enabled(cli: LocalCommandLine, plugins: Path) -> None:
    cli("disable", "good")
    (plugins / "good").rename(cli.home / "elsewhere")
    assert cli("enable", "good").code == 0


def test_remove(cli: LocalCommandLine, plugins: Path) -> None:
    data = cli.state_dir / "data" / "good"
    data.mkdir(parents=True)
    cli.state_dir.chmod(0o700)
    (data / "kept").write_text("x")
    cli("disable", "good")
    ran = cli("remove", "good", "--yes")
    assert ran.code == 0, ran.err
    assert ran.out.endswith("good: removed\n")
    assert os.listdir(plugins) == [".sandbox-host.lock"]
    assert (data / "kept").exists()
    assert events(cli)[-1] == ("uninstalled", "good")
    assert '"disabled": {}' in (cli.state_dir / "disabled.json").read_text()


def test_remove_with_its_data(cli: LocalCommandLine, plugins: Path) -> None:
    data = cli.state_dir / "data" / "good"
    data.mkdir(parents=True, mode=0o700)
    cli.state_dir.chmod(0o700)
    (data / "file").write_text("x")
    locks = DataLocks(cli.state_dir / "locks")
    (cli.state_dir / "locks").mkdir(mode=0o700)
    with locks.holding("good"):
        ran = cli("remove", "good", "--data", "--yes")
        assert ran.code == 1
        assert "`sandbox-host disable good` first" in ran.err
        assert (plugins / "good").exists()
    ran = cli("remove", "good", "--data", "--yes")
    assert ran.code == 0, ran.err
    assert "of data, in" in ran.out
    assert not data.exists()
    assert events(cli) == [("uninstalled", "good"), ("data_removal", "good")]


def test_remove_data_that_is_not_there(cli: LocalCommandLine, plugins: Path) -> None:
    ran = cli("remove", "good", "--data", "--yes")
    assert ran.code == 0, ran.err


def test_remove_asks(cli: LocalCommandLine, plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cli("remove", "good")
    assert ran.code == 2
    assert "Give --yes." in ran.err
    monkeypatch.setattr("sandbox_host.cli.remove.agreed", lambda question, yes: False)
    ran = cli("remove", "good")
    assert ran.code == 1
    assert "nothing was removed." in ran.err
    assert (plugins / "good").exists()


def test_a_deep_tree_is_erased(cli: LocalCommandLine, plugins: Path) -> None:
    descriptor = os.open(plugins / "good", os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    ran = cli("remove", "good", "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert os.listdir(plugins) == [".sandbox-host.lock"]


def test_two_at_once(cli: LocalCommandLine, plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "LOCK_SECONDS", 0.0)
    with open(plugins / ".sandbox-host.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (("remove", "good", "--yes"), ("install", plugins / "good")):
            ran = cli(*words)
            assert ran.code == 6
            assert "is being changed by another process" in ran.err
    assert (plugins / "good").exists()


def test_run_passes_over_what_is_disabled(cli: LocalCommandLine, plugins: Path) -> None:
    from sandbox_host.cli.run import _discovered
    from sandbox_host.config import HostConfig

    config = HostConfig.from_toml(cli.config_dir / "config.toml")
    config = config.model_copy(update={"state_dir": cli.state_dir})
    assert [path.name for path in _discovered(config).directories] == ["good"]
    cli("disable", "good")
    start = _discovered(config)
    assert (start.directories, list(start.disabled)) == ([], ["good"])

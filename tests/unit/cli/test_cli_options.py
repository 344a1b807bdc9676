from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.cli.options import HostOptions
from sandbox_host.errors import ConfigError
from tests.support.command_line import LocalCommandLine


def write_config(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults(cli: LocalCommandLine) -> None:
    config = HostOptions().read()
    assert config.trust_store == cli.config_dir / "trust.toml"
    assert config.state_dir == cli.state_dir
    assert config.plugin_environment is None


def test_the_configuration_directory_is_read(cli: LocalCommandLine) -> None:
    write_config(cli.config_dir / "config.toml", 'state_dir = "kept"\nevent_queue = 7\n')
    config = HostOptions().read()
    assert config.event_queue == 7
    assert config.state_dir == cli.config_dir / "kept"


def test_a_named_file_replaces_it(cli: LocalCommandLine) -> None:
    write_config(cli.config_dir / "config.toml", "event_queue = 7\n")
    named = write_config(cli.home / "mine.toml", "max_outstanding_calls = 5\n")
    config = HostOptions(config=named).read()
    assert (config.max_outstanding_calls, config.event_queue) == (5, 256)


def test_options_win_over_the_file(cli: LocalCommandLine) -> None:
    named = write_config(cli.home / "mine.toml", 'state_dir = "a"\ntrust_store = "b"\n')
    config = HostOptions(named, Path("c"), Path("d"), Path("e")).read()
    assert config.trust_store == cli.home / "c"
    assert config.state_dir == cli.home / "d"
    assert config.plugin_environment == cli.home / "e"


def test_a_broken_link_to_a_configuration_is_not_passed_over(cli: LocalCommandLine) -> None:
    cli.config_dir.mkdir(parents=True)
    (cli.config_dir / "config.toml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read"):
        HostOptions().read()


@pytest.mark.parametrize("command", ["doctor", "run", "call"])
def test_a_bad_configuration_is_exit_6(cli: LocalCommandLine, plugin: Path, command: str) -> None:
    bad = write_config(cli.home / "bad.toml", "require_signatures = false\n")
    arguments = {"doctor": (), "run": (plugin,), "call": (plugin, "echo")}[command]
    ran = cli(command, *arguments, "--config", bad)
    assert (ran.code, ran.out) == (6, "")
    assert "require_signatures = false is refused" in ran.err

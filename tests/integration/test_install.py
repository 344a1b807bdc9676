"""Installing as operators do: in processes of their own, at once; and loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.catalog.discover import discover
from tests.support.bundles import make_key, signed_plugin, trust_store
from tests.support.command_line import CommandLine


class Operator(CommandLine):
    """A command line with a plugin directory."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.directory = home / "the plugins"
        self.trust_store = trust_store(home, make_key())
        self.config_dir.mkdir(mode=0o700, parents=True)
        (self.config_dir / "config.toml").write_text(
            f'plugin_directory = "{self.directory}"\ntrust_store = "{self.trust_store}"\n'
        )

    def release(self, version: str) -> Path:
        return signed_plugin(self.home / version / "sample", make_key(), version=version)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_many_at_once_leave_one_whole_version(operator: Operator) -> None:
    releases = [operator.release(f"1.{number}.0") for number in range(4)]
    running = [operator.start("install", release) for release in releases]
    codes = []
    for process in running:
        _, err = process.communicate()
        assert "Traceback" not in err
        codes.append(process.returncode)
    assert set(codes) <= {0, 5}  # whoever came after a newer one is refused
    assert codes[-1] == 0
    (one,) = discover(operator.directory)
    assert one.manifest is not None
    assert one.manifest.version == "1.3.0"
    lines = (operator.state_dir / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["installed"] * codes.count(0)
    assert operator("journal", "verify").code == 0
    assert sorted(os.listdir(operator.directory)) == [".sandbox-host.lock", "sample.plugin"]


def test_what_is_installed_loads(operator: Operator) -> None:
    assert operator("install", operator.release("1.0.0")).code == 0
    config = HostConfig(trust_store=operator.trust_store, state_dir=operator.state_dir)
    with SandboxHost.blocking(config) as host:
        plugin = host.load(operator.directory / "sample.plugin")
        assert plugin.version == "1.0.0"

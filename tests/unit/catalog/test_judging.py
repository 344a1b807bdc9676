"""Verdicts on what lies in a plugin directory: the one verification, and the operator's word."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox_host import HostConfig
from sandbox_host.bundle.trust_edit import revoke
from sandbox_host.bundle.trust_entries import Revocation
from sandbox_host.catalog.discover import DiscoveredState
from sandbox_host.catalog.judging import Judging
from sandbox_host.catalog.switches import Switches
from sandbox_host.errors import ConfigError, RollbackError, TrustStoreError
from tests.support.bundles import make_key, signed_plugin, trust_store, write_plugin

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> HostConfig:
    return HostConfig(trust_store=trust_store(tmp_path, make_key()), state_dir=tmp_path / "state")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return signed_plugin(tmp_path / "plugins" / "sample", make_key())


def test_a_good_one(config: HostConfig, plugin: Path) -> None:
    one = Judging(config)(plugin)
    assert (one.state, one.identity, one.version) == (DiscoveredState.FOUND, "sample", "1.0.0")
    assert (one.reason, one.code, one.enabled) == ("", "", True)
    assert one.signer == "test key (publisher)"
    assert len(one.digest) == 64


def test_what_is_wrong_with_others(config: HostConfig, tmp_path: Path) -> None:
    judging = Judging(config)
    unsigned = judging(write_plugin(tmp_path / "unsigned"))
    assert (unsigned.state, unsigned.code) == (DiscoveredState.UNVERIFIED, "unsigned")
    assert (unsigned.identity, unsigned.digest) == ("unsigned", "")
    stranger = judging(signed_plugin(tmp_path / "stranger", make_key(2)))
    assert (stranger.state, stranger.code) == (DiscoveredState.UNVERIFIED, "untrusted")
    tampered = signed_plugin(tmp_path / "tampered", make_key())
    (tampered / "__init__.py").write_text("x")
    assert judging(tampered).code == "tampered"
    (tampered / "plugin.json").write_text("{")
    assert judging(tampered).identity == ""
    (tmp_path / "link").symlink_to(tampered)
    linked = judging(tmp_path / "link")
    assert (linked.state, linked.code) == (DiscoveredState.UNREADABLE, "bundle")
    assert judging(tmp_path / "missing").state is DiscoveredState.UNREADABLE


def test_reasons_are_one_line(config: HostConfig, tmp_path: Path) -> None:
    plugin = signed_plugin(tmp_path / "sample", make_key())
    (plugin / "x\n\x1b[31m.py").write_text("")
    reason = Judging(config)(plugin).reason
    assert reason.isprintable()


def test_disabled_by_switch_by_plugin_and_by_configuration(
    config: HostConfig, plugin: Path, tmp_path: Path
) -> None:
    Switches(config.state_dir).disable("sample", NOW)
    one = Judging(config)(plugin)
    assert (one.state, one.reason) == (
        DiscoveredState.DISABLED,
        "disabled with `sandbox-host disable`",
    )
    off = signed_plugin(tmp_path / "off", make_key(), config={"enabled": False})
    assert Judging(config)(off).reason == "config.enabled is false"
    on = config.model_copy(update={"plugin_config": {"off": {"enabled": True}}})
    assert Judging(on)(off).enabled
    both = config.model_copy(update={"plugin_config": {"sample": {"enabled": True}}})
    assert not Judging(both)(plugin).enabled  # the switch is off all the same


def test_verdicts_are_renewed_when_something_else_changed(config: HostConfig, plugin: Path) -> None:
    judging = Judging(config)
    assert judging.renew()
    assert not judging.renew()
    Switches(config.state_dir).disable("sample", NOW)
    assert judging.renew()
    assert judging.switched_off == {"sample"}
    assert not judging.renew()
    reason = Revocation(make_key().key_id, "key", "lost", NOW.date())
    revoke(config.trust_store, reason)
    assert judging(plugin).code == ""  # nobody has looked yet
    assert judging.renew()
    assert judging(plugin).code == "untrusted"


def test_what_cannot_be_read_is_tried_again(config: HostConfig, plugin: Path) -> None:
    judging = Judging(config)
    aside = config.trust_store.with_suffix(".aside")
    os.rename(config.trust_store, aside)
    for _ in range(2):
        with pytest.raises(TrustStoreError):
            judging(plugin)
        with pytest.raises(TrustStoreError):
            judging.renew()
    os.rename(aside, config.trust_store)
    assert judging.renew()
    assert judging(plugin).enabled
    switches = Switches(config.state_dir)
    switches.disable("sample", NOW)
    switches.path.write_text("{")
    with pytest.raises(ConfigError):
        judging.renew()


def test_what_else_speaks_against_it(config: HostConfig, plugin: Path) -> None:
    def objection(*_: object) -> None:
        raise RollbackError("older")

    one = Judging(config, objection)(plugin)
    assert (one.state, one.code, one.reason) == (DiscoveredState.UNVERIFIED, "rollback", "older")

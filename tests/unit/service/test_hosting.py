"""What only a service asks of its host: whether it works, and another configuration."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host import HostConfig, Permissions
from sandbox_host.errors import TrustStoreError, UsageError
from sandbox_host.runtime import workspace
from sandbox_host.service.hosting import ServedHost
from sandbox_host.service.settings import reconfiguration
from tests.support.fake_backend import FakeBackend, ordinary
from tests.support.host import Workshop
from tests.support.traces import eventually


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def host(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedHost]:
    monkeypatch.setattr(workspace, "copy_sdk", lambda _: None)
    config = shop.config(stop_timeout_seconds=0.5)
    with ServedHost(config, backend=FakeBackend(ordinary)) as opened:
        yield opened


def test_it_works_until_its_watchdog_does_not(
    host: ServedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert eventually(lambda: host.works(1.0))
    go = threading.Event()
    keeper = host._core._keeper
    sweep = keeper._sweep

    def stuck(now: float) -> float:
        go.wait(60)
        return sweep(now)

    monkeypatch.setattr(keeper, "_sweep", stuck)
    assert eventually(lambda: not host.works(0.2))
    go.set()
    assert eventually(lambda: host.works(0.2))


def test_closed_it_does_not_work(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "copy_sdk", lambda _: None)
    with ServedHost(shop.config(), backend=FakeBackend(ordinary)) as opened:
        pass
    assert not opened.works(60.0)
    with pytest.raises(UsageError):
        opened.reconfigure(shop.config())


def test_another_configuration_is_for_what_comes(host: ServedHost, shop: Workshop) -> None:
    plugin = shop.write(permissions={"publish": ["told"]})
    host.load(plugin)
    before = host.plugin("sample").plan.permissions
    grants = HostConfig(grants={"sample": Permissions(read=("/srv",))}).grants
    read = host.config.model_copy(update={"grants": grants})
    host.reconfigure(reconfiguration(host.config, read).config)
    assert host.config.grants == grants
    assert host.plugin("sample").plan.permissions == before
    lines = host.config.journal_path.read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["detail"]) == ("configuration_changed", "grants")
    host.unload("sample")
    host.reconfigure(host.config.model_copy(update={"trust_store": shop.state_dir / "none.toml"}))
    with pytest.raises(TrustStoreError, match=r"none\.toml"):
        host.load(plugin)

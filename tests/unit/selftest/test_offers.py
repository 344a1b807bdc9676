from __future__ import annotations

import pytest

from sandbox_host import HostConfig
from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer, LayerReport, LayerStatus
from sandbox_host.selftest import offers


def test_every_layer_in_its_order_with_the_watchdog() -> None:
    given = [
        LayerReport(Layer.SECCOMP, LayerStatus.ACTIVE, "fine"),
        LayerReport(Layer.CGROUP, LayerStatus.DISABLED, "switched off"),
    ]
    told = {report.layer: report for report in offers.completed(given)}
    assert list(told) == list(Layer)
    assert told[Layer.SECCOMP] is given[0]
    assert told[Layer.CGROUP].status is LayerStatus.DISABLED
    assert told[Layer.WATCHDOG].status is LayerStatus.ACTIVE
    assert told[Layer.LANDLOCK].status is LayerStatus.UNAVAILABLE
    assert "not offered" in told[Layer.LANDLOCK].detail


def test_a_system_without_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: HostConfig) -> tuple[LayerReport, ...]:
        raise ConfinementError("not on Plan 9.", layer="backend", remedy="Use Linux.")

    monkeypatch.setattr(offers, "machine_offers", none)
    told = offers.offers_of(HostConfig())
    assert [report.layer for report in told] == list(Layer)
    assert {report.status for report in told} == {LayerStatus.UNAVAILABLE}
    assert {(report.detail, report.remedy) for report in told} == {("not on Plan 9.", "Use Linux.")}

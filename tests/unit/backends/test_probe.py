"""What a machine offers, told from what was found out about it."""

from __future__ import annotations

import os

import pytest

from sandbox_host.backends.linux.probe import Machine, offers, probe
from sandbox_host.model import Layer, LayerStatus

GOOD = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")


def status_of(machine: Machine, layer: Layer) -> tuple[LayerStatus, str, str]:
    (report,) = [report for report in offers(machine) if report.layer is layer]
    return report.status, report.detail, report.remedy


def test_good_machine() -> None:
    assert {report.status for report in offers(GOOD)} == {LayerStatus.ACTIVE}


@pytest.mark.parametrize(("abi", "told"), [(0, "Function not implemented"), (1, "ABI 1")])
def test_landlock_missing_or_too_old(abi: int, told: str) -> None:
    machine = Machine("x86_64", abi, os.strerror(38), seccomp=True, seccomp_reason="")
    status, detail, remedy = status_of(machine, Layer.LANDLOCK)
    assert status is LayerStatus.UNAVAILABLE
    assert told in detail
    assert "lsm=" in remedy


def test_oldest_landlock_that_will_do() -> None:
    machine = Machine("aarch64", 2, "", seccomp=True, seccomp_reason="")
    assert status_of(machine, Layer.LANDLOCK)[0] is LayerStatus.ACTIVE


def test_no_seccomp() -> None:
    machine = Machine("riscv64", 7, "", seccomp=False, seccomp_reason="no table")
    status, detail, remedy = status_of(machine, Layer.SECCOMP)
    assert (status, detail) == (LayerStatus.UNAVAILABLE, "no table")
    assert remedy


def test_this_machine() -> None:
    machine = probe()
    assert machine == probe()
    assert machine.architecture == os.uname().machine
    assert bool(machine.landlock_abi) != bool(machine.landlock_reason)

"""What a machine offers, told from what was found out about it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux import probe as module
from sandbox_host.backends.linux.probe import Machine, Tried, offers, probe
from sandbox_host.backends.linux.surroundings import Surroundings
from sandbox_host.model import FIXED_LAYERS, Layer, LayerReport, LayerStatus

GOOD = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")
NAMESPACES = (
    *("pid-namespace", "network-namespace", "ipc-namespace", "uts-namespace", "cgroup-namespace"),
    "own-root",
)
WORKS = dict.fromkeys((*NAMESPACES, "proc", "own-uid", "user-namespace"), "")
ANYWHERE: dict[str, Any] = {"cgroup": "v2: memory, pids", "around": Surroundings.UNKNOWN}
ROOT = Tried(WORKS, user_namespace=True, root=True, **ANYWHERE)
ORDINARY = Tried(WORKS, user_namespace=True, root=False, **ANYWHERE)
ACTIVE, UNAVAILABLE, DISABLED = (
    LayerStatus.ACTIVE,
    LayerStatus.UNAVAILABLE,
    LayerStatus.DISABLED,
)


def tried(base: Tried = ROOT, *, reasons: dict[str, str] | None = None, **changes: Any) -> Tried:
    return replace(base, reasons={**WORKS, **(reasons or {})}, **changes)


def report(
    layer: str, machine: Machine = GOOD, found: Tried = ROOT, *, disabled: tuple[str, ...] = ()
) -> LayerReport:
    off = frozenset(map(Layer, disabled))
    (told,) = [one for one in offers(machine, found, off) if one.layer == layer]
    return told


def statuses(machine: Machine, found: Tried) -> dict[str, LayerStatus]:
    return {one.layer: one.status for one in offers(machine, found)}


def test_every_layer_but_the_watchdog_once_and_in_order() -> None:
    for found in (ROOT, ORDINARY):
        layers = [one.layer for one in offers(GOOD, found)]
        assert layers == [layer for layer in Layer if layer is not Layer.WATCHDOG]


def test_good_machine() -> None:
    assert set(statuses(GOOD, ROOT).values()) == {ACTIVE}
    lacking = {layer for layer, status in statuses(GOOD, ORDINARY).items() if status is not ACTIVE}
    assert lacking == {"own-uid"}


def test_whose_user_namespace_it_is() -> None:
    assert "the nursery's" in report("user-namespace").detail
    assert "one for each plugin" in report("user-namespace", found=ORDINARY).detail


# -- what needs no process to be tried in --------------------------------------------------------


@pytest.mark.parametrize(("abi", "told"), [(0, "Function not implemented"), (1, "ABI 1")])
def test_landlock_missing_or_too_old(abi: int, told: str) -> None:
    machine = Machine("x86_64", abi, os.strerror(38), seccomp=True, seccomp_reason="")
    found = report("landlock", machine)
    assert found.status is UNAVAILABLE
    assert told in found.detail
    assert "lsm=" in found.remedy


def test_oldest_landlock_that_will_do() -> None:
    machine = Machine("aarch64", 2, "", seccomp=True, seccomp_reason="")
    assert report("landlock", machine).status is ACTIVE


def test_no_seccomp() -> None:
    machine = Machine("riscv64", 7, "", seccomp=False, seccomp_reason="no table")
    found = report("seccomp", machine)
    assert (found.status, found.detail) == (UNAVAILABLE, "no table")
    assert found.remedy


def test_this_machine() -> None:
    machine = probe()
    assert machine == probe()
    assert machine.architecture == os.uname().machine
    assert bool(machine.landlock_abi) != bool(machine.landlock_reason)
    assert machine.seccomp != bool(machine.seccomp_reason)


def test_what_every_system_has_may_be_refused_all_the_same() -> None:
    """By a system call filter around the host."""
    assert report("capabilities").status is ACTIVE
    why = "[Errno 1] capset: Operation not permitted"
    found = report("capabilities", found=tried(reasons={"capabilities": why}))
    assert (found.status, found.detail) == (UNAVAILABLE, why)
    assert "SystemCallFilter=" in found.remedy


# -- what was tried ------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", NAMESPACES)
@pytest.mark.parametrize("base", [ROOT, ORDINARY], ids=["root", "ordinary"])
def test_namespace_that_is_refused(layer: str, base: Tried) -> None:
    found = report(layer, found=tried(base, reasons={layer: "Operation not permitted"}))
    assert (found.status, found.detail) == (UNAVAILABLE, "Operation not permitted")
    assert "seccomp profile" in found.remedy


@pytest.mark.parametrize("layer", NAMESPACES)
def test_namespace_that_was_not_tried_is_not_offered(layer: str) -> None:
    reasons = {name: "" for name in WORKS if name != layer}
    found = report(layer, found=Tried(reasons, user_namespace=True, root=True))
    assert found.status is UNAVAILABLE


@pytest.mark.parametrize("layer", NAMESPACES)
def test_without_a_user_namespace_only_root_has_the_others(layer: str) -> None:
    assert report(layer, found=tried(ROOT, user_namespace=False)).status is ACTIVE
    found = report(layer, found=tried(ORDINARY, user_namespace=False))
    assert found.status is UNAVAILABLE
    assert "user namespace" in found.detail
    assert found.remedy


def test_user_namespace_that_is_refused() -> None:
    reasons = {"user-namespace": "writing uid_map: Operation not permitted"}
    for base in (ROOT, ORDINARY):
        found = report("user-namespace", found=tried(base, reasons=reasons))
        assert (found.status, found.detail) == (UNAVAILABLE, reasons["user-namespace"])
        assert found.remedy


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("max_user_namespaces", "0", "max_user_namespaces"),
    ],
)
def test_distribution_that_restricts_user_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    files = []
    for path, restricting, remedy in module._RESTRICTIONS:
        file = tmp_path / os.path.basename(path)
        file.write_text(value if file.name == name else "9\n")
        files.append((str(file), restricting, remedy))
    monkeypatch.setattr(module, "_RESTRICTIONS", tuple(files))
    found = report("user-namespace", found=tried(reasons={"user-namespace": "refused"}))
    assert told in found.remedy


def test_root_of_ones_own_without_proc() -> None:
    assert "with /proc" in report("own-root").detail
    found = report("own-root", found=tried(reasons={"proc": "Operation not permitted"}))
    assert found.status is ACTIVE
    assert "without /proc: Operation not permitted" in found.detail


@pytest.mark.parametrize(
    ("found", "disabled", "told"),
    [
        pytest.param(ORDINARY, (), "root", id="ordinary user"),
        pytest.param(ROOT, ("own-root",), "own-root", id="root switched off"),
        pytest.param(tried(reasons={"own-root": "refused"}), (), "own-root", id="no root"),
        pytest.param(tried(reasons={"own-uid": "refused"}), (), "refused", id="refused"),
    ],
)
def test_no_user_id_of_ones_own(found: Tried, disabled: tuple[str, ...], told: str) -> None:
    one = report("own-uid", found=found, disabled=disabled)
    assert one.status is UNAVAILABLE
    assert told in one.detail
    assert one.remedy


def test_no_control_group() -> None:
    found = tried(cgroup="", cgroup_reason="nothing is delegated", cgroup_remedy="Delegate=yes")
    one = report("cgroup", found=found)
    assert (one.status, one.detail, one.remedy) == (
        UNAVAILABLE,
        "nothing is delegated",
        "Delegate=yes",
    )


@pytest.mark.parametrize("layer", [x.value for x in Layer if x not in FIXED_LAYERS])
def test_switched_off_is_told_as_such_whatever_the_machine_has(layer: str) -> None:
    for found in (ROOT, tried(reasons=dict.fromkeys(WORKS, "refused"), cgroup="")):
        one = report(layer, found=found, disabled=(layer,))
        assert one.status is DISABLED
        assert "disable_layers" in one.detail
        assert one.remedy


@pytest.mark.parametrize("base", [ROOT, ORDINARY], ids=["root", "ordinary"])
def test_whatever_is_missing_has_a_reason_and_a_remedy(base: Tried) -> None:
    machine = Machine("x86_64", 0, "reason", seccomp=False, seccomp_reason="reason")
    nothing = tried(
        base,
        reasons=dict.fromkeys(WORKS, "refused"),
        user_namespace=False,
        cgroup="",
        cgroup_reason="reason",
        cgroup_remedy="remedy",
    )
    missing = [one for one in offers(machine, nothing) if one.status is not ACTIVE]
    assert {one.layer for one in missing} == set(Layer) - FIXED_LAYERS - {Layer.RLIMITS}
    assert all(one.detail and one.remedy for one in missing)

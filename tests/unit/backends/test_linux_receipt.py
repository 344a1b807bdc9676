"""The receipt says what was read back, and nothing of what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux.attest import attest
from sandbox_host.backends.linux.receipt import write_receipt
from sandbox_host.guarantees import standing
from sandbox_host.model import MIB, Layer, LayerReport, LayerStatus, Permissions, Receipt
from tests.support.attested import (
    ENVIRONMENT,
    ORDINARY_HOST,
    PID,
    ROOT_HOST,
    Case,
    FakeGroup,
    with_layers,
)
from tests.support.plans import plan_and_places


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    with plan_and_places(tmp_path) as made:
        yield made


@pytest.fixture
def case(prepared: Any) -> Case:
    return Case(*prepared, ROOT_HOST)


def receipt_of(case: Case, *others: LayerReport) -> Receipt:
    it = case.attested()
    return write_receipt(it, PID, attest(it), others)


def entries(case: Case, name: str) -> list[tuple[str, str]]:
    receipt = receipt_of(case)
    found = (*receipt.limits, *receipt.permissions)
    return [(entry.value, entry.mechanism) for entry in found if entry.name == name]


def test_plugin_process_and_guarantees(case: Case) -> None:
    receipt = receipt_of(case)
    assert (receipt.plugin, receipt.pid) == ("sample", PID)
    assert set(receipt.active) == set(Layer) - {Layer.WATCHDOG}
    assert receipt.guarantees == standing(receipt.active)


def test_layers_that_are_missing_are_told_beside_the_others(prepared: Any) -> None:
    plan, places = prepared
    lacking = {Layer.SECCOMP, Layer.OWN_UID}
    case = Case(
        with_layers(plan, tuple(x for x in plan.layers if x not in lacking)), places, ORDINARY_HOST
    )
    others = [LayerReport(layer, LayerStatus.UNAVAILABLE, "reason") for layer in lacking]
    receipt = receipt_of(case, *others)
    assert set(receipt.layers) >= set(others)
    assert not lacking & set(receipt.active)
    assert receipt.guarantees == standing(receipt.active)
    # Nothing but the filter was tried for these.
    assert not {"subprocess", "network"} & {entry.name for entry in receipt.permissions}


def test_limits_are_those_that_the_kernel_tells(case: Case) -> None:
    case.evidence = replace(case.evidence, limits={**case.evidence.limits})
    order = [list(pair) for pair in case.compiled.order["rlimits"]]
    for pair in order:
        if pair[0] == 7:
            pair[1] = 123
    case.compiled = replace(case.compiled, order={**case.compiled.order, "rlimits": order})
    case.evidence.limits["Max open files"] = ("123", "123")  # type: ignore[index]  # a dict here
    assert entries(case, "descriptors") == [("123", "RLIMIT_NOFILE")]
    assert entries(case, "file_bytes") == [("256 MiB", "RLIMIT_FSIZE")]


def test_limit_that_is_not_in_force_is_not_told(prepared: Any) -> None:
    plan, places = prepared
    lacking = {Layer.RLIMITS, Layer.CGROUP}
    layers = tuple(layer for layer in plan.layers if layer not in lacking)
    case = Case(with_layers(plan, layers), places, ROOT_HOST)
    case.group = None
    names = {entry.name for entry in receipt_of(case).limits}
    assert names == {"cpu_weight", "scratch_bytes"}


def test_control_group_tells_what_it_holds(case: Case) -> None:
    case.group = FakeGroup({"memory_bytes": 100 * MIB, "tasks": 77})
    assert ("100 MiB", "control group, no swap") in entries(case, "memory_bytes")
    assert ("77", "control group, processes and threads") in entries(case, "threads")


NO_WEIGHT = ("none", "no control group with the controller cpu")


def test_cpu_weight_is_the_kernels(case: Case) -> None:
    case.group = FakeGroup({"memory_bytes": MIB, "tasks": 7, "cpu_weight": 42})
    assert entries(case, "cpu_weight") == [("42", "cgroup v1, cpu.shares")]


def test_cpu_weight_that_nothing_enforces_is_told_to_be_none(case: Case) -> None:
    case.group = FakeGroup({"memory_bytes": MIB, "tasks": 7})
    assert entries(case, "cpu_weight") == [NO_WEIGHT]
    case.group = None
    found = {
        e.name: (e.value, e.mechanism) for e in write_receipt(case.attested(), 1, (), ()).limits
    }
    assert found["cpu_weight"] == NO_WEIGHT


def test_tasks_that_are_counted_with_others_are_not_told(prepared: Any) -> None:
    """RLIMIT_NPROC of a user that others share says nothing about this plugin."""
    case = Case(*prepared, ROOT_HOST)
    alone = [how for _, how in entries(case, "threads")]
    case.ids = replace(case.ids, uid=None)
    case.plan = with_layers(case.plan, tuple(x for x in case.plan.layers if x is not Layer.OWN_UID))
    shared = [how for _, how in entries(case, "threads")]
    assert set(alone) - set(shared) == {"RLIMIT_NPROC"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("rw,size=65536k,nr_inodes=16384,mode=700", "64 MiB"),
        ("rw,size=2g", "2 GiB"),
        ("rw,mode=700,size=3m", "3 MiB"),
        ("rw,size=4096", "4 KiB"),
    ],
    ids=["64 MiB", "2 GiB", "3 MiB", "4 KiB"],
)
def test_size_of_scratch_is_the_file_systems(case: Case, data: str, told: str) -> None:
    scratch = case.compiled.order["cwd"]
    lines = [
        replace(line, data=data) if line.point == scratch else line for line in case.evidence.mounts
    ]
    case.evidence = replace(case.evidence, mounts=tuple(lines))
    case.group = None
    limits = write_receipt(case.attested(), PID, (), ()).limits
    (entry,) = [entry for entry in limits if entry.name != "cpu_weight"]
    assert (entry.name, entry.value, entry.mechanism) == ("scratch_bytes", told, "tmpfs of its own")


def test_permissions_that_nobody_granted_are_told_as_tried(case: Case) -> None:
    assert entries(case, "native_code") == [("no", "seccomp, tried: EPERM")]
    assert entries(case, "subprocess") == [("none", "seccomp, tried: EPERM")]
    assert entries(case, "network") == [("none", "seccomp, tried: EPERM")]
    none = ("none", "seccomp, tried: the interpreter could start none")
    assert none in entries(case, "threads")
    assert entries(case, "read") == []
    assert entries(case, "publish") == []


def test_permissions_that_were_granted(tmp_path: Path) -> None:
    shared, out = tmp_path / "shared", tmp_path / "out"
    shared.mkdir()
    out.mkdir()
    asked: dict[str, Any] = {
        "read": [str(shared)],
        "write": [str(out)],
        "env": ["TOKEN", "UNSET"],
        "publish": ["data_processed"],
        "subscribe": ["model_*"],
        "threads": True,
        "native_code": True,
    }
    grants = Permissions(**{k: tuple(v) if isinstance(v, list) else v for k, v in asked.items()})
    with plan_and_places(tmp_path, grants=grants, permissions=asked) as prepared:
        case = Case(*prepared, ROOT_HOST)
        case.report["probes"]["writable-and-executable"] = "allowed"
        case.report["environment"] = sorted((*ENVIRONMENT, "TOKEN"))
        case.environment = (*ENVIRONMENT, "TOKEN")
        assert entries(case, "read") == [(str(shared), "mounted noexec,ro, Landlock rule")]
        assert entries(case, "write") == [(str(out), "mounted noexec, Landlock rule")]
        assert entries(case, "env") == [
            ("TOKEN", "handed over at the start"),
            ("UNSET", "not set in the host, and so absent"),
        ]
        assert entries(case, "publish") == [("data_processed", "checked by the host")]
        assert entries(case, "subscribe") == [("model_*", "checked by the host")]
        assert "none" not in {value for value, _ in entries(case, "threads")}
        assert entries(case, "native_code") == [("yes", "tried: memory for code was given")]

"""A backend's receipt, completed with the watchdog, and held to what admission counted on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox_host.errors import AttestationError
from sandbox_host.guarantees import standing
from sandbox_host.model import (
    MIB,
    Enforced,
    Guarantee,
    Layer,
    LayerReport,
    LayerStatus,
    Limits,
    Receipt,
)
from sandbox_host.runtime.receipt import check_kept, with_watchdog


def attested(*off: Layer, limits: tuple[Enforced, ...] = ()) -> Receipt:
    """Return a backend's receipt, with the wrong idea of the guarantees."""
    layers = tuple(
        LayerReport(layer, LayerStatus.DEGRADED if layer in off else LayerStatus.ACTIVE, "seen")
        for layer in Layer
        if layer is not Layer.WATCHDOG
    )
    return Receipt("sample", 7, layers, standing(()), limits)


def plan(*accepted: Guarantee) -> Any:
    return SimpleNamespace(identity="sample", accepted_missing=accepted)


def test_the_watchdog_is_the_last_layer_and_counts_for_the_guarantees() -> None:
    receipt = with_watchdog(attested(), Limits(), 0.02)
    assert receipt.active == tuple(Layer)
    assert receipt.layers[-1].detail == (
        "memory, CPU time, threads and deadlines, every 20 ms (idle: 50 ms)"
    )
    assert receipt.guarantees == standing(tuple(Layer))
    backwards = replace(attested(), layers=attested().layers[::-1])
    assert with_watchdog(backwards, Limits(), 0.02) == receipt
    # Completed twice, it is there once.
    assert with_watchdog(receipt, Limits(), 0.02).layers == receipt.layers


def test_the_guarantees_are_those_of_the_active_layers() -> None:
    receipt = with_watchdog(attested(Layer.RLIMITS, Layer.OWN_ROOT), Limits(), 0.02)
    assert receipt.guarantees == standing(set(Layer) - {Layer.RLIMITS, Layer.OWN_ROOT})


def test_a_grant_to_write_is_a_restriction_of_the_disk() -> None:
    granted = replace(attested(), permissions=(Enforced("write", "/srv", "mounted"),))
    receipt = with_watchdog(granted, Limits(), 0.02)
    assert receipt.guarantees == standing(tuple(Layer), writes_outside=True)
    reading = replace(attested(), permissions=(Enforced("read", "/srv", "mounted"),))
    assert with_watchdog(reading, Limits(), 0.02).guarantees == standing(tuple(Layer))


def test_what_enforces_one_limit_stands_together_the_kernel_first() -> None:
    kernel = (
        Enforced("scratch_bytes", "64 MiB", "tmpfs"),
        Enforced("descriptors", "256", "RLIMIT_NOFILE"),
        Enforced("memory_bytes", "64 MiB", "memory.max"),
        Enforced("cpu_total_seconds", "24 h", "RLIMIT_CPU"),
    )
    limits = Limits(memory_bytes=64 * MIB, cpu_seconds=1.5, wall_seconds=0.5, threads=9)
    receipt = with_watchdog(attested(limits=kernel), limits, 0.001)
    by, held = "watchdog, every 1 ms", "held back by the host, which reads no faster"
    assert receipt.limits == (
        kernel[2],
        Enforced("memory_bytes", "64 MiB", by),
        Enforced("cpu_seconds", "1.5 s an operation", by),
        kernel[3],
        Enforced("wall_seconds", "500 ms a call", by),
        kernel[1],
        Enforced("threads", "9", by),
        kernel[0],
        Enforced("data_bytes", "1 GiB", "measured by the host, every 1 s or more"),
        Enforced("data_files", "20000", "measured by the host, every 1 s or more"),
        Enforced("store_bytes", "16 MiB", "counted by the host at each write"),
        Enforced("cpu_seconds_per_minute", "2 min in any 60 s", by),
        Enforced("messages_per_second", "2000 a second", held),
        Enforced("message_bytes_per_second", "1 MiB a second", held),
        Enforced("log_bytes_per_second", "1 MiB a second", held),
    )


def test_less_than_admission_counted_on_is_a_fault() -> None:
    check_kept(with_watchdog(attested(Layer.LANDLOCK), Limits(), 0.02), plan())
    lacking = with_watchdog(attested(Layer.RLIMITS), Limits(), 0.02)
    with pytest.raises(AttestationError, match=r"sample .*: cpu, descriptors, disk would not"):
        check_kept(lacking, plan())
    with pytest.raises(AttestationError, match=": disk would not be kept"):
        check_kept(lacking, plan(Guarantee.CPU, Guarantee.DESCRIPTORS))
    check_kept(lacking, plan(Guarantee.CPU, Guarantee.DESCRIPTORS, Guarantee.DISK))

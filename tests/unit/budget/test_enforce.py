"""Verdicts on budgets: which is exceeded, by how much, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sandbox_host.budget.enforce import (
    BACKGROUND,
    IDLE_SHARE,
    INTERRUPT_GRACE_SECONDS,
    KERNELS_TURN_SECONDS,
    Excess,
    Facts,
    Idle,
    Running,
    Step,
    begin_anew,
    judge,
    judge_idle,
    judge_total,
)
from sandbox_host.model import Cause, Limits

LIMITS = Limits(memory_bytes=1_000, threads=4, cpu_seconds=2.0)
FINE = Facts(resident_bytes=1_000, threads=4)
RUNNING = Running("predict", cpu_seconds=2.0, started_at=100.0, deadline=101.0)


def test_at_the_limit_is_not_over_it() -> None:
    assert judge(LIMITS, FINE, RUNNING, 100.999) is None
    assert judge(LIMITS, FINE, None, 1e9) is None
    assert judge(LIMITS, None, None, 1e9) is None


@pytest.mark.parametrize(
    ("facts", "running", "expected"),
    [
        ({"resident_bytes": 1_001}, {}, (Cause.MEMORY, "memory", 1_000, 1_001, "bytes")),
        ({"threads": 5}, {}, (Cause.THREADS, "threads", 4, 5, "threads")),
        ({}, {"cpu_seconds": 2.1}, (Cause.CPU, "cpu", 2.0, 2.1, "seconds")),
    ],
)
def test_each_budget(
    facts: dict[str, int], running: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    excess = judge(LIMITS, replace(FINE, **facts), replace(RUNNING, **running), 100.5)
    assert excess == Excess(Step.END, *expected, operation="predict")


def test_memory_is_judged_although_nothing_runs() -> None:
    excess = judge(LIMITS, Facts(2_000, 1), None, 0.0)
    assert excess is not None
    assert (excess.cause, excess.operation) == (Cause.MEMORY, "")


def test_operation_is_judged_although_nothing_was_seen() -> None:
    excess = judge(LIMITS, None, replace(RUNNING, cpu_seconds=3.0), 100.5)
    assert excess is not None
    assert excess.cause is Cause.CPU


def test_late_is_interrupted_first_and_ended_after_the_grace() -> None:
    first = judge(LIMITS, FINE, RUNNING, 101.0)
    assert first == Excess(
        Step.INTERRUPT, Cause.DEADLINE, "wall_time", 1.0, 1.0, "seconds", "predict"
    )
    asked = replace(RUNNING, interrupted_at=101.0)
    assert judge(LIMITS, FINE, asked, 101.0 + INTERRUPT_GRACE_SECONDS * 0.9) is None
    last = judge(LIMITS, FINE, asked, 101.0 + INTERRUPT_GRACE_SECONDS)
    assert last is not None
    assert (last.step, last.cause) == (Step.END, Cause.DEADLINE)


def test_memory_comes_before_the_deadline() -> None:
    excess = judge(LIMITS, Facts(9_999, 99), replace(RUNNING, cpu_seconds=99.0), 999.0)
    assert excess is not None
    assert excess.cause is Cause.MEMORY


IDLE = Idle(since=100.0, cpu_at_start=10.0)


def test_idle_plugin_may_use_what_one_operation_may() -> None:
    assert judge_idle(LIMITS, IDLE, 12.0, 101.0) is None
    excess = judge_idle(LIMITS, IDLE, 12.5, 101.0)
    assert excess == Excess(Step.END, Cause.CPU, "cpu", 2.0, 2.5, "seconds", BACKGROUND)


def test_idle_time_begins_anew() -> None:
    window = LIMITS.cpu_seconds / IDLE_SHARE
    assert not begin_anew(LIMITS, IDLE, 100.0 + window)
    assert begin_anew(LIMITS, IDLE, 100.0 + window + 0.1)
    assert judge_idle(LIMITS, IDLE, 99.0, 100.0 + window + 0.1) is None


@pytest.mark.parametrize("running", [None, RUNNING], ids=["idle", "working"])
def test_held_at_the_limit_of_its_group(running: Running | None) -> None:
    """The kernel's word counts, however small the resident size is that it has."""
    excess = judge(LIMITS, Facts(1, 1, at_memory_limit=True), running, 0.0)
    assert excess is not None
    assert (excess.step, excess.cause, excess.budget) == (Step.END, Cause.MEMORY, "memory")
    assert excess.used == excess.limit == LIMITS.memory_bytes


@pytest.mark.parametrize(("operation", "told"), [("predict", "predict"), ("", BACKGROUND)])
def test_cpu_time_of_a_whole_life(operation: str, told: str) -> None:
    """The kernel comes first: it ends a single process, and says so by itself."""
    limits = replace(LIMITS, cpu_total_seconds=10)
    assert judge_total(limits, 10.0, operation) is None
    assert judge_total(limits, 10.0 + KERNELS_TURN_SECONDS, operation) is None
    expected = Excess(Step.END, Cause.CPU, "cpu_total", 10, 12.0, "seconds", told)
    assert judge_total(limits, 12.0, operation) == expected

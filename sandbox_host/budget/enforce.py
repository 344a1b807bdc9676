"""Decides whether a plugin is over a budget, and what follows. Pure: facts in, verdict out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from sandbox_host.model import Cause

if TYPE_CHECKING:
    from sandbox_host.model import Limits, OperationLimits

IDLE_SHARE: Final = 0.1
"""What a plugin may use of one CPU while nothing was asked of it, in the long run."""

INTERRUPT_GRACE_SECONDS: Final = 0.25
"""How long an operation past its deadline has to end by itself before its plugin is ended."""


KERNELS_TURN_SECONDS: Final = 0.5
"""How far behind the kernel the host ends what has used up the CPU time of its whole life."""

BACKGROUND: Final = "background threads"


class Step(enum.Enum):
    """What the host does about an excess."""

    INTERRUPT = "interrupt"
    END = "end"


@dataclass(frozen=True, slots=True)
class Running:
    """The operation that the plugin is working on.

    Attributes:
        cpu_seconds: CPU time since it started.
        deadline: reading of the monotonic clock by which it must be finished.
        interrupted_at: the same when it was asked to end; 0.0 if it was not.
        cancelled: it was asked because nobody waits for it, not because it is late.
    """

    operation: str
    cpu_seconds: float
    started_at: float
    deadline: float
    interrupted_at: float = 0.0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel says of the process now.

    Attributes:
        at_memory_limit: its control group holds it until there is more memory, which there is not:
            the resident size need not have grown as far, for it leaves out what is shared.
    """

    resident_bytes: int
    threads: int
    at_memory_limit: bool = False


@dataclass(frozen=True, slots=True)
class Excess:
    """A budget that was exceeded: which, by how much, and what follows.

    Attributes:
        held: the kernel holds the process at its limit, rather than letting it go on.
    """

    step: Step
    cause: Cause
    budget: str
    limit: float
    used: float
    unit: str
    operation: str = ""
    held: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """The time since the plugin's last operation ended, or since this was last begun anew.

    Attributes:
        since: reading of the monotonic clock.
        cpu_at_start: the plugin's CPU clock then, in seconds.
    """

    since: float
    cpu_at_start: float


def judge_idle(limits: Limits, idle: Idle, cpu_seconds: float, now: float) -> Excess | None:
    """Return the excess of threads that go on while nothing is asked of the plugin, or None.

    They may use what one operation may, in a window ten times as long; see `begin_anew`.
    """
    used = cpu_seconds - idle.cpu_at_start
    if used <= limits.cpu_seconds or begin_anew(limits, idle, now):
        return None
    return Excess(Step.END, Cause.CPU, "cpu", limits.cpu_seconds, used, "seconds", BACKGROUND)


def judge_minute(limits: Limits, used: float, operation: str) -> Excess | None:
    """Return the excess of what was used in the last minute, or None.

    Args:
        limits: the budgets.
        used: CPU seconds in the last 60 of the clock on the wall.
        operation: what the plugin works on; "" for its background threads.
    """
    if used <= limits.cpu_seconds_per_minute:
        return None
    of = (limits.cpu_seconds_per_minute, used, "seconds", operation or BACKGROUND)
    return Excess(Step.END, Cause.CPU, "cpu_per_minute", *of)


def judge_total(limits: Limits, cpu_seconds: float, operation: str) -> Excess | None:
    """Return the excess of what was used in its whole life, or None.

    A single process the kernel has ended by then (RLIMIT_CPU); what several use only the host adds
    up.

    Args:
        limits: the budgets.
        cpu_seconds: the plugin's CPU clock.
        operation: what the plugin works on; "" for its background threads.
    """
    if cpu_seconds <= limits.cpu_total_seconds + KERNELS_TURN_SECONDS:
        return None
    of = (limits.cpu_total_seconds, cpu_seconds, "seconds", operation or BACKGROUND)
    return Excess(Step.END, Cause.CPU, "cpu_total", *of)


def tightened(limits: Limits, wanted: OperationLimits) -> Limits:
    """Return the limits of one operation: never above the plugin's own, nor what was wanted."""
    return replace(
        limits,
        **{
            field.name: min(getattr(limits, field.name), asked)
            for field in fields(wanted)
            if (asked := getattr(wanted, field.name)) is not None
        },
    )


def begin_anew(limits: Limits, idle: Idle, now: float) -> bool:
    """Tell whether the window of idle time is over, and a new one begins."""
    return now - idle.since > limits.cpu_seconds / IDLE_SHARE


def judge(
    limits: Limits, facts: Facts | None, running: Running | None, now: float
) -> Excess | None:
    """Return the gravest excess, or None.

    Args:
        limits: the budgets.
        facts: None when the process could not be sampled; its operation is judged all the same.
        running: the operation in progress, or None.
        now: reading of the monotonic clock, in seconds.
    """
    operation = running.operation if running else ""
    if facts is not None:
        bounded = (
            (Cause.MEMORY, "memory", limits.memory_bytes, facts.resident_bytes, "bytes"),
            (Cause.THREADS, "threads", limits.threads, facts.threads, "threads"),
        )
        for cause, budget, limit, used, unit in bounded:
            if used > limit:
                return Excess(Step.END, cause, budget, limit, used, unit, operation)
        if facts.at_memory_limit:
            held = limits.memory_bytes
            at_limit = (Step.END, Cause.MEMORY, "memory", held, held, "bytes", operation)
            return Excess(*at_limit, held=True)
    if running is None:
        return None
    if running.cpu_seconds > limits.cpu_seconds:
        cpu = (limits.cpu_seconds, running.cpu_seconds, "seconds", operation)
        return Excess(Step.END, Cause.CPU, "cpu", *cpu)
    return _late(running, now)


def _late(running: Running, now: float) -> Excess | None:
    if now < running.deadline:
        return None
    allowed, used = running.deadline - running.started_at, now - running.started_at
    wall = ("wall_time", allowed, used, "seconds", running.operation)
    if not running.interrupted_at:
        return Excess(Step.INTERRUPT, Cause.DEADLINE, *wall)
    if now - running.interrupted_at < INTERRUPT_GRACE_SECONDS:
        return None
    if running.cancelled:
        since = now - running.interrupted_at
        grace = ("grace", INTERRUPT_GRACE_SECONDS, since, "seconds", running.operation)
        return Excess(Step.END, Cause.CANCELLED, *grace)
    return Excess(Step.END, Cause.DEADLINE, *wall)

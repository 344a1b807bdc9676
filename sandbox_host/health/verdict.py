"""One pure decision: a plugin's own report and the host's facts in, a verdict out.

The plugin says "healthy", "warning" or "error" (document T); the host says healthy, degraded or
unhealthy (document A). The worst of all that is known counts.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sandbox_host.reading import describe, escaped, shown_bytes

MAX_MESSAGE_LENGTH: Final = 500
MAX_METRICS: Final = 32
MAX_METRIC_NAME_LENGTH: Final = 64
MAX_METRIC_TEXT_LENGTH: Final = 200
_REPORT_KEYS: Final = ("status", "message", "metrics")


class HealthStatus(enum.StrEnum):
    """Document A's three states, from best to worst."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


_BY_WORD: Final[Mapping[str, HealthStatus]] = {
    "healthy": HealthStatus.HEALTHY,
    "warning": HealthStatus.DEGRADED,
    "error": HealthStatus.UNHEALTHY,
}
_SEVERITY: Final = tuple(HealthStatus)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the host measured from outside.

    Attributes:
        memory_fraction: resident memory as a share of the budget.
        error_rate: failures per call in the window looked at, from 0 to 1.
        response_seconds: how long the health check took; None where there was no answer.
        memory_bytes: resident memory.
        cpu_fraction: CPU time per wall time in the window; 1.0 is one core.
        error_count: failures since the plugin was loaded.
        operation_seconds: how long its operations take; nearly all (p99) are quicker.
        queue_depth: calls that wait for their turn with it.
        queue_fraction: the same as a share of how many may.
        busy: it works on a call, and may; see `hysteresis.is_busy`. That it does not answer the
            health check then says nothing.
    """

    memory_fraction: float = 0.0
    error_rate: float = 0.0
    response_seconds: float | None = 0.0
    memory_bytes: int = 0
    cpu_fraction: float = 0.0
    error_count: int = 0
    operation_seconds: float = 0.0
    queue_depth: int = 0
    queue_fraction: float = 0.0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class HealthThresholds:
    """From which measured value on a plugin is degraded, or unhealthy.

    Attributes:
        degraded_memory: share of the memory budget.
        unhealthy_memory: the same; just below the budget, which ends the plugin itself.
        degraded_error_rate: failures per call.
        unhealthy_error_rate: the same.
        degraded_response_seconds: for the health check, which has nothing to do but answer.
        unhealthy_response_seconds: the same.
        degraded_queue: share of the calls that may wait. A full queue makes nothing worse than
            degraded: who calls too much would else bring a plugin down that only has much to do.
        degraded_memory_bytes: document A's max_memory_usage. It, and the two below, are looked at
            where they are set, and make nothing worse than degraded either.
        degraded_cpu: document A's max_cpu_usage, as a share of one core.
        degraded_operation_seconds: document A's max_operation_time.
    """

    degraded_memory: float = 0.80
    unhealthy_memory: float = 0.95
    degraded_error_rate: float = 0.05
    unhealthy_error_rate: float = 0.50
    degraded_response_seconds: float = 1.0
    unhealthy_response_seconds: float = 5.0
    degraded_queue: float = 0.80
    degraded_memory_bytes: float = math.inf
    degraded_cpu: float = math.inf
    degraded_operation_seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a plugin is doing.

    Attributes:
        status: the worst of its own word and of every fact.
        message: why, on one line of printable text.
        metrics: document A's memory_usage (bytes), cpu_usage (per cent of a core), response_time
            (milliseconds, None without an answer) and error_count; and queue_depth.
        busy: it did not answer, because it works: what it would say is not known.
        reported: the plugin's own metrics, bounded and cleaned; its word, not the host's.
    """

    status: HealthStatus
    message: str
    metrics: Mapping[str, int | float | None]
    reported: Mapping[str, int | float | str | bool] = field(
        default_factory=lambda: MappingProxyType({})
    )
    busy: bool = False


_Finding = tuple[HealthStatus, str]


def _malformed(problem: str) -> _Finding:
    return HealthStatus.UNHEALTHY, f"its health report is malformed: {problem}"


def _own_word(report: Any) -> _Finding:
    """Return what the plugin says about itself; a report that is none says it is unhealthy."""
    if not isinstance(report, dict):
        return _malformed(f"expected an object, got {describe(report)}")
    for key in report:
        if not isinstance(key, str) or key not in _REPORT_KEYS:
            return _malformed(f"unknown key {describe(key)}")
    word, message = report.get("status"), report.get("message", "")
    if not isinstance(word, str) or word not in _BY_WORD:
        known = ", ".join(f'"{one}"' for one in _BY_WORD)
        return _malformed(f"status: expected one of {known}, got {describe(word)}")
    if not isinstance(message, str):
        return _malformed(f"message: expected text, got {describe(message)}")
    if problem := _metrics_problem(report.get("metrics", {})):
        return _malformed(f"metrics{problem}")
    said = escaped(message, MAX_MESSAGE_LENGTH)
    return _BY_WORD[word], f'it reports "{word}"' + (f": {said}" if said else "")


def _metrics_problem(metrics: Any) -> str:
    if not isinstance(metrics, dict):
        return f": expected an object, got {describe(metrics)}"
    if len(metrics) > MAX_METRICS:
        return f": expected at most {MAX_METRICS} entries, got {len(metrics)}"
    for name, value in metrics.items():
        if not isinstance(name, str) or len(name) > MAX_METRIC_NAME_LENGTH:
            return f": expected a name of at most {MAX_METRIC_NAME_LENGTH} characters as key"
        if not isinstance(value, bool | int | float | str):
            return f".{escaped(name, 64)}: expected a number, text or bool, got {describe(value)}"
        if isinstance(value, float) and not math.isfinite(value):
            return f".{escaped(name, 64)}: expected a finite number, got {value}"
    return ""


def _clean_metrics(metrics: dict[str, Any]) -> Mapping[str, int | float | str | bool]:
    return MappingProxyType(
        {
            escaped(name, MAX_METRIC_NAME_LENGTH): (
                escaped(value, MAX_METRIC_TEXT_LENGTH) if isinstance(value, str) else value
            )
            for name, value in metrics.items()
        }
    )


def _above(value: float, degraded: float, unhealthy: float, text: str) -> Iterator[_Finding]:
    if value >= unhealthy:
        yield HealthStatus.UNHEALTHY, text
    elif value >= degraded:
        yield HealthStatus.DEGRADED, text


def _measured(facts: Facts, limits: HealthThresholds) -> Iterator[_Finding]:
    yield from _above(
        facts.memory_fraction,
        limits.degraded_memory,
        limits.unhealthy_memory,
        f"it uses {facts.memory_fraction:.0%} of its memory budget",
    )
    yield from _above(
        facts.error_rate,
        limits.degraded_error_rate,
        limits.unhealthy_error_rate,
        f"{facts.error_rate:.0%} of its calls fail",
    )
    yield from _above(
        facts.queue_fraction,
        limits.degraded_queue,
        math.inf,
        f"{facts.queue_depth} calls wait for it, {facts.queue_fraction:.0%} of those that may",
    )
    yield from _above(
        facts.memory_bytes,
        limits.degraded_memory_bytes,
        math.inf,
        f"it uses {shown_bytes(facts.memory_bytes)} of memory",
    )
    yield from _above(
        facts.cpu_fraction, limits.degraded_cpu, math.inf, f"it uses {facts.cpu_fraction:.0%} CPU"
    )
    yield from _above(
        facts.operation_seconds,
        limits.degraded_operation_seconds,
        math.inf,
        f"its operations take up to {facts.operation_seconds:.1f} s",
    )
    yield from _answered(facts, limits)


def _answered(facts: Facts, limits: HealthThresholds) -> Iterator[_Finding]:
    if facts.response_seconds is None and facts.busy:
        yield HealthStatus.HEALTHY, "it works, and did not answer the health check for that"
    elif facts.response_seconds is None:
        yield HealthStatus.UNHEALTHY, "it did not answer the health check"
    else:
        yield from _above(
            facts.response_seconds,
            limits.degraded_response_seconds,
            limits.unhealthy_response_seconds,
            f"it took {facts.response_seconds:.1f} s to answer the health check",
        )


def verdict(report: Any, facts: Facts, thresholds: HealthThresholds | None = None) -> Verdict:
    """Return how a plugin is doing.

    Args:
        report: what its ``health_check()`` returned, as it came over the wire; None where the
            plugin has none, and then the facts alone count.
        facts: what the host measured.
        thresholds: None for the defaults.
    """
    findings = list(_measured(facts, thresholds or HealthThresholds()))
    reported: Mapping[str, int | float | str | bool] = MappingProxyType({})
    if report is not None:
        word = _own_word(report)
        findings.insert(0, word)
        if isinstance(report, dict) and not _metrics_problem(report.get("metrics", {})):
            reported = _clean_metrics(report.get("metrics", {}))
    worst = max((status for status, _ in findings), key=_SEVERITY.index, default=_SEVERITY[0])
    told = [text for status, text in findings if status is not HealthStatus.HEALTHY]
    response = facts.response_seconds
    return Verdict(
        status=worst,
        message="; ".join(told or [text for _, text in findings]) or "nothing is wrong with it",
        metrics=MappingProxyType(
            {
                "memory_usage": facts.memory_bytes,
                "cpu_usage": facts.cpu_fraction * 100,
                "response_time": None if response is None else response * 1_000,
                "error_count": facts.error_count,
                "queue_depth": facts.queue_depth,
            }
        ),
        reported=reported,
        busy=facts.busy and response is None,
    )

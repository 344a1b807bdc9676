"""What the host sees of one plugin from outside, from one look to the next."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from sandbox_host.health.hysteresis import is_busy
from sandbox_host.health.verdict import Facts, HealthThresholds
from sandbox_host.model import MIB
from sandbox_host.observe.metrics import LatencyHistogram
from sandbox_host.runtime.healthcheck import HEALTH_CHECK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.config import HostConfig
    from sandbox_host.observe.metrics import OperationMetrics
    from sandbox_host.runtime.healthcheck import Work
    from sandbox_host.runtime.process import PluginProcess

WINDOW_LOOKS: Final = 5
"""Over so many looks failures are counted."""

FEW_CALLS: Final = 5
"""Of fewer calls in that time no rate is told: one failure of one call is chance."""

_PER_SECOND: Final = 1_000
_PER_CENT: Final = 100


def thresholds_of(config: HostConfig) -> HealthThresholds:
    """Return from which measured values on a plugin is degraded or unhealthy."""
    set_by_operator = config.performance_thresholds
    time = set_by_operator.max_operation_time if config.enable_profiling else None
    memory, cpu = set_by_operator.max_memory_usage, set_by_operator.max_cpu_usage
    return HealthThresholds(
        degraded_memory_bytes=math.inf if memory is None else memory,
        degraded_cpu=math.inf if cpu is None else cpu / _PER_CENT,
        degraded_operation_seconds=math.inf if time is None else time / _PER_SECOND,
    )


class Observer:
    """Of one process. Used from one thread.

    Args:
        process: the plugin's.
        now: reading of the monotonic clock.
    """

    def __init__(self, process: PluginProcess, now: float) -> None:
        self._process = process
        self._at = now
        self._cpu = process.cpu_seconds()
        self._moved_from = self._cpu
        self._resident = -1
        self._calls = self._failures = 0
        self._window: deque[tuple[int, int]] = deque(maxlen=WINDOW_LOOKS)
        self._latency: LatencyHistogram | None = None

    def asked(self) -> None:
        """It has been asked how it is: what its CPU clock moves from now on, it works."""
        self._moved_from = self._process.cpu_seconds()

    def busy(self, work: Work, now: float) -> bool:
        """Tell whether it works, although it does not answer; see `hysteresis.is_busy`.

        What its CPU clock moved counts from the last look, or from when it was asked.
        """
        cpu = self._process.cpu_seconds()
        moved, self._moved_from = cpu - self._moved_from, cpu
        return is_busy(
            deadline=work.deadline, now=now, cpu_moved_seconds=moved, waits_for_host=work.waits
        )

    def look(
        self,
        now: float,
        work: Work,
        *,
        response: float | None,
        busy: bool,
        timed: bool,
    ) -> Facts:
        """Return what was measured since the last look.

        A plugin that has not run since takes no memory anew: it costs one read of its clock.

        Args:
            now: reading of the monotonic clock.
            work: what it works on.
            response: seconds that it took to answer; None where it did not.
            busy: see `busy`.
            timed: how long operations take is wanted.
        """
        process = self._process
        cpu, passed = process.cpu_seconds(), max(1e-3, now - self._at)
        used, self._cpu, self._at = max(0.0, cpu - self._cpu), cpu, now
        if used or self._resident < 0:
            self._resident = process.resident_bytes()
        operations = process.ledger.operations()
        others = [metrics for name, metrics in operations.items() if name != HEALTH_CHECK]
        rate = self._error_rate(others)
        return Facts(
            memory_fraction=self._resident / max(MIB, process.plan.limits.memory_bytes),
            error_rate=rate,
            response_seconds=response,
            memory_bytes=self._resident,
            cpu_fraction=used / passed,
            error_count=sum(metrics.failures for metrics in operations.values()),
            operation_seconds=self._operation_seconds(others) if timed else 0.0,
            queue_depth=work.waiting,
            queue_fraction=work.waiting / process.max_outstanding,
            busy=busy,
        )

    def _error_rate(self, operations: Iterable[OperationMetrics]) -> float:
        # Who sends another plugin what it cannot take must not have that one called unhealthy.
        calls, failures = 0, -self._process.ledger.excused
        for metrics in operations:
            calls, failures = calls + metrics.count, failures + metrics.failures
        self._window.append((calls - self._calls, failures - self._failures))
        self._calls, self._failures = calls, failures
        seen = sum(calls for calls, _ in self._window)
        failed = max(0, sum(failed for _, failed in self._window))
        return failed / seen if seen >= FEW_CALLS else 0.0

    def _operation_seconds(self, operations: Iterable[OperationMetrics]) -> float:
        """Return what nearly all operations took since the last look; 0.0 where none ended."""
        total = LatencyHistogram()
        for metrics in operations:
            total.add(metrics.latency)
        earlier, self._latency = self._latency, total
        recent = total if earlier is None else total.since(earlier)
        return recent.quantile(0.99) if recent.count > 0 else 0.0

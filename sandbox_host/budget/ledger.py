"""Adds up what one plugin costs: by operation and in all. Pure; the clock is the caller's."""

from __future__ import annotations

import threading
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.model import CallUsage, OperationUsage, Usage
from sandbox_host.observe.metrics import LatencyHistogram, OperationMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping


_MAX_UNSETTLED: Final = 256
"""So many answered calls are noted before one of them waits until all are entered."""


class Ledger:
    """One plugin's account. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._unsettled: deque[tuple[str, CallUsage, bool]] = deque()
        self._lock = threading.Lock()
        self._operations: dict[str, OperationMetrics] = {}
        self._cpu_seconds = 0.0
        self._memory_peak_bytes = 0
        self._descriptors_peak = 0
        self._threads_peak = 0
        self._failures = 0
        self._excused = 0

    def sampled(self, *, cpu: float, resident_peak: int, descriptors: int, threads: int) -> None:
        """Take a look at the process: peaks grow, the CPU clock moves on."""
        with self._lock:
            self._cpu_seconds = max(self._cpu_seconds, cpu)
            self._memory_peak_bytes = max(self._memory_peak_bytes, resident_peak)
            self._descriptors_peak = max(self._descriptors_peak, descriptors)
            self._threads_peak = max(self._threads_peak, threads)

    def answered(self, operation: str, cost: CallUsage, *, failed: bool) -> None:
        """Take an answered call, measured from sending to receiving; see `settle`."""
        self._unsettled.append((operation, cost, failed))
        if len(self._unsettled) >= _MAX_UNSETTLED:
            self.settle()

    def excuse(self) -> None:
        """Take one of the failures as perhaps somebody else's fault."""
        with self._lock:
            self._excused += 1

    @property
    def excused(self) -> int:
        """So many of the failures may be somebody else's fault."""
        return self._excused

    def settle(self) -> None:
        """Enter what was taken; whoever reads the account has that done, and who has the time."""
        if self._unsettled:
            with self._lock:
                self._settle()

    def _settle(self) -> None:
        unsettled = self._unsettled
        while unsettled:
            operation, cost, failed = unsettled.popleft()
            metrics = self._operations.get(operation)
            if metrics is None:
                metrics = self._operations[operation] = OperationMetrics()
            metrics.record(
                cost.wall_seconds,
                failed=failed,
                cpu=cost.cpu_seconds,
                bytes_out=cost.bytes_out,
                bytes_in=cost.bytes_in,
            )
            self._failures += failed

    def operations(self) -> Mapping[str, OperationMetrics]:
        """Return the account by operation."""
        with self._lock:
            self._settle()
            return dict(self._operations)

    def usage(
        self,
        *,
        bytes_in: int,
        bytes_out: int,
        held_back: float = 0.0,
        connections: int = 0,
        network: tuple[int, int] = (0, 0),
    ) -> Usage:
        """Return the sums so far, with those that are counted elsewhere; ``network`` sent first."""
        with self._lock:
            self._settle()
            latency = LatencyHistogram()
            for metrics in self._operations.values():
                latency.add(metrics.latency)
            return Usage(
                cpu_seconds=self._cpu_seconds,
                memory_peak_bytes=self._memory_peak_bytes,
                descriptors_peak=self._descriptors_peak,
                threads_peak=self._threads_peak,
                calls=latency.count,
                failures=self._failures,
                p50_seconds=latency.quantile(0.5),
                p99_seconds=latency.quantile(0.99),
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                held_back_seconds=held_back,
                connections=connections,
                network_bytes_sent=network[0],
                network_bytes_received=network[1],
                operations=MappingProxyType(
                    {name: _summed(metrics) for name, metrics in self._operations.items()}
                ),
            )


def _summed(metrics: OperationMetrics) -> OperationUsage:
    return OperationUsage(
        calls=metrics.count,
        failures=metrics.failures,
        cpu_seconds=metrics.cpu_seconds,
        wall_seconds=metrics.total_seconds,
        bytes_out=metrics.bytes_out,
        bytes_in=metrics.bytes_in,
    )

"""Counters of operations in bounded memory: how often, how long, how often in vain.

Not locked: whoever records for one plugin does so from one thread, or under its own lock.
"""

from __future__ import annotations

import math
import operator
from typing import Final

_SMALLEST_SECONDS: Final = 1e-6
_BUCKETS_PER_DECADE: Final = 24
_DECADES: Final = 10
_BUCKETS: Final = _DECADES * _BUCKETS_PER_DECADE + 1


class LatencyHistogram:
    """Durations from a microsecond to some hours, in buckets that grow by 10 per cent.

    A quantile is off by at most half a bucket (five per cent), whatever the number of samples;
    what is shorter or longer is counted in the first or last bucket.
    """

    __slots__ = ("_buckets", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self.count = 0
        self.minimum = math.inf
        self.maximum = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one (a clock that was set back) counts as none."""
        index = 0
        if seconds > _SMALLEST_SECONDS:
            index = math.ceil(math.log10(seconds / _SMALLEST_SECONDS) * _BUCKETS_PER_DECADE)
            if index >= _BUCKETS:
                index = _BUCKETS - 1
        elif seconds < 0.0:
            seconds = 0.0
        self._buckets[index] += 1
        self.count += 1
        self.minimum = min(self.minimum, seconds)
        self.maximum = max(self.maximum, seconds)

    def add(self, other: LatencyHistogram) -> None:
        """Count what another one has counted."""
        self._buckets = list(map(operator.add, self._buckets, other._buckets))
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """Return what was counted since an earlier state of the same one; its ends are rough."""
        later = LatencyHistogram()
        later._buckets = list(map(operator.sub, self._buckets, earlier._buckets))
        later.count = self.count - earlier.count
        later.minimum, later.maximum = self.minimum, self.maximum
        return later

    def quantile(self, q: float) -> float:
        """Return the duration in seconds that a share `q` of all does not exceed; 0.0 if empty.

        Raises:
            ValueError: `q` is not from 0 to 1.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is from 0 to 1, not {q}")
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(q * self.count))
        seen = 0
        for index, number in enumerate(self._buckets):
            seen += number
            if seen >= rank:
                middle = _SMALLEST_SECONDS * 10 ** ((index - 0.5) / _BUCKETS_PER_DECADE)
                return min(max(middle, self.minimum), self.maximum)
        return self.maximum


class OperationMetrics:
    """One operation's calls, with the names of document A's profiler.

    Attributes:
        count: calls that ended, well or not.
        failures: those of them that ended with an error.
        total_seconds: time of all of them.
        cpu_seconds: CPU time of all of them.
        cpu_peak_seconds: that of the one that took most.
        bytes_out, bytes_in: their payloads, packed.
        latency: their distribution.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "count",
        "cpu_peak_seconds",
        "cpu_seconds",
        "failures",
        "latency",
        "total_seconds",
    )

    def __init__(self) -> None:
        self.count = 0
        self.failures = 0
        self.total_seconds = 0.0
        self.cpu_seconds = 0.0
        self.cpu_peak_seconds = 0.0
        self.bytes_out = 0
        self.bytes_in = 0
        self.latency = LatencyHistogram()

    def record(
        self,
        seconds: float,
        *,
        failed: bool = False,
        cpu: float = 0.0,
        bytes_out: int = 0,
        bytes_in: int = 0,
    ) -> None:
        """Count one call that took `seconds`."""
        self.count += 1
        if cpu > 0.0:
            self.cpu_seconds += cpu
            self.cpu_peak_seconds = max(self.cpu_peak_seconds, cpu)
        self.bytes_out += bytes_out
        self.bytes_in += bytes_in
        self.failures += failed
        if seconds > 0.0:
            self.total_seconds += seconds
        self.latency.record(seconds)

    @property
    def min_seconds(self) -> float:
        """The shortest call; 0.0 where there was none."""
        return self.latency.minimum if self.count else 0.0

    @property
    def max_seconds(self) -> float:
        """The longest call; 0.0 where there was none."""
        return self.latency.maximum

    @property
    def avg_seconds(self) -> float:
        """The mean; 0.0 where there was no call."""
        return self.total_seconds / self.count if self.count else 0.0

    @property
    def error_rate(self) -> float:
        """Failures per call, from 0 to 1."""
        return self.failures / self.count if self.count else 0.0

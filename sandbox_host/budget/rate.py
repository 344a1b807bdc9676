"""How much a plugin may say in a second: beyond it, it is not read until its time has come.

Pure; the clock is the caller's. A plugin that floods then waits at its own full pipe: it pays, not
the threads that read for everybody, and nothing that it said is lost.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sandbox_host.model import Limits

MESSAGE_BURST_SECONDS: Final = 1.0
"""As many messages as in this time may come at once after a quiet one."""

LOG_BURST_SECONDS: Final = 16.0
"""The same of what is printed: a long report at once is no flood."""


class Bucket:
    """A token bucket that may be overdrawn once, and then says how long to wait.

    Args:
        rate: what may be taken in a second, in the long run.
        burst: how much may be taken at once after a quiet time.

    Attributes:
        held_seconds: for how long, all in all, nothing might be taken.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens", "held_seconds")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0
        self.held_seconds = 0.0

    def take(self, cost: float, now: float) -> None:
        """Note that this much came at ``now`` (monotonic seconds), whether it might or not."""
        earned = max(0.0, now - self._at) * self._rate
        before = min(self._burst, self._tokens + earned)
        self._tokens = before - cost
        self._at = now
        overdrawn = max(0.0, -self._tokens) - max(0.0, -before)
        self.held_seconds += max(0.0, overdrawn) / self._rate

    def left(self, now: float) -> float:
        """Return how much may be taken now; negative where it was overdrawn."""
        return min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing should be taken; 0.0 if it may."""
        if self._tokens >= 0:
            return 0.0
        return max(0.0, self._at - self._tokens / self._rate - now)


class Sayings:
    """How often something may be told of a plugin, which it can bring about as often as it likes.

    What is not told is counted, and costs nothing. Methods may be called from any thread.

    Args:
        rate: so many in a second, in the long run.
        burst: so many at once after a quiet time.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._bucket = Bucket(rate, burst)
        self._lock = threading.Lock()
        self._untold = 0

    def untold(self, count: int) -> None:
        """Count what was not told for another reason."""
        with self._lock:
            self._untold += count

    def told(self, text: str, now: float) -> str:
        """Return the text, with how many were not told before it; "" where it is not to be told."""
        with self._lock:
            if self._bucket.left(now) < 1:
                self._untold += 1
                return ""
            self._bucket.take(1, now)
            untold, self._untold = self._untold, 0
        return f"{text} ({untold} more before this were not written down)" if untold else text


class MessageRate:
    """What a plugin may say unasked: messages, and the bytes of their payloads.

    Args:
        limits: ``messages_per_second`` and ``message_bytes_per_second`` of them.

    Attributes:
        pressed: `wait` may be more than 0.0; looked at before each read of the pipe.
        held_seconds: for how long, all in all, the plugin was not read.
    """

    def __init__(self, limits: Limits) -> None:
        self._messages = _bucket(limits.messages_per_second, MESSAGE_BURST_SECONDS)
        self._bytes = _bucket(limits.message_bytes_per_second, MESSAGE_BURST_SECONDS)
        self.pressed = False
        self.held_seconds = 0.0

    def take(self, count: int, size: int, now: float) -> None:
        """Note that ``count`` messages of ``size`` bytes together came at ``now``."""
        self._messages.take(count, now)
        self._bytes.take(size, now)
        self.held_seconds = max(self._messages.held_seconds, self._bytes.held_seconds)
        self.pressed = self.wait(now) > 0

    def wait(self, now: float) -> float:
        """Return for how many seconds the plugin should not be read; 0.0 if it may."""
        return max(self._messages.wait(now), self._bytes.wait(now))


def log_rate(limits: Limits) -> Bucket:
    """Return the bucket for what a plugin prints, in bytes."""
    return _bucket(limits.log_bytes_per_second, LOG_BURST_SECONDS)


def _bucket(per_second: float, burst_seconds: float) -> Bucket:
    return Bucket(per_second, per_second * burst_seconds)

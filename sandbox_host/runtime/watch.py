"""Looks at one plugin, again and again, and says what is wrong with it. Acting is its process's.

The keeper calls `look`; facts come from the child, verdicts from `budget.enforce`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.enforce import Excess, Facts, Idle, Running, begin_anew, judge, judge_idle

if TYPE_CHECKING:
    from sandbox_host.backends.base import Child
    from sandbox_host.budget.ledger import Ledger
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import Limits

MAX_BLIND_LOOKS: Final = 3
MAX_BLIND_SECONDS: Final = 0.5
"""A process that has ended cannot be looked at until its end is told: this often, and this long.

Its parent, which tells of it, may have others to serve on a machine that is busy.
"""


class Watch:
    """The watchdog's memory of one plugin.

    Args:
        child: the process.
        limits: its budgets.
        ledger: where peaks are written down.
    """

    def __init__(self, child: Child, limits: Limits, ledger: Ledger) -> None:
        self._child = child
        self._limits = limits
        self._ledger = ledger
        self._blind = 0
        self._blind_for = 0.0
        self._seen_at = time.monotonic()
        self._idle: Idle | None = None

    @property
    def blind(self) -> bool:
        """The last look saw nothing: it has ended, or hides."""
        return self._blind > 0

    @property
    def hidden(self) -> bool:
        """The process lives, and cannot be looked at: its main thread left while others go on.

        The kernel shows such a process as dead, without memory or threads, so that it would run
        on without a budget.
        """
        return self._blind > MAX_BLIND_LOOKS and self._blind_for > MAX_BLIND_SECONDS

    def start(self, pending: Pending) -> None:
        """Start the clocks of the operation that the plugin works on now."""
        pending.cpu_at_start = self._child.cpu_seconds()
        pending.started_at = time.monotonic()
        if pending.is_delivery:
            pending.sent_at = pending.started_at
            pending.deadline = pending.started_at + self._limits.wall_seconds
        self._idle = None

    def sample(self) -> Facts | None:
        """Look at the process and write down its peaks; None if it cannot be looked at."""
        sample = self._child.sample()
        if sample is None:
            return None
        self._ledger.sampled(
            cpu=sample.cpu_seconds,
            resident_peak=sample.resident_peak_bytes,
            descriptors=sample.descriptors,
            threads=sample.threads,
        )
        return Facts(sample.resident_bytes, sample.threads)

    def look(self, oldest: Pending | None, now: float) -> Excess | None:
        """Return the gravest excess, or None.

        Args:
            oldest: what the plugin works on, or None.
            now: reading of the monotonic clock.
        """
        facts = self.sample()
        if facts is not None:
            self._blind, self._blind_for, self._seen_at = 0, 0.0, now
        else:
            self._blind, self._blind_for = self._blind + 1, now - self._seen_at
        running = self._running(oldest) if oldest is not None else None
        return judge(self._limits, facts, running, now) or self._look_idle(oldest, now)

    def _running(self, oldest: Pending) -> Running:
        if not oldest.started_at:
            # Sent this very moment, and its sender has not come to start its clocks: without them,
            # it would be billed for the plugin's whole life.
            self.start(oldest)
        started_at, deadline = oldest.sent_at, oldest.deadline
        if oldest.is_delivery:
            # Nobody waits for it, and its handlers are not to blame for what stood before them.
            started_at = oldest.started_at or time.monotonic()
            deadline = started_at + self._limits.wall_seconds
        return Running(
            operation=oldest.operation,
            cpu_seconds=self._child.cpu_seconds() - oldest.cpu_at_start,
            started_at=started_at,
            deadline=deadline,
            interrupted_at=oldest.interrupted_at,
        )

    def _look_idle(self, oldest: Pending | None, now: float) -> Excess | None:
        if oldest is not None:
            return None
        cpu = self._child.cpu_seconds()
        idle = self._idle  # read once: a caller's thread that starts an operation forgets it
        if idle is None or begin_anew(self._limits, idle, now):
            idle = self._idle = Idle(now, cpu)
        return judge_idle(self._limits, idle, cpu, now)

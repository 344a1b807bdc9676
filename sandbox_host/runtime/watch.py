"""Looks at one plugin, again and again, and says what is wrong with it. Acting is its process's.

The keeper calls `look`; facts come from the child, verdicts from `budget.enforce`. A look costs
what is due: the plugin's CPU clock each time, and the rest (memory, threads, descriptors: a hundred
times as much) only where that clock has moved. A process that has not run has taken nothing. Of a
plugin that may start processes, clock and sums are its control group's, of all of them together.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.enforce import (
    Excess,
    Facts,
    Idle,
    Running,
    begin_anew,
    judge,
    judge_idle,
    judge_minute,
    judge_total,
)
from sandbox_host.budget.window import CpuWindow
from sandbox_host.ipc.channel import SESSION_ID
from sandbox_host.observe.curve import Curve
from sandbox_host.runtime.healthcheck import HEALTH_CHECK
from sandbox_host.runtime.rest import Rest

if TYPE_CHECKING:
    from collections.abc import Sized

    from sandbox_host.backends.base import Child
    from sandbox_host.budget.ledger import Ledger
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import CallUsage, Limits

IDLE_SECONDS: Final = 0.05
"""Pace of the looks while nothing is asked: threads that a plugin left running are judged at it."""

CORES: Final = os.cpu_count() or 1
"""So many seconds of CPU time may pass in one of the clock on the wall."""

MAX_BLIND_LOOKS: Final = 3
MAX_BLIND_SECONDS: Final = 0.5
"""A process that has ended cannot be looked at until its end is told: this often, and this long.

Its parent, which tells of it, may have others to serve on a machine that is busy.
"""

LONG_SECONDS: Final = 0.02
"""Of CPU time: what takes so long need not answer at once, and gives way to what does."""

_SOONEST_SECONDS: Final = 0.001
STILL_SECONDS: Final = 30.0
"""So long a look at the CPU clock alone is enough for a process that does not run.

What it holds (memory, threads, descriptors) changes by system calls and page faults of its own.
"""


class Watch:
    """The watchdog's memory of one plugin.

    Args:
        child: the process.
        limits: its budgets.
        ledger: where peaks are written down.
        sweep_seconds: pace of the looks while it works.

    Attributes:
        curve: what was seen at each look, by the monotonic clock.
    """

    def __init__(self, child: Child, limits: Limits, ledger: Ledger, sweep_seconds: float) -> None:
        self._child = child
        self._limits = limits
        self._ledger = ledger
        self._sweep_seconds = sweep_seconds
        self.curve = Curve()
        self._blind = 0
        self._blind_for = 0.0
        self._gives_way = False
        self._giving_way = threading.Lock()
        self._seen_at = time.monotonic()
        self._sampled_at = -STILL_SECONDS
        self._sampled_cpu = -1.0
        self._cpu = 0.0
        self._idle: Idle | None = None
        self._minute = CpuWindow()
        self._minute_used = 0.0

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

    def start(self, pending: Pending) -> bool:
        """Start the clocks of the operation that the plugin works on now.

        Returns:
            Whether one of its budgets may be used up before the next look at an idle plugin.
        """
        if self._gives_way:
            self._give_way(False)
        pending.cpu_at_start = self._child.cpu_seconds()
        pending.started_at = time.monotonic()
        limits = pending.limits or self._limits
        if pending.is_delivery:
            pending.sent_at = pending.waiting_since = pending.started_at
            pending.deadline = pending.started_at + limits.wall_seconds
        # The host asks for its health by a clock of its own: that is no operation between which
        # threads that run on could begin anew.
        if not pending.is_delivery and pending.operation != HEALTH_CHECK:
            self._idle = None
        wall = pending.deadline - pending.started_at
        return min(wall, limits.cpu_seconds / CORES) < 2 * IDLE_SECONDS

    def handled(self, cost: CallUsage) -> None:
        """Take from the idle time what an event's handlers used, as each had a budget of its own.

        Events do not begin that time anew: a plugin may send them to itself.
        """
        idle = self._idle
        if idle is not None:
            self._idle = Idle(idle.since, idle.cpu_at_start + cost.cpu_seconds)

    def forget(self) -> None:
        """Let go of what it remembers of a process that is gone."""
        self.curve = Curve()
        self._minute = CpuWindow()

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
        self.curve.add(
            time.monotonic(),
            sample.cpu_seconds,
            sample.resident_bytes,
            sample.threads,
            sample.descriptors,
        )
        return Facts(sample.resident_bytes, sample.threads, sample.at_memory_limit)

    def look(self, oldest: Pending | None, now: float) -> Excess | None:
        """Return the gravest excess, or None.

        Args:
            oldest: what the plugin works on, or None.
            now: reading of the monotonic clock.
        """
        cpu = self._cpu = self._child.cpu_seconds()
        facts = self._sample_if_due(cpu, now)
        self._minute_used = self._minute.used(cpu, now)
        if not self._gives_way and self._is_long(oldest, cpu):
            self._give_way(True)
        if oldest is not None:
            limits, running = oldest.limits or self._limits, self._running(oldest, cpu)
            excess = judge(limits, facts, running, now)
        else:
            excess = judge(self._limits, facts, None, now) or self._look_idle(cpu, now)
        operation = oldest.operation if oldest else ""
        excess = excess or judge_minute(self._limits, self._minute_used, operation)
        return excess or judge_total(self._limits, cpu, operation)

    def _give_way(self, on: bool) -> None:
        # A caller's thread takes back what the keeper gives: crossed, it would never be taken back.
        with self._giving_way:
            if self._gives_way is not on:
                self._gives_way = on
                self._child.give_way(on)

    def _is_long(self, oldest: Pending | None, cpu: float) -> bool:
        """Tell whether it has been at one piece of work for so long that others come first."""
        if oldest is not None:
            begun = oldest.id != SESSION_ID and oldest.started_at > 0.0
            return begun and cpu - oldest.cpu_at_start >= LONG_SECONDS
        return self._idle is not None and cpu - self._idle.cpu_at_start >= LONG_SECONDS

    def rests(self, now: float, asked: Sized) -> Rest | None:
        """Return how to tell that a look would see what the last one saw, or None.

        Args:
            now: reading of the monotonic clock.
            asked: what the plugin has not answered: nothing, for as long as it rests.
        """
        cpu, clock, until = self._sampled_cpu, self._child.clock, self._sampled_at + STILL_SECONDS
        if clock is None or asked or self._blind or self._idle is None or now >= until:
            return None
        if self._cpu != cpu or self._child.cpu_seconds() != cpu:
            return None
        return Rest(clock, cpu, asked, until)

    def judge_call(self, pending: Pending, now: float) -> Excess | None:
        """Return the excess of one more call that is at work beside the oldest, or None.

        By the CPU clock as it was at the last look.
        """
        limits = pending.limits or self._limits
        return judge(limits, None, self._running(pending, self._cpu), now)

    def pause(self, oldest: Pending | None, now: float) -> float:
        """Return in how many seconds to look again: before anything can be far over its budget.

        Args:
            oldest: what the plugin works on, or None.
            now: reading of the monotonic clock, that of the last look.
        """
        pause, limits, began = IDLE_SECONDS, self._limits, self._idle
        used = 0.0 if began is None else self._cpu - began.cpu_at_start
        if oldest is not None:
            limits = oldest.limits or limits
            pause = min(self._sweep_seconds, oldest.deadline - now)
            used = self._cpu - oldest.cpu_at_start
        left = min(limits.cpu_seconds - used, limits.cpu_seconds_per_minute - self._minute_used)
        # No sooner than it takes to be over by what is tolerated: one may sleep at the brink.
        tolerated = max(0.05, 0.1 * limits.cpu_seconds)
        return max(_SOONEST_SECONDS, min(pause, max(left, 0.25 * tolerated) / CORES))

    def _sample_if_due(self, cpu: float, now: float) -> Facts | None:
        since = now - self._sampled_at
        # Looks that are only for the clock come sooner than a sweep; a tenth is for its own delay.
        soon = since < 0.9 * self._sweep_seconds
        still = cpu == self._sampled_cpu and since < STILL_SECONDS
        if not self._blind and (soon or still):
            return None
        self._sampled_at, self._sampled_cpu = now, cpu
        facts = self.sample()
        if facts is not None:
            self._blind, self._blind_for, self._seen_at = 0, 0.0, now
        else:
            self._blind, self._blind_for = self._blind + 1, now - self._seen_at
        return facts

    def _running(self, oldest: Pending, cpu: float) -> Running:
        if not oldest.started_at:
            # Sent this very moment, and its sender has not come to start its clocks: without them,
            # it would be billed for the plugin's whole life.
            self.start(oldest)
        started_at, deadline = oldest.waiting_since, oldest.deadline
        if oldest.is_delivery:
            # Nobody waits for it, and its handlers are not to blame for what stood before them.
            started_at = oldest.started_at or time.monotonic()
            deadline = started_at + self._limits.wall_seconds
        return Running(
            operation=oldest.operation,
            cpu_seconds=max(0.0, cpu - oldest.cpu_at_start),
            started_at=started_at,
            deadline=deadline,
            interrupted_at=oldest.interrupted_at,
            cancelled=oldest.cancelled,
        )

    def _look_idle(self, cpu: float, now: float) -> Excess | None:
        idle = self._idle  # read once: a caller's thread that starts an operation forgets it
        if idle is None or begin_anew(self._limits, idle, now):
            idle = self._idle = Idle(now, cpu)
        return judge_idle(self._limits, idle, cpu, now)

"""Which calls a plugin works on now, and what each of them costs.

A plugin works on its oldest unanswered messages: one at a time, or as many calls as its
``concurrency`` says beside one event. Its process has one CPU clock. What passes on it while
several are at work is shared among them in equal parts: nobody outside can tell more.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from sandbox_host.ipc.channel import SESSION_ID
from sandbox_host.model import CallUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plugin_sdk.wire.message import Message
    from sandbox_host.backends.base import Child
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.runtime.watch import Watch


class Queue(Protocol):
    """What has no answer yet."""

    @property
    def idle(self) -> bool:
        """There is nothing."""

    def oldest(self) -> Pending | None:
        """Return the oldest, or None."""

    def outstanding(self) -> list[Pending]:
        """Return all, the oldest first."""


def at_work(outstanding: Sequence[Pending], concurrency: int) -> list[Pending]:
    """Return those of what has no answer that the plugin works on, the oldest first.

    Args:
        outstanding: all of them, the oldest first.
        concurrency: how many calls it works on at a time; with one, events are in the same row.
    """
    if concurrency == 1:
        return list(outstanding[:1])
    deliveries = [pending for pending in outstanding if pending.is_delivery][:1]
    calls = [pending for pending in outstanding if not pending.is_delivery][:concurrency]
    return sorted(deliveries + calls, key=lambda pending: pending.id)


class Turns:
    """Of one plugin. Methods may be called from any thread.

    Args:
        child: whose CPU clock it is.
        watch: starts the clocks of what is begun.
        concurrency: how many calls are worked on at a time.
        held_seconds: returns for how long the plugin was held back, all in all.
        hurry: called where a budget may be used up before the next look.
    """

    def __init__(
        self,
        child: Child,
        watch: Watch,
        concurrency: int,
        held_seconds: Callable[[], float],
        hurry: Callable[[], None],
    ) -> None:
        self._child = child
        self._watch = watch
        self._concurrency = concurrency
        self._held_seconds = held_seconds
        self._hurry = hurry
        self._lock = threading.Lock()
        self._sharing: dict[int, Pending] = {}
        self._cpu = 0.0

    def at_work(self, queue: Queue) -> list[Pending]:
        """Return what the plugin works on now, the oldest first."""
        if self._concurrency == 1:
            oldest = queue.oldest()
            return [] if oldest is None else [oldest]
        return at_work(queue.outstanding(), self._concurrency)

    def before(self, pending: Pending, queue: Queue) -> None:
        """Start the clocks of what is about to be sent, if its turn is now.

        They are read before the plugin can begin.
        """
        if self._concurrency == 1:
            if queue.idle:
                self._start(pending)
        elif pending in at_work([*queue.outstanding(), pending], self._concurrency):
            self._start(pending)

    def follow(self, queue: Queue) -> None:
        """Start the clocks of what the plugin works on now, and did not before."""
        for pending in self.at_work(queue):
            if not pending.started_at:
                self._start(pending)

    def has_come(self, pending: Pending, queue: Queue) -> bool:
        """Tell whether the plugin works on what was not seen to begin; start its clocks if so.

        Its own answer, and those that it waited for, may have come with what it says now: then it
        is in the queue no more, and nobody has seen its turn come.
        """
        if not pending.started_at:
            older = [one for one in queue.outstanding() if SESSION_ID < one.id < pending.id]
            if pending not in at_work([*older, pending], self._concurrency):
                return False
            self._start(pending)
        return True

    def _start(self, pending: Pending) -> None:
        pending.held_at_start = self._held_seconds()
        hurried = self._watch.start(pending)
        if self._concurrency > 1:
            with self._lock:
                self._share(pending.cpu_at_start)
                self._sharing[pending.id] = pending
        if pending.asked_to_end:
            pending.interrupted_at = pending.deadline = time.monotonic()
        if hurried:
            self._hurry()

    def again(self, pending: Pending) -> None:
        """Start the clocks anew: the first events of a delivery were handled, the next one is."""
        if pending.started_at:
            pending.asked_to_end, pending.interrupted_at = False, 0.0
            self._start(pending)

    def settle(self) -> None:
        """Share out what has passed on the CPU clock, before somebody is judged by it."""
        if self._sharing:
            with self._lock:
                self._share(self._child.cpu_seconds())

    def _share(self, cpu: float) -> None:
        """Move the start of each by what the others are to have of the time that passed; locked."""
        passed, self._cpu = max(0.0, cpu - self._cpu), max(cpu, self._cpu)
        count = len(self._sharing)
        if count > 1:
            for pending in self._sharing.values():
                pending.cpu_at_start += passed * (count - 1) / count

    def cost(self, pending: Pending, message: Message) -> CallUsage:
        """Return what an answered message has cost."""
        used = 0.0
        if pending.started_at:
            cpu = self._child.cpu_seconds()
            if pending.id in self._sharing:
                with self._lock:
                    self._share(cpu)
                    del self._sharing[pending.id]
            used = max(0.0, cpu - pending.cpu_at_start)
        wall = time.monotonic() - pending.sent_at
        # By position, as its names cost as much as it does: it is made for every call.
        bytes_in = len(getattr(message, "payload", b""))
        return CallUsage(used, wall, pending.bytes_out, bytes_in)

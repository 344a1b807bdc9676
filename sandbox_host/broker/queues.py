"""What waits for a subscriber in the application: bounded, with a policy for when it is too much.

With `Policy.BLOCK` an event that finds no room is held beside the queue, in its place, until there
is room or its deadline has passed. A publisher of the application's waits for that; nobody else
does: a thread that reads for all plugins must not wait for one subscriber, and a plugin whose call
is being timed must not pay for it either. What is held is bounded for each publisher.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from sandbox_host.broker.policies import Bounds, Policy, SubscriptionInfo
from sandbox_host.errors import SubscriberTooSlowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.broker.topics import Wanted
    from sandbox_host.model import Event

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Packed data that may wait for one subscriber, however few events that are."""

HELD_EVENTS: Final = 64
"""Events of one publisher that may be held for one subscriber that blocks, beside its queue."""

HELD_BYTES: Final = 1024 * 1024
"""Packed data of those; one publisher's."""


class Held:
    """An event that waits for room in a queue.

    Attributes:
        event: the event.
        until: reading of the subscription's clock at which it is given up.
        settled: is given True when the event is in the queue, False when it was given up.
    """

    __slots__ = ("event", "settled", "until")

    def __init__(self, event: PackedEvent, until: float) -> None:
        self.event = event
        self.until = until
        self.settled: Future[bool] = Future()
        self.settled.set_running_or_notify_cancel()  # whoever waits for it cannot cancel it


class Subscription:
    """Events of some types, in the order they were published. Thread-safe.

    Args:
        wanted: the types.
        bounds: how much may wait, and what happens beyond.
        on_close: called once when it is closed.
        first: events that wait already.
        clock: monotonic, in seconds.

    Attributes:
        reason: why the host closed it; None where it did not.
        dropped: events that were wanted, and dropped.
        delivered: events that were taken.
    """

    def __init__(
        self,
        wanted: Wanted,
        bounds: Bounds,
        on_close: Callable[[Subscription], None],
        first: Iterable[PackedEvent] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wanted = wanted
        self.dropped = 0
        self.delivered = 0
        self.reason: SubscriberTooSlowError | None = None
        self._bounds = bounds
        self._on_close = on_close
        self._clock = clock
        self._waiting: deque[PackedEvent] = deque(first)
        self._waiting_bytes = sum(len(event.data) for event in self._waiting)
        self._held: deque[Held] = deque()
        self._held_events: Counter[str] = Counter()
        self._held_bytes: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._wake: Callable[[], None] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """No event will be added any more."""
        return self._closed

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from any thread whenever something was added or it was closed."""
        self._wake = wake

    def pause(self) -> float | None:
        """Return in how many seconds to look again though nothing has changed: never."""
        return None

    # -- the publishers' side ---------------------------------------------------------------

    def put(self, event: PackedEvent) -> Held | None:
        """Add an event; never blocks.

        Returns:
            What its publisher may wait for, where it waits for room; None otherwise.
        """
        held: Held | None = None
        with self._changed:
            if self._closed:
                return None
            settled = self._settle()
            if not self._held and self._fits(event):
                self._append(event)
            else:
                held = self._overflow(event)
            disconnected = self.reason is not None
        _tell(settled)
        if disconnected:
            self.close()
        else:
            self._call_wake()
        return held

    def _overflow(self, event: PackedEvent) -> Held | None:
        """Do what the policy says with an event for which there is no room."""
        policy = self._bounds.policy
        if policy is Policy.BLOCK:
            return self._hold(event)
        if policy is Policy.DROP_OLDEST:
            self._append(event)
            while self._too_much():
                self._pop()
                self.dropped += 1
            return None
        self.dropped += 1
        if policy is Policy.DISCONNECT:
            text = (
                f"A subscription was closed because its reader did not keep up: "
                f"{len(self._waiting)} events waited for it."
            )
            remedy = (
                'Read faster, ask for a larger queue, or choose another policy than "disconnect".'
            )
            self.reason = SubscriberTooSlowError(text, remedy=remedy)
        return None

    def _hold(self, event: PackedEvent) -> Held | None:
        source, size = event.source, len(event.data)
        too_many = self._held_events[source] >= HELD_EVENTS
        if too_many or self._held_bytes[source] + size > HELD_BYTES:
            self.dropped += 1
            return None
        held = Held(event, self._clock() + self._bounds.deadline)
        self._held_events[source] += 1
        self._held_bytes[source] += size
        self._held.append(held)
        return held

    def expire(self) -> None:
        """Drop held events whose deadline has passed."""
        with self._changed:
            settled = self._settle()
        _tell(settled)
        if settled:
            self._call_wake()

    def _settle(self) -> list[tuple[Held, bool]]:
        """Move what is held into the queue where there is room, and drop what is too late."""
        settled: list[tuple[Held, bool]] = []
        if not self._held:
            return settled
        now = self._clock()
        while self._held:
            first = self._held[0]
            placed = first.until > now and self._fits(first.event)
            if first.until > now and not placed:
                break
            self._unhold()
            if placed:
                self._append(first.event)
            else:
                self.dropped += 1
            settled.append((first, placed))
        return settled

    def _unhold(self) -> Held:
        held = self._held.popleft()
        source = held.event.source
        self._held_events[source] -= 1
        self._held_bytes[source] -= len(held.event.data)
        if not self._held_events[source]:
            del self._held_events[source], self._held_bytes[source]
        return held

    def _fits(self, event: PackedEvent) -> bool:
        size = self._waiting_bytes + len(event.data)
        return len(self._waiting) < self._bounds.limit and size <= MAX_WAITING_BYTES

    def _too_much(self) -> bool:
        return len(self._waiting) > self._bounds.limit or self._waiting_bytes > MAX_WAITING_BYTES

    def _append(self, event: PackedEvent) -> None:
        self._waiting.append(event)
        self._waiting_bytes += len(event.data)
        self._changed.notify()

    def _pop(self) -> PackedEvent:
        packed = self._waiting.popleft()
        self._waiting_bytes -= len(packed.data)
        return packed

    # -- the reader's side ------------------------------------------------------------------

    def take(self) -> Event | None:
        """Return the next event, or None if none waits.

        Raises:
            SubscriberTooSlowError: none will come any more, because of that.
        """
        return self.wait(0)

    def wait(self, timeout: float | None) -> Event | None:
        """Return the next event, waiting for it; None at the timeout or when it is closed.

        Raises:
            SubscriberTooSlowError: none will come any more, because of that.
        """
        with self._changed:
            if timeout != 0:
                self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            packed = self._pop() if self._waiting else None
            self.delivered += packed is not None
            settled = self._settle()
            reason = self.reason if packed is None else None
        _tell(settled)
        if reason is not None:
            raise reason
        return packed.unpack() if packed else None

    def close(self) -> None:
        """End it; what waits can still be taken, what is held beside the queue is dropped."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            settled = [(self._unhold(), False) for _ in range(len(self._held))]
            self.dropped += len(settled)
            self._changed.notify_all()
        _tell(settled)
        self._on_close(self)
        self._call_wake()

    def info(self) -> SubscriptionInfo:
        """Return what it has got and has not; what is held beside the queue waits as well."""
        with self._changed:
            settled = self._settle()
            info = SubscriptionInfo(
                subscriber="application",
                kind="stream",
                types=self.wanted.patterns,
                policy=self._bounds.policy.value,
                limit=self._bounds.limit,
                delivered=self.delivered,
                dropped=self.dropped,
                waiting=len(self._waiting) + len(self._held),
                waiting_bytes=self._waiting_bytes + sum(self._held_bytes.values()),
                reading=not self._closed,
            )
        _tell(settled)
        return info

    def _call_wake(self) -> None:
        if self._wake is not None:
            self._wake()


def _tell(settled: Iterable[tuple[Held, bool]]) -> None:
    """Tell publishers what became of their events, with no lock held."""
    for held, placed in settled:
        held.settled.set_result(placed)

"""A durable subscription: what waits for its acknowledgement, and who reads it.

The events themselves are in the store; here are their numbers, so that memory stays small however
much waits. An event leaves when its reader has acknowledged it, and is handed out again when that
takes too long, when another reader comes, and after a restart: at least once, in order.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from sandbox_host.broker.policies import SubscriptionInfo
from sandbox_host.errors import EventStoreError, EventStoreFullError, UsageError
from sandbox_host.model import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sandbox_host.broker.packed import PackedEvent
    from sandbox_host.broker.topics import Wanted

MAX_REDELIVERY_SECONDS: Final = 86_400.0
"""The longest that a reader may take for one event before it gets it again."""

_HOST: Final = "host"
_SHARE: Final = 2
"""A plugin may take this part of a subscription's bounds: it must not keep the others out."""


@dataclass(frozen=True, slots=True)
class DurableBounds:
    """How much may wait for the acknowledgement of one durable subscription.

    Attributes:
        events: that wait.
        bytes: of their data, packed.
        age_seconds: of the oldest.
    """

    events: int
    bytes: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class DurableEvent(Event):
    """An event of a durable subscription: it comes again until it is acknowledged."""

    _acknowledge: Callable[[int], bool] = field(repr=False, compare=False)

    def ack(self) -> None:
        """Say that it was dealt with; a second time means nothing.

        It is written down with the next commit: after a crash before that the event comes again.
        """
        self._acknowledge(self.id)


class Entry(NamedTuple):
    """What is known of an event that waits: its publisher, the bytes of its data, its time."""

    source: str
    size: int
    timestamp: float


class DurableQueue:
    """The state of one durable subscription. Thread-safe.

    Args:
        number: its key in the store.
        name: its name.
        wanted: the types that it gets.
        bounds: beyond them events are refused.
        entries: what waits already, by the event's id, in order.
    """

    def __init__(
        self,
        number: int,
        name: str,
        wanted: Wanted,
        bounds: DurableBounds,
        entries: Mapping[int, Entry],
    ) -> None:
        self.number = number
        self.name = name
        self.wanted = wanted
        self.changed = threading.Condition()
        self.reader: DurableSubscription | None = None
        self._bounds = bounds
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._shares: dict[str, list[int]] = {}
        self._bytes = 0
        self._delivered = 0
        self._refused = 0
        for number_of_event, entry in entries.items():
            self._enter(number_of_event, entry)
        self._ready: deque[int] = deque(self._entries)
        self._in_hand: OrderedDict[int, float] = OrderedDict()

    # -- the publishers' side ---------------------------------------------------------------

    def reserve(self, event: PackedEvent) -> None:
        """Take the place that an event needs, before it is written.

        Raises:
            EventStoreFullError: there is none.
        """
        with self.changed:
            why = self._full(event)
            if why:
                self._refused += 1
                text = (
                    f"The event {event.type} was not published: the durable subscription "
                    f'"{self.name}" takes no more, because {why}.'
                )
                remedy = (
                    "Have its reader acknowledge what waits, raise durable_events, durable_bytes "
                    "or durable_age_seconds, or give it up with host.drop_durable()."
                )
                raise EventStoreFullError(text, subscription=self.name, remedy=remedy)
            self._enter(event.id, Entry(event.source, len(event.data), event.timestamp))

    def _full(self, event: PackedEvent) -> str:
        """Return why an event may not be added; "" if it may."""
        bounds, size = self._bounds, len(event.data)
        if len(self._entries) >= bounds.events or self._bytes + size > bounds.bytes:
            return f"{len(self._entries)} events ({self._bytes} bytes) wait for acknowledgement"
        oldest = next(iter(self._entries.values()), None)
        if oldest is not None and event.timestamp - oldest.timestamp > bounds.age_seconds:
            return f"its oldest event has waited for more than {bounds.age_seconds:g} s"
        count, taken = self._shares.get(event.source, (0, 0))
        # Of small bounds a plugin may have one event: nobody could use them otherwise.
        most = max(1, bounds.events // _SHARE)
        if event.source != _HOST and (count >= most or taken + size > bounds.bytes // _SHARE):
            return f"{count} events ({taken} bytes) of {event.source} wait, which is its share"
        return ""

    def _enter(self, number: int, entry: Entry) -> None:
        self._entries[number] = entry
        share = self._shares.setdefault(entry.source, [0, 0])
        share[0] += 1
        share[1] += entry.size
        self._bytes += entry.size

    def _leave(self, number: int) -> bool:
        entry = self._entries.pop(number, None)
        if entry is None:
            return False
        self._bytes -= entry.size
        share = self._shares[entry.source]
        share[0] -= 1
        share[1] -= entry.size
        if not share[0]:
            del self._shares[entry.source]
        return True

    def release(self, number: int) -> None:
        """Give back the place of an event that was not written."""
        with self.changed:
            self._leave(number)

    def committed(self, number: int) -> None:
        """Hand out an event that is written."""
        with self.changed:
            if number not in self._entries:
                return
            self._ready.append(number)
            self.changed.notify()
            reader = self.reader
        if reader is not None:
            reader.call_wake()

    # -- the reader's side ------------------------------------------------------------------

    def attach(self, reader: DurableSubscription) -> None:
        """Give everything that waits to this reader, in order, and to no other.

        Raises:
            UsageError: it has a reader.
        """
        with self.changed:
            if self.reader is not None:
                text = f'The durable subscription "{self.name}" is being read already.'
                raise UsageError(text, remedy="It has one reader at a time; close that one first.")
            self.reader = reader

    def detach(self, reader: DurableSubscription) -> None:
        """Have what this reader did not acknowledge wait for the next one."""
        with self.changed:
            if self.reader is reader:
                self.reader = None
                self._ready.extendleft(sorted(self._in_hand, reverse=True))
                self._in_hand.clear()
            self.changed.notify_all()

    def next(self, now: float, redeliver_after: float) -> int | None:
        """Return the id of the event whose turn it is; with ``changed`` held."""
        for number, due in self._in_hand.items():
            if due > now:
                break
            self._hand(number, now + redeliver_after)
            return number
        while self._ready:
            number = self._ready.popleft()
            if number in self._entries:  # else it was acknowledged by a reader before this one
                self._hand(number, now + redeliver_after)
                return number
        return None

    def _hand(self, number: int, due: float) -> None:
        self._in_hand[number] = due
        self._in_hand.move_to_end(number)
        self._delivered += 1

    def due(self) -> float | None:
        """Return when the next event comes again; with ``changed`` held."""
        return next(iter(self._in_hand.values()), None)

    def acknowledge(self, number: int) -> bool:
        """Forget an event; False if it does not wait."""
        with self.changed:
            self._in_hand.pop(number, None)
            return self._leave(number)

    def waiting(self) -> list[int]:
        """Return the ids of all events that wait, oldest first."""
        with self.changed:
            return list(self._entries)

    def info(self) -> SubscriptionInfo:
        """Return its counters."""
        with self.changed:
            return SubscriptionInfo(
                subscriber=self.name,
                kind="durable",
                types=self.wanted.patterns,
                policy="refuse",
                limit=self._bounds.events,
                delivered=self._delivered,
                dropped=0,
                waiting=len(self._entries),
                waiting_bytes=self._bytes,
                refused=self._refused,
                reading=self.reader is not None,
            )


class DurableSubscription:
    """The reader of a durable subscription; the same face as that of a `Subscription`.

    Args:
        queue: what waits.
        fetch: returns an event of the store by its id; None where it is gone.
        acknowledge: writes an acknowledgement down.
        redeliver_after: seconds after which an event that was not acknowledged comes again.
        clock: monotonic, in seconds.

    Raises:
        UsageError: it has a reader, or the time is out of range.
    """

    dropped = 0
    """Nothing is dropped."""

    def __init__(
        self,
        queue: DurableQueue,
        fetch: Callable[[int], PackedEvent | None],
        acknowledge: Callable[[DurableQueue, Iterable[int]], None],
        redeliver_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < redeliver_after <= MAX_REDELIVERY_SECONDS:
            text = f"redeliver_after is up to {MAX_REDELIVERY_SECONDS:g} s, not {redeliver_after}."
            raise UsageError(text)
        self._queue = queue
        self._fetch = fetch
        self._write = acknowledge
        self._redeliver_after = redeliver_after
        self._clock = clock
        self._wake: Callable[[], None] | None = None
        self._closed = False
        queue.attach(self)

    @property
    def closed(self) -> bool:
        """It is read no more."""
        return self._closed

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from any thread whenever something was added or it was closed."""
        self._wake = wake

    def call_wake(self) -> None:
        """Tell the reader that something has changed."""
        if self._wake is not None:
            self._wake()

    def pause(self) -> float | None:
        """Return in how many seconds an event comes again; None if none is unacknowledged."""
        with self._queue.changed:
            due = self._queue.due()
        return None if due is None else max(0.0, due - self._clock())

    def take(self) -> DurableEvent | None:
        """Return the next event, or None if none waits.

        Raises:
            EventStoreError: it cannot be read.
        """
        return self.wait(0)

    def wait(self, timeout: float | None) -> DurableEvent | None:
        """Return the next event, waiting for it; None at the timeout or when it is closed.

        Raises:
            EventStoreError: it cannot be read.
        """
        until = None if timeout is None else self._clock() + timeout
        while (number := self._next(until)) is not None:
            try:
                packed = self._fetch(number)
            except EventStoreError:
                if self._closed:  # and the store with it, in this moment
                    return None
                raise
            if packed is not None:
                event = packed.unpack()
                stamps = event.timestamp, event.source, event.id
                return DurableEvent(event.type, event.data, *stamps, self.ack)
        return None

    def _next(self, until: float | None) -> int | None:
        queue = self._queue
        with queue.changed:
            while not self._closed:
                now = self._clock()
                number = queue.next(now, self._redeliver_after)
                if number is not None:
                    return number
                ends = [end for end in (until, queue.due()) if end is not None]
                if until is not None and now >= until:
                    return None
                queue.changed.wait(min(ends) - now if ends else None)
        return None

    def ack(self, number: int) -> bool:
        """Acknowledge the event with this id; False if it does not wait any more."""
        if not self._queue.acknowledge(number):
            return False
        self._write(self._queue, (number,))
        return True

    def close(self) -> None:
        """Stop reading; what was not acknowledged waits for the next reader."""
        with self._queue.changed:
            if self._closed:
                return
            self._closed = True
        self._queue.detach(self)
        self.call_wake()

    def info(self) -> SubscriptionInfo:
        """Return its counters."""
        return self._queue.info()

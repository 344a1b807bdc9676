"""What waits for a plugin's handlers, and what is with them: bounded, and coalesced.

An event for a plugin that has nothing to handle is sent at once. While it handles some, what comes
waits here, and goes together when they were handled: the more there is to do, the more goes in one
message. What finds no room is counted, and lost.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.limits import MAX_EVENTS_AT_ONCE, MAX_PAYLOAD_BYTES
from sandbox_host.broker.policies import Policy, SubscriptionInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandbox_host.broker.packed import PackedEvent

MAX_WAITING_BYTES: Final = MAX_PAYLOAD_BYTES
"""Events, packed, that may wait for one plugin."""

WINDOW: Final = 8
"""So many events may be with the plugin at a time, however slow its handlers are: a call waits for
them."""

MAX_WINDOW: Final = 2 * MAX_EVENTS_AT_ONCE
"""The same for handlers that are fast."""

WINDOW_SECONDS: Final = 0.05
"""No more events than are handled in this time are with the plugin, but for `WINDOW`."""

MAX_BATCH_BYTES: Final = 60 * 1024
"""Events that go in one message; one alone may be larger. A pipe holds one of these."""

_AT_ONCE: Final = 2
"""Messages that are with the plugin: while one is handled, the next is there."""

_MANY: Final = 32
"""Events that tell how fast handlers are."""

_OFTEN: Final = 512
"""Each time that so many more wait, it is worth a look whether the plugin has handled some."""


class HandlerQueue:
    """Events on their way to one plugin's handlers.

    `deliver` is for one thread at a time (the broker's lock sees to it), and takes no lock of its
    own. Everything else is for one at a time as well, whose lock is another.

    Args:
        limit: events that may wait.
        send: called where some may be sent.

    Attributes:
        delivered: events that were sent.
        window: so many may be with the plugin.
    """

    def __init__(self, limit: int, send: Callable[[], object]) -> None:
        self.delivered = 0
        self.window = WINDOW
        self._limit = limit
        self._send = send
        self._often = min(_OFTEN, limit)
        self._enough = min(MAX_EVENTS_AT_ONCE, limit)
        self._waiting: deque[PackedEvent] = deque()
        # Each is written by one side only.
        self._bytes_added = self._bytes_taken = 0
        self._refused = self._unsent = 0
        self._out = self._messages_out = 0
        self._handled = 0, 0.0  # of a message: events, and the seconds they took
        self._look_at = 1  # when so many wait

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def dropped(self) -> int:
        """Events that never reach its handlers: too much waited for them, or they ended."""
        return self._refused + self._unsent

    # -- the publishers' side ---------------------------------------------------------------

    def deliver(self, event: PackedEvent) -> bool:
        """Take an event, which is prepared, and have it sent if nothing is before it; or drop it.

        Returns:
            Whether it is worth a look if the plugin has handled something: much waits.
        """
        waiting, added = self._waiting, self._bytes_added + len(event.entry)
        if len(waiting) >= self._limit or added - self._bytes_taken > MAX_WAITING_BYTES:
            self._refused += 1
            return (self._refused - 1) % self._often == 0
        self._bytes_added = added
        waiting.append(event)
        # Read after it was put there: who has sent what waits looks for more after it is written.
        if len(waiting) < self._look_at:
            return False
        self._send()
        return len(waiting) >= self._often

    # -- the plugin's side ------------------------------------------------------------------

    def take(self, at_most: int = MAX_EVENTS_AT_ONCE, *, more: bool = True) -> list[PackedEvent]:
        """Return events that are to go now, in one message: all of one type, in their order.

        Args:
            at_most: so many.
            more: also where the plugin has some to handle, and not many more wait.
        """
        waiting, out = self._waiting, self._out
        self._look_again()
        room = min(self.window - out, len(waiting), at_most, MAX_EVENTS_AT_ONCE)
        if room <= 0 or self._messages_out >= _AT_ONCE:
            return []
        if out and not more and out + room < WINDOW and room < self._enough:
            return []
        taken = [waiting.popleft() for _ in range(room)]
        size = sum([len(event.entry) for event in taken])
        if size > MAX_BATCH_BYTES or len({event.type for event in taken}) > 1:
            size = self._put_back(taken)
        self._bytes_taken += size
        return taken

    def _put_back(self, taken: list[PackedEvent]) -> int:
        """Leave in the list what can go in one message; return its size."""
        event_type, size = taken[0].type, 0
        for index, event in enumerate(taken):
            size += len(event.entry)
            if index and (size > MAX_BATCH_BYTES or event.type != event_type):
                self._waiting.extendleft(reversed(taken[index:]))
                del taken[index:]
                return size - len(event.entry)
        return size

    def _look_again(self) -> None:
        """Say when there is something to do for a publisher."""
        if self._messages_out >= _AT_ONCE or self._out >= WINDOW:
            waiting = len(self._waiting)
            self._look_at = waiting - waiting % self._often + self._often
        else:
            self._look_at = min(WINDOW - self._out, self._enough) if self._out else 1

    def leave(self) -> list[PackedEvent]:
        """Return all that waits, for another queue, and forget it."""
        left = list(self._waiting)
        self._waiting.clear()
        self._bytes_taken += sum([len(event.entry) for event in left])
        return left

    def sent(self, count: int, *, done: bool) -> None:
        """Count what was done with what was taken: sent in one message, or dropped."""
        if done:
            self.delivered += count
            self._out += count
            self._messages_out += 1
        else:
            self._unsent += count

    def handled(self, count: int, seconds: float, *, last: bool) -> None:
        """Count events that were handled.

        Args:
            count: so many of one message, since those before.
            seconds: so long it took.
            last: nothing is left of the message.
        """
        self._out -= count
        self._messages_out -= last
        count, seconds = self._handled = self._handled[0] + count, self._handled[1] + seconds
        if not last:
            return
        self._handled = 0, 0.0
        if seconds > WINDOW_SECONDS:
            room = int(WINDOW_SECONDS * count / seconds)
            # A few may have waited for a CPU, and not be slow.
            self.window = max(WINDOW, room, 0 if count >= _MANY else self.window // 2)
        elif 2 * count >= self.window:
            self.window = min(2 * self.window, MAX_WINDOW)

    def info(self, identity: str, types: Iterable[str]) -> SubscriptionInfo:
        """Return the counters of the plugin with this identity; without a lock, each is true."""
        return SubscriptionInfo(
            subscriber=identity,
            kind="plugin",
            types=tuple(types),
            policy=Policy.DROP_NEWEST.value,
            limit=self._limit,
            delivered=self.delivered,
            dropped=self.dropped,
            waiting=len(self._waiting),
            waiting_bytes=max(0, self._bytes_added - self._bytes_taken),
        )

"""Streams at the host's end: what a plugin yields, and what is fed to it. Bounded by credits.

The wire's windows bound both (`plugin_sdk.wire.streams`): a reader that is slow holds back its
writer on the other side, and neither keeps more than a window.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.limits import MAX_STREAM_BYTES, MAX_STREAM_ITEMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin_sdk.wire.message import Message

_CREDIT_ITEMS: Final = MAX_STREAM_ITEMS // 4
_CREDIT_BYTES: Final = MAX_STREAM_BYTES // 4
_LOOK_SECONDS: Final = 0.05


class Inflow:
    """Items that a call has yielded and nobody has taken. Thread-safe.

    Args:
        credit: tells the plugin how many items were taken since it was last told.
    """

    def __init__(self, credit: Callable[[int], None]) -> None:
        self._credit = credit
        self._lock = threading.Lock()
        self._items: deque[bytes] = deque()
        self._taken_items = 0
        self._taken_bytes = 0
        self._closed = False
        self._last: Message | None = None
        self.wake: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Message) -> None:
        """Add an item; it is dropped where nobody reads any more.

        One that comes twice in a row is one: who reads may be interrupted when it was given.
        """
        with self._lock:
            if not self._closed and item is not self._last:
                self._last = item
                self._items.append(item.payload)
        wake = self.wake  # its reader may forget it meanwhile
        if wake is not None:
            wake()

    def take(self) -> bytes | None:
        """Return the oldest item, or None; tell the plugin, when enough were taken."""
        with self._lock:
            if not self._items:
                return None
            payload = self._items.popleft()
            self._taken_items += 1
            self._taken_bytes += len(payload)
            enough = self._taken_items >= _CREDIT_ITEMS or self._taken_bytes >= _CREDIT_BYTES
            items = self._taken() if enough or not self._items else 0
        if items:
            self._credit(items)
        return payload

    def close(self) -> None:
        """Drop what is here, and what will come."""
        with self._lock:
            self._closed = True
            self._last = None
            self._items.clear()

    def _taken(self) -> int:
        items, self._taken_items, self._taken_bytes = self._taken_items, 0, 0
        return items


class Outflow:
    """A stream on its way to a call, as far as waiting for its reader goes. Thread-safe.

    Attributes:
        stopped: the operation reads no more of it, or has ended.
        ended: its writer has said that there is no more, or (with a `problem`) will be.
        problem: what was raised where it comes from, or None.
        wake: called whenever it may go on; from any thread.
        follower: called with True when items were taken or it was stopped, and with False when an
            item, or its end, was sent; from any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._news = 0
        self.stopped = False
        self.ended = False
        self.problem: BaseException | None = None
        self.wake: Callable[[], object] | None = None
        self.follower: Callable[[bool], object] | None = None

    def stop(self) -> None:
        """Nothing more of it is wanted."""
        self.stopped = True
        self.notify()

    def notify(self) -> None:
        """There may be room for more."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()
        wake = self.wake  # as above
        if wake is not None:
            wake()
        if self.follower is not None:
            self.follower(True)

    def sent(self, *, ended: bool = False) -> None:
        """Its writer has sent an item, or its end."""
        self.ended = self.ended or ended
        if self.follower is not None:
            self.follower(False)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Block until ``ready`` or it has been stopped; the end of the call stops it."""
        while True:
            seen = self._news
            if ready() or self.stopped:
                return
            with self._changed:
                # Room in the pipe itself is nobody's news.
                self._changed.wait_for(lambda seen=seen: self._news != seen, _LOOK_SECONDS)  # type: ignore[misc]  # mypy cannot infer a lambda with defaults

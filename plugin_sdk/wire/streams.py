"""Credits of one stream: what was sent and is not taken yet, the same by both sides' count.

Whoever sends counts what it sent and what it was told has been taken; whoever receives counts what
came and what it has told. What is on its way makes the sender's count the larger one, never the
smaller, so that a receiver may hold a sender to the bounds without ever blaming an honest one.
"""

from __future__ import annotations

from collections import deque

from plugin_sdk.wire.limits import MAX_STREAM_BYTES, MAX_STREAM_ITEMS


class Window:
    """The items of one stream that are on their way or wait for their reader.

    Attributes:
        ended: the sender has said that there are no more.
        stopped: the reader has said that it wants no more.
    """

    __slots__ = ("_bytes", "_sizes", "ended", "stopped")

    def __init__(self) -> None:
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self.ended = False
        self.stopped = False

    def __len__(self) -> int:
        """Return how many items wait."""
        return len(self._sizes)

    def has_room(self, size: int) -> bool:
        """Tell whether an item of so many bytes may be sent; one alone always may."""
        if not self._sizes:
            return True
        return len(self._sizes) < MAX_STREAM_ITEMS and self._bytes + size <= MAX_STREAM_BYTES

    def add(self, size: int) -> None:
        """Note that an item of so many bytes was sent."""
        self._sizes.append(size)
        self._bytes += size

    def take(self, items: int) -> bool:
        """Note that the oldest were taken; False where there are not so many."""
        if items > len(self._sizes):
            return False
        for _ in range(items):
            self._bytes -= self._sizes.popleft()
        return True


class Windows:
    """Those of all streams of one connection: what calls return, and what is fed to them."""

    __slots__ = ("_by_call",)

    def __init__(self) -> None:
        self._by_call: dict[int, dict[int, Window]] = {}

    def of(self, call: int, stream: int) -> Window:
        """Return the window of a stream of an outstanding call: 0 is what the call returns."""
        windows = self._by_call.setdefault(call, {})
        window = windows.get(stream)
        if window is None:
            window = windows[stream] = Window()
        return window

    def have_room(self, call: int, stream: int, size: int) -> bool:
        """Tell whether an item of so many bytes may be sent; asking alone keeps nothing."""
        window = self._by_call.get(call, {}).get(stream)
        return window is None or window.has_room(size)

    def forget(self, call: int) -> None:
        """Forget the streams of a call that was answered."""
        self._by_call.pop(call, None)

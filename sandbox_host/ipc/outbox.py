"""What a plugin's pipe did not take yet: kept, up to a bound, and written when there is room."""

from __future__ import annotations

import os
from collections import deque


class Outbox:
    """Writes to a non-blocking descriptor without ever waiting. Not thread-safe: lock around it.

    Args:
        descriptor: write end of a pipe.
        max_bytes: how much may be kept.

    Attributes:
        kept: what is kept, the oldest first; to be looked at, not to be changed.
    """

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self.kept: deque[memoryview] = deque()
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self.kept)

    def has_room(self, size: int) -> bool:
        """Tell whether ``size`` bytes more may be kept; one message always may."""
        return not self.kept or self._size + size <= self._max_bytes

    def write(self, data: bytes) -> None:
        """Write what the pipe takes, after what is kept already, and keep the rest."""
        if not self.kept and data:
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                written = 0
            except OSError:
                return  # as below
            if written == len(data):
                return
            self.kept.append(memoryview(data)[written:])
            self._size = len(data) - written
            return
        if data:
            self.kept.append(memoryview(data))
            self._size += len(data)
        self.flush()

    def flush(self) -> None:
        """Write as much of what is kept as the pipe takes now."""
        while self.kept:
            first = self.kept[0]
            try:
                written = os.write(self._descriptor, first)
            except BlockingIOError:
                return
            except OSError:
                # The plugin is gone: the end of its own stream says so to whoever reads.
                self.clear()
                return
            self._size -= written
            if written < len(first):
                self.kept[0] = first[written:]
                return
            self.kept.popleft()

    def clear(self) -> None:
        """Forget what is kept."""
        self.kept.clear()
        self._size = 0

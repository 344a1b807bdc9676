"""Memory that a host and one plugin share, for large payloads: each writes one half of it.

A payload is put into the sender's half and announced by a frame without one; the receiver copies it
out, and parses nothing but its own copy. One lies there at a time: each half begins with a count
of what its owner has taken out of the other. While a payload has not been taken, those that follow
travel in the pipe.

The memory is a file without a name, made by the host at its full size and sealed: nobody can make
it smaller, under who reads it, or larger. The plugin's process maps it before it is locked down and
keeps no descriptor of it, by which it could be mapped as code.
"""

from __future__ import annotations

import mmap
import struct

from plugin_sdk.wire.limits import MAX_ALLOWED_BYTES, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.message import HOST
from plugin_sdk.wire.payloads import Parts, parts_of

COUNT_BYTES = 4_096
"""What a half begins with: a page, of which eight bytes are the count."""

KEPT_BYTES = MAX_PAYLOAD_BYTES * 2 + 64 * 1024
"""Of a half's pages: those beyond are given back by the host once what used them was taken.
To write to them again costs more than to copy what lies there."""

HEAD_BYTES = 64
"""Where the body of a large payload is looked for: so few bytes before it are nearly always all."""

_COUNT = struct.Struct("<Q")
_LARGE_BYTES = 16 * 1024
_SIZES = {
    0xC5: struct.Struct(">H"),
    0xC6: struct.Struct(">I"),
    0xC8: struct.Struct(">HB"),
    0xC9: struct.Struct(">IB"),
}
"""By first byte, what announces a large body: bytes, or an array."""

_SHORT = {
    **dict.fromkeys((*range(0xA0), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)), 0),
    **{0xA0 + length: length for length in range(0x20)},
}
"""By first byte, how many bytes more a small number or text has; containers have none."""

_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE, include/uapi/asm-generic/mman-common.h, since Linux 5.14."""

_LEAST_BYTES = 2 * COUNT_BYTES
_MOST_BYTES = 2 * (COUNT_BYTES + MAX_ALLOWED_BYTES)

_for_ever: list[mmap.mmap] = []
"""What was mapped and its descriptor closed: to unmap it would close another of that number."""


class Arena:
    """One side's view of the shared memory. Not thread-safe: lock around it.

    Args:
        memory: as many bytes of it as `arena_bytes` says.
        role: whose view it is; the host's half is the first.

    Attributes:
        capacity: so many bytes a payload there has at most.
        bytes_put, bytes_taken: of all payloads so far.
    """

    def __init__(self, memory: mmap.mmap, role: str) -> None:
        self._memory = memory
        half = len(memory) // 2
        self._own, self._other = (0, half) if role == HOST else (half, 0)
        self._gives_back = role == HOST
        self._surplus = False  # in the own half
        self.capacity = half - COUNT_BYTES
        self._put = 0
        self._taken = 0
        self.bytes_put = 0
        self.bytes_taken = 0

    def is_free(self) -> bool:
        """Tell whether the other side has taken everything that was put."""
        count: int = _COUNT.unpack_from(self._memory, self._other)[0]
        return count == self._put

    def has_room(self, size: int) -> bool:
        """Tell whether a payload of so many bytes may be put now."""
        return size <= self.capacity and self.is_free()

    def put(self, payload: bytes) -> None:
        """Put a payload where the other side finds it; only while it `has_room`."""
        if len(payload) > KEPT_BYTES:
            self._surplus = True
            self._populate(len(payload))
        position = self._own + COUNT_BYTES
        parts = parts_of(payload)
        for part in (payload,) if parts is None else parts.found:
            view = memoryview(part).cast("B")
            self._memory[position : position + view.nbytes] = view
            position += view.nbytes
        self._put += 1
        self.bytes_put += len(payload)

    def take(self, size: int, *, split: bool = True) -> bytes:
        """Return a copy of the payload that the other side has put, split where that is worth it.

        The memory may change while it is read. What is decided here is decided by what was copied.

        Args:
            size: of the payload, in bytes; held against the limit and `capacity` already.
            split: it may be in parts.
        """
        memory, start = self._memory, self._other + COUNT_BYTES
        end = start + size
        head = memory[start : start + min(size, HEAD_BYTES)]
        found = _body_in(head, size) if split else None
        if found is None:
            payload = memory[start:end]
        else:
            opening, first, last = found
            body, rest = memory[start + first : start + last], memory[start + last : end]
            payload = Parts((head[:opening], head[opening:first], body, rest), is_split=True)  # type: ignore[assignment]  # as good as its bytes
        if self._gives_back:
            self._give_back(size)
        self._taken += 1
        self.bytes_taken += size
        _COUNT.pack_into(memory, self._own, self._taken)
        return payload

    def _populate(self, size: int) -> None:
        """Have the pages made at once that were given back: one by one takes twice as long."""
        pages = -(-(size - KEPT_BYTES) // COUNT_BYTES) * COUNT_BYTES
        try:
            self._memory.madvise(_POPULATE_WRITE, self._own + COUNT_BYTES + KEPT_BYTES, pages)
        except OSError:
            return  # an older kernel, or no memory: then as they are written to

    def _give_back(self, taken: int) -> None:
        """Free pages that few payloads need; before the payload counts as taken, for its owner."""
        if taken > KEPT_BYTES:
            self._free(self._other)
        if self._surplus and self.is_free():
            self._surplus = False
            self._free(self._own)

    def _free(self, half: int) -> None:
        # A hole in the file: the pages are gone for both, whoever had touched them.
        start, size = half + COUNT_BYTES + KEPT_BYTES, self.capacity - KEPT_BYTES
        try:
            self._memory.madvise(mmap.MADV_REMOVE, start, size)
        except OSError:
            return  # they stay, as many as the limit allows

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


def arena_bytes(max_payload_bytes: int) -> int:
    """Return how large the memory is where payloads are so large: whole pages, for each half."""
    pages = -(-max_payload_bytes // COUNT_BYTES)
    return 2 * (1 + pages) * COUNT_BYTES


def map_arena(descriptor: int, role: str, *, for_ever: bool = False) -> Arena | None:
    """Return a view of the memory behind a descriptor, or None where there is none.

    Args:
        descriptor: of the memory; may be closed afterwards.
        role: whose view it is.
        for_ever: it is not unmapped before the process ends, and all descriptors may be closed.
    """
    try:
        memory = mmap.mmap(descriptor, 0)  # all of it
    except (OSError, ValueError):
        return None  # it is something else: the host had none
    if not _LEAST_BYTES <= len(memory) <= _MOST_BYTES or len(memory) % _LEAST_BYTES:
        memory.close()
        return None
    if for_ever:
        _for_ever.append(memory)
    return Arena(memory, role)


def _body_in(head: bytes, size: int) -> tuple[int, int, int] | None:
    """Return where the first large body of a payload begins and ends, by the payload's head.

    What is passed on the way are containers and small texts and numbers. What is announced wrongly
    is not found here, and refused when the payload is decoded.

    Returns:
        Where its announcement begins, where it begins itself, and where it ends; or None.
    """
    position = 0
    while position < len(head):
        first = head[position]
        if (form := _SIZES.get(first)) is not None:
            begin = position + 1 + form.size
            if begin > len(head):
                return None
            length = form.unpack_from(head, position + 1)[0]
            if length < _LARGE_BYTES or begin + length > size:
                return None
            return position, begin, begin + length
        length = _SHORT.get(first)
        if length is None:
            return None
        position += 1 + length
    return None

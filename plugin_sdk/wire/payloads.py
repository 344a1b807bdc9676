"""A large payload in parts: what is large in it is copied once, from one process to the other.

Whoever sends keeps what `pieces` found; who receives splits the payload where its first large body
(bytes, or an array) begins and ends, so that the body is in the end the very object that the value
holds. A payload in parts is as good as its bytes, and passes for them in annotations: it has their
length, and becomes them by `bytes`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INLINE_BYTES = 32 * 1024
"""Up to here a payload travels in its frame and in one piece: to copy it costs less than to look
where it could be spared."""

EMPTY_BYTES = b"\xc4\x00"
EMPTY_ARRAY = b"\xd8\x01u1\x01" + bytes(13)
"""What stand for a large body where no more is looked at than how a value is put together."""


class Parts:
    """A payload in parts.

    Args:
        found: the parts, in order.
        is_split: they are four: what comes before the body, its announcement, the body, the rest.

    Attributes:
        found, is_split: as passed.
    """

    __slots__ = ("_size", "found", "is_split")

    def __init__(self, found: Sequence[bytes | memoryview], *, is_split: bool = False) -> None:
        self.found = found
        self.is_split = is_split
        self._size = sum([part.nbytes if type(part) is memoryview else len(part) for part in found])

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.found)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, bytes | Parts):
            return NotImplemented
        return bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))


def parts_of(payload: object) -> Parts | None:
    """Return a payload that is in parts, or None where it is in one piece."""
    return payload if isinstance(payload, Parts) else None

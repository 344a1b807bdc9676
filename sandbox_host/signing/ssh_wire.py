"""The data types of SSH's protocols (RFC 4251, section 5), as far as agent and SSHSIG need them."""

from __future__ import annotations

from typing import Final

_U32: Final = 4


class WireError(ValueError):
    """Bytes that are not what the protocol says; the text is for people."""


def u32(number: int) -> bytes:
    """Return a ``uint32``."""
    return number.to_bytes(_U32, "big")


def string(data: bytes) -> bytes:
    """Return a ``string``: its length, and the bytes."""
    return u32(len(data)) + data


class Reader:
    """Takes values off the front of bytes that somebody else wrote.

    Args:
        data: all of them; they are in memory already, so that their number is the bound.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Take one byte.

        Raises:
            WireError: there is none left; as in all methods.
        """
        return self._take(1)[0]

    def u32(self) -> int:
        """Take a ``uint32``."""
        return int.from_bytes(self._take(_U32), "big")

    def string(self) -> bytes:
        """Take a ``string``, of at most what is left."""
        return self._take(self.u32())

    def end(self) -> None:
        """Refuse what is left over."""
        left = len(self._data) - self._at
        if left:
            raise WireError(f"{left} bytes too many")

    def _take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise WireError(f"it ends {count - len(found)} bytes too early")
        self._at += count
        return found

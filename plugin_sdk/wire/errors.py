"""What can go wrong on the wire, told apart by whose fault it is."""

from __future__ import annotations


class RemoteProtocolError(Exception):
    """The other side broke the protocol. The only error that received bytes can ever cause."""


class LocalProtocolError(Exception):
    """This side tried to send what the protocol does not allow now: our bug, not the peer's."""


class PayloadError(Exception):
    """A value cannot be carried, or a received payload cannot be accepted."""


class PayloadTooLargeError(PayloadError):
    """A value is well-formed but larger than a limit of the wire. The channel still works.

    Attributes:
        size: what was measured.
        limit: what is allowed, in the same unit.
    """

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit

"""What every message is: a number, a sender, and fields that are checked. The table: `messages`."""

from __future__ import annotations

import msgpack

from plugin_sdk.wire.errors import LocalProtocolError
from plugin_sdk.wire.limits import MAX_FEEDS, MAX_ID, MAX_NAME_BYTES, MAX_STREAM_ITEMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    Fields = tuple[tuple[str, Callable[[object], bool]], ...]

HOST = "host"
PLUGIN = "plugin"


def is_name(value: object) -> bool:
    """Tell whether this can name an operation or an event type on the wire."""
    # Printable: it ends up in terminals and logs. That excludes lone surrogates as well, which
    # have no encoding.
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME_BYTES
        and value.isprintable()
        and len(value.encode()) <= MAX_NAME_BYTES
    )


def is_id(value: object) -> bool:
    """Tell whether this can number an exchange."""
    return type(value) is int and 0 < value <= MAX_ID


def is_count(value: object) -> bool:
    """Tell whether this can be a number of things."""
    return type(value) is int and 0 <= value <= MAX_ID


def is_clock(value: object) -> bool:
    """Tell whether this can be a reading of the machine's monotonic clock."""
    # Nanoseconds since the machine was started: 53 bits would last for 104 days.
    return type(value) is int and 0 <= value < 2**63


def is_flag(value: object) -> bool:
    """Tell whether this is true or false."""
    return type(value) is bool


def is_stream(value: object) -> bool:
    """Tell whether this can number a stream among those that are fed to one call."""
    return type(value) is int and 0 < value <= MAX_FEEDS


def is_many(value: object) -> bool:
    """Tell whether this can be a number of items that were taken: none is not worth a message."""
    return type(value) is int and 0 < value <= MAX_STREAM_ITEMS


class Message:
    """Base of all messages: the fields in order, then the payload.

    Two messages are equal when their type, fields and payload are.
    """

    number: ClassVar[int]
    sender: ClassVar[str]
    fields: ClassVar[Fields] = ()
    """``(name, check)`` in the order of the header."""

    __slots__ = ("payload",)

    def __init__(self, *values: object, payload: bytes = b"") -> None:
        names = self.fields
        if len(values) != len(names):
            text = f"{type(self).__name__} takes {len(names)} fields, not {len(values)}"
            raise LocalProtocolError(text)
        for (name, _), value in zip(names, values, strict=True):
            setattr(self, name, value)
        self.payload = payload

    def header(self) -> bytes:
        """Return the header's bytes.

        Raises:
            LocalProtocolError: a field does not pass its check.
        """
        values: list[object] = [self.number]
        for name, check in self.fields:
            value = getattr(self, name)
            if not check(value):
                text = f"{type(self).__name__}.{name} cannot be {value!r:.80}"
                raise LocalProtocolError(text)
            values.append(value)
        return bytes(msgpack.packb(values, use_bin_type=True))

    def _key(self) -> tuple[object, ...]:
        return (type(self), *(getattr(self, name) for name, _ in self.fields), self.payload)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in self.fields)
        return f"{type(self).__name__}({fields}; {len(self.payload)} bytes)"

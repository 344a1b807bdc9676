"""What every message is: a number, a sender, and fields that are checked. The table: `messages`."""

from __future__ import annotations

from _operator import attrgetter  # the half in C

from plugin_sdk.wire.codec import pack_flat
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import (
    MAX_EVENTS_AT_ONCE,
    MAX_FEEDS,
    MAX_ID,
    MAX_NAME_BYTES,
    MAX_STREAM_ITEMS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar

    Fields = tuple[tuple[str, Callable[[object], bool]], ...]

HOST = "host"
PLUGIN = "plugin"

known_names: set[str] = set()
_MAX_KNOWN_NAMES = 1_024
"""What has passed `is_name` before: calls name the same few operations again and again."""


def is_name(value: object) -> bool:
    """Tell whether this can name an operation or an event type on the wire."""
    if type(value) is str and value in known_names:
        return True
    # Printable: it ends up in terminals and logs. That excludes lone surrogates as well, which
    # have no encoding.
    is_one = (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME_BYTES
        and value.isprintable()
        and len(value.encode()) <= MAX_NAME_BYTES
    )
    if is_one and type(value) is str and len(known_names) < _MAX_KNOWN_NAMES:
        known_names.add(value)
    return is_one


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


def is_number_of_events(value: object) -> bool:
    """Tell whether this can be a number of events that are delivered, or were handled, together."""
    return type(value) is int and 0 < value <= MAX_EVENTS_AT_ONCE


class Message:
    """Base of all messages: the fields in order, then the payload.

    Two messages are equal when their type, fields and payload are.
    """

    number: ClassVar[int]
    sender: ClassVar[str]
    fields: ClassVar[Fields] = ()
    """``(name, check)`` in the order of the header."""
    checks: ClassVar[tuple[Callable[[object], bool], ...]] = ()
    _setters: ClassVar[tuple[Callable[[Message, object], None], ...]] = ()
    _values: ClassVar[Any]
    """Returns the number and the fields of a message."""

    __slots__ = ("payload",)

    def __init_subclass__(cls) -> None:
        # A call makes four messages, so what can be prepared is.
        names = [name for name, _ in cls.fields]
        cls.checks = tuple([check for _, check in cls.fields])
        cls._setters = tuple([cls.__dict__[name].__set__ for name in names])
        cls._values = attrgetter("number", *names)

    def __init__(self, *values: object, payload: bytes = b"") -> None:
        setters = self._setters
        if len(values) != len(setters):
            raise self.wrong_number(len(values))
        for assign, value in zip(setters, values):  # noqa: B905 - looked at; this is read often
            assign(self, value)
        self.payload = payload

    def header(self) -> bytes:
        """Return the header's bytes.

        Raises:
            LocalProtocolError: a field does not pass its check.
        """
        checks = self.checks
        if not checks:
            return pack_flat((self.number,))
        values = self._values(self)
        for check, value in zip(checks, values[1:]):  # noqa: B905 - as above
            if not check(value):
                raise LocalProtocolError(self.what_is_wrong(values[1:]))
        return pack_flat(values)

    @classmethod
    def read(cls, values: list[Any], payload: bytes) -> Message:
        """Return the message with this header, its number first, and this payload.

        Raises:
            RemoteProtocolError: there are other fields than it has.
        """
        del values[0]
        if len(values) != len(cls.checks):
            text = f"{cls.__name__} has {len(values)} fields, not {len(cls.checks)}"
            raise RemoteProtocolError(text)
        for check, value in zip(cls.checks, values):  # noqa: B905 - as above
            if not check(value):
                raise RemoteProtocolError(cls.what_is_wrong(values))
        return cls(*values, payload=payload)

    @classmethod
    def wrong_number(cls, count: int) -> LocalProtocolError:
        """Return the error for so many fields where a message is made here."""
        text = f"{cls.__name__} takes {len(cls.fields)} fields, not {count}"
        return LocalProtocolError(text)

    @classmethod
    def what_is_wrong(cls, values: Sequence[object]) -> str:
        """Say which of these values of its fields does not pass its check."""
        for (name, check), value in zip(cls.fields, values, strict=True):
            if not check(value):
                return f"{cls.__name__}.{name} cannot be {value!r:.80}"
        return ""

    def _key(self) -> tuple[object, ...]:
        return (type(self), *(getattr(self, name) for name, _ in self.fields), self.payload)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in self.fields)
        return f"{type(self).__name__}({fields}; {len(self.payload)} bytes)"

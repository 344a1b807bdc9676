"""Every message there is: its number, its sender, its fields. The table is the specification.

A message is a flat header (a msgpack array: the number, then the fields in order) and an opaque
payload. The connection checks headers; whoever wants a payload decodes it with `codec.unpack`.
"""

from __future__ import annotations

import msgpack

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import MAX_ID, MAX_NAME_BYTES

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


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_ID


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


def _is_clock(value: object) -> bool:
    # Nanoseconds since the machine was started: 53 bits would last for 104 days.
    return type(value) is int and 0 <= value < 2**63


def _is_flag(value: object) -> bool:
    return type(value) is bool


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


class Confine(Message):
    """Host: apply this lock-down (payload: the compiled plan), then report.

    Its header and those of `Confined` and `Failed` are the same in every version of the protocol:
    by them both sides learn which versions the other speaks.
    """

    __slots__ = ("newest", "oldest")
    number, sender = 1, HOST
    fields = (("oldest", _is_count), ("newest", _is_count))
    oldest: int
    newest: int


class Confined(Message):
    """Plugin side, still trusted: this was applied and read back (payload: the report)."""

    __slots__ = ("newest", "oldest")
    number, sender = 2, PLUGIN
    fields = (("oldest", _is_count), ("newest", _is_count))
    oldest: int
    newest: int


class Load(Message):
    """Host: import this plugin (payload: identity, places, configuration, events)."""

    __slots__ = ()
    number, sender = 3, HOST


class Ready(Message):
    """Plugin: imported and initialised (payload: metadata, operations, handled events)."""

    __slots__ = ()
    number, sender = 4, PLUGIN


class Failed(Message):
    """Plugin side: the lock-down or the load failed (payload: error); the process ends."""

    __slots__ = ("code",)
    number, sender = 5, PLUGIN
    fields = (("code", is_name),)
    code: str


class Call(Message):
    """Host: run an operation (payload: ``[args, kwargs]``).

    ``deadline_ns`` is a reading of CLOCK_MONOTONIC, which both processes share; 0 means none.
    A call whose deadline has passed before it starts is answered without being run.
    """

    __slots__ = ("deadline_ns", "id", "operation")
    number, sender = 6, HOST
    fields = (("id", _is_id), ("operation", is_name), ("deadline_ns", _is_clock))
    id: int
    operation: str
    deadline_ns: int


class Result(Message):
    """Plugin: the operation returned (payload: the value)."""

    __slots__ = ("id",)
    number, sender = 7, PLUGIN
    fields = (("id", _is_id),)
    id: int


class Failure(Message):
    """Plugin: the operation raised (payload: ``{type, message, traceback, place}``)."""

    __slots__ = ("code", "id")
    number, sender = 8, PLUGIN
    fields = (("id", _is_id), ("code", is_name))
    id: int
    code: str


class Deliver(Message):
    """Host: an event for this plugin's handlers (payload: type, data, timestamp, source, id)."""

    __slots__ = ("event_type", "id")
    number, sender = 9, HOST
    fields = (("id", _is_id), ("event_type", is_name))
    id: int
    event_type: str


class Handled(Message):
    """Plugin: all handlers of a delivered event ran (payload: errors of those that failed)."""

    __slots__ = ("id", "ok")
    number, sender = 10, PLUGIN
    fields = (("id", _is_id), ("ok", _is_flag))
    id: int
    ok: bool


class Publish(Message):
    """Plugin: publish an event (payload: its data). The host stamps source and time."""

    __slots__ = ("event_type",)
    number, sender = 11, PLUGIN
    fields = (("event_type", is_name),)
    event_type: str


class Stop(Message):
    """Host: finish what was sent before this, run ``cleanup()``, and end."""

    __slots__ = ()
    number, sender = 12, HOST


class Stopped(Message):
    """Plugin: cleaned up (payload: ``{ok, error}``); nothing follows but the end of the stream."""

    __slots__ = ()
    number, sender = 13, PLUGIN


class Ask(Message):
    """Plugin: have a service of the host's application done (payload: ``[args, kwargs]``)."""

    __slots__ = ("id", "service")
    number, sender = 14, PLUGIN
    fields = (("id", _is_id), ("service", is_name))
    id: int
    service: str


class Answer(Message):
    """Host: the service's value, or why there is none (payload: ``{message}``)."""

    __slots__ = ("id", "ok")
    number, sender = 15, HOST
    fields = (("id", _is_id), ("ok", _is_flag))
    id: int
    ok: bool


MESSAGES: dict[int, type[Message]] = {
    message.number: message
    for message in (
        Confine,
        Confined,
        Load,
        Ready,
        Failed,
        Call,
        Result,
        Failure,
        Deliver,
        Handled,
        Publish,
        Stop,
        Stopped,
        Ask,
        Answer,
    )
}


def parse_message(header: bytes, payload: bytes) -> Message:
    """Return the message of a frame.

    Raises:
        RemoteProtocolError: the header is no flat array of the fields that its number demands.
    """
    try:
        values = msgpack.unpackb(header, raw=False, max_array_len=8, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        text = f"header is not acceptable msgpack: {str(error)[:200] or type(error).__name__}"
        raise RemoteProtocolError(text) from None
    if type(values) is not list or not values or type(values[0]) is not int:
        text = "header is not an array that starts with a message number"
        raise RemoteProtocolError(text)
    kind = MESSAGES.get(values[0])
    if kind is None:
        text = f"unknown message number {values[0]}"
        raise RemoteProtocolError(text)
    if len(values) != len(kind.fields) + 1:
        text = f"{kind.__name__} has {len(values) - 1} fields, not {len(kind.fields)}"
        raise RemoteProtocolError(text)
    for (name, check), value in zip(kind.fields, values[1:], strict=True):
        if not check(value):
            text = f"{kind.__name__}.{name} cannot be {value!r:.80}"
            raise RemoteProtocolError(text)
    return kind(*values[1:], payload=payload)

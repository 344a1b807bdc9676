"""Every message there is: its number, its sender, its fields. The table is the specification.

A message is a flat header (a msgpack array: the number, then the fields in order) and an opaque
payload. The connection checks headers; whoever wants a payload decodes it with `codec.unpack`.
"""

from __future__ import annotations

from msgpack import unpackb as _unpackb

from plugin_sdk.wire.codec import pack_flat
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import MAX_ID
from plugin_sdk.wire.message import (
    HOST,
    PLUGIN,
    Message,
    is_clock,
    is_count,
    is_flag,
    is_id,
    is_many,
    is_name,
    is_number_of_events,
    is_stream,
    known_names,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLOCK_END = 2**63


def is_call(number: Any, operation: Any, deadline_ns: Any) -> bool:
    """Tell whether these are the fields of a `Call` whose name was seen before."""
    return (
        type(number) is int
        and 0 < number <= MAX_ID
        and type(operation) is str
        and operation in known_names
        and type(deadline_ns) is int
        and 0 <= deadline_ns < _CLOCK_END
    )


class Confine(Message):
    """Host: apply this lock-down (payload: the compiled plan), then report.

    Its header and those of `Confined` and `Failed` are the same in every version of the protocol:
    by them both sides learn which versions the other speaks.
    """

    __slots__ = ("newest", "oldest")
    number, sender = 1, HOST
    fields = (("oldest", is_count), ("newest", is_count))
    oldest: int
    newest: int


class Confined(Message):
    """Plugin side, still trusted: this was applied and read back (payload: the report)."""

    __slots__ = ("newest", "oldest")
    number, sender = 2, PLUGIN
    fields = (("oldest", is_count), ("newest", is_count))
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
    fields = (("id", is_id), ("operation", is_name), ("deadline_ns", is_clock))
    id: int
    operation: str
    deadline_ns: int

    # One of these and a Result are made and read for every call, on either side: they do at once
    # what their base does field by field, and leave to it what is unusual.

    def __init__(self, *values: Any, payload: bytes = b"") -> None:
        try:
            self.id, self.operation, self.deadline_ns = values
        except ValueError:
            raise self.wrong_number(len(values)) from None
        self.payload = payload

    def header(self) -> bytes:
        """See `Message.header`."""
        number, operation, deadline_ns = self.id, self.operation, self.deadline_ns
        if is_call(number, operation, deadline_ns):
            return pack_flat((6, number, operation, deadline_ns))
        return super().header()

    @classmethod
    def read(cls, values: list[Any], payload: bytes) -> Message:
        """See `Message.read`."""
        if len(values) == 4:  # noqa: PLR2004 - its number and its fields
            _, number, operation, deadline_ns = values
            if is_call(number, operation, deadline_ns):
                return cls(number, operation, deadline_ns, payload=payload)
        return super().read(values, payload)


class Result(Message):
    """Plugin: the operation returned (payload: the value)."""

    __slots__ = ("id",)
    number, sender = 7, PLUGIN
    fields = (("id", is_id),)
    id: int

    def __init__(self, *values: Any, payload: bytes = b"") -> None:
        try:
            (self.id,) = values
        except ValueError:
            raise self.wrong_number(len(values)) from None
        self.payload = payload

    def header(self) -> bytes:
        """See `Message.header`."""
        number = self.id
        if type(number) is int and 0 < number <= MAX_ID:
            return pack_flat((7, number))
        return super().header()

    @classmethod
    def read(cls, values: list[Any], payload: bytes) -> Message:
        """See `Message.read`."""
        if len(values) == 2 and type(values[1]) is int and 0 < values[1] <= MAX_ID:  # noqa: PLR2004 - as in Call
            return cls(values[1], payload=payload)
        return super().read(values, payload)


class Failure(Message):
    """Plugin: the operation raised (payload: ``{type, message, traceback, place}``)."""

    __slots__ = ("code", "id")
    number, sender = 8, PLUGIN
    fields = (("id", is_id), ("code", is_name))
    id: int
    code: str


class Deliver(Message):
    """Host: an event for this plugin's handlers (payload: type, data, timestamp, source, id)."""

    __slots__ = ("event_type", "id")
    number, sender = 9, HOST
    fields = (("id", is_id), ("event_type", is_name))
    id: int
    event_type: str


class Handled(Message):
    """Plugin: all handlers of a delivered event ran (payload: errors of those that failed)."""

    __slots__ = ("id", "ok")
    number, sender = 10, PLUGIN
    fields = (("id", is_id), ("ok", is_flag))
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
    """Plugin: have a service of the host's done (payload: ``[args, kwargs]``).

    ``deadline_ns`` is when the asker stops waiting, as in `Call`; 0 means that it says none.
    """

    __slots__ = ("deadline_ns", "id", "service")
    number, sender = 14, PLUGIN
    fields = (("id", is_id), ("service", is_name), ("deadline_ns", is_clock))
    id: int
    service: str
    deadline_ns: int


class Answer(Message):
    """Host: the service's value, or why there is none (payload: ``{message}``)."""

    __slots__ = ("id", "ok")
    number, sender = 15, HOST
    fields = (("id", is_id), ("ok", is_flag))
    id: int
    ok: bool


class Cancel(Message):
    """Host: nobody waits for this call any more. It is answered all the same, soon.

    ``late`` tells that its deadline has passed, so that the operation can tell the two apart.
    """

    __slots__ = ("id", "late")
    number, sender = 16, HOST
    fields = (("id", is_id), ("late", is_flag))
    id: int
    late: bool


class Yield(Message):
    """Plugin: the next item of the stream that a call returns (payload: the value)."""

    __slots__ = ("id",)
    number, sender = 17, PLUGIN
    fields = (("id", is_id),)
    id: int


class YieldCredit(Message):
    """Host: so many items more were taken by who reads what the call returns."""

    __slots__ = ("id", "items")
    number, sender = 18, HOST
    fields = (("id", is_id), ("items", is_many))
    id: int
    items: int


class Feed(Message):
    """Host: the next item of a stream that was passed to a call (payload: the value)."""

    __slots__ = ("id", "stream")
    number, sender = 19, HOST
    fields = (("id", is_id), ("stream", is_stream))
    id: int
    stream: int


class FeedEnd(Message):
    """Host: that stream is at its end, or (not ``ok``, payload: ``{message}``) was cut off."""

    __slots__ = ("id", "ok", "stream")
    number, sender = 20, HOST
    fields = (("id", is_id), ("stream", is_stream), ("ok", is_flag))
    id: int
    stream: int
    ok: bool


class FeedCredit(Message):
    """Plugin: so many items more of that stream were taken by the operation."""

    __slots__ = ("id", "items", "stream")
    number, sender = 21, PLUGIN
    fields = (("id", is_id), ("stream", is_stream), ("items", is_many))
    id: int
    stream: int
    items: int


class FeedStop(Message):
    """Plugin: the operation reads no more of that stream."""

    __slots__ = ("id", "stream")
    number, sender = 22, PLUGIN
    fields = (("id", is_id), ("stream", is_stream))
    id: int
    stream: int


class Progress(Message):
    """Plugin: so much of a call is done."""

    __slots__ = ("done", "id", "total")
    number, sender = 23, PLUGIN
    fields = (("id", is_id), ("done", is_count), ("total", is_count))
    id: int
    done: int
    total: int


class Log(Message):
    """Plugin: an entry for the log, by Python's numbers of levels (payload: the text)."""

    __slots__ = ("level", "logger")
    number, sender = 24, PLUGIN
    fields = (("level", is_count), ("logger", is_name))
    level: int
    logger: str


class Withdraw(Message):
    """Plugin: nobody waits for this service any more. It is answered all the same."""

    __slots__ = ("id",)
    number, sender = 25, PLUGIN
    fields = (("id", is_id),)
    id: int


class DeliverMany(Message):
    """Host: events of one type for this plugin's handlers, in their order.

    Payload: a list of lists, each of data, timestamp, source, id. It is one delivery, and has one
    `Handled`, when the handlers of the last one ran.
    """

    __slots__ = ("event_type", "events", "id")
    number, sender = 26, HOST
    fields = (("id", is_id), ("event_type", is_name), ("events", is_number_of_events))
    id: int
    event_type: str
    events: int


class HandledSome(Message):
    """Plugin: the handlers of so many more of them ran, not those of the last one yet.

    Payload: where not ``ok``, errors of the last of these, as in `Handled`.
    """

    __slots__ = ("events", "id", "ok")
    number, sender = 27, PLUGIN
    fields = (("id", is_id), ("events", is_number_of_events), ("ok", is_flag))
    id: int
    events: int
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
        Cancel,
        Yield,
        YieldCredit,
        Feed,
        FeedEnd,
        FeedCredit,
        FeedStop,
        Progress,
        Log,
        Withdraw,
        DeliverMany,
        HandledSome,
    )
}


def parse_message(header: bytes, payload: bytes) -> Message:
    """Return the message of a frame.

    Raises:
        RemoteProtocolError: the header is no flat array of the fields that its number demands.
    """
    try:
        values = _unpackb(header, raw=False, max_array_len=8, max_map_len=0, max_ext_len=0)
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
    return kind.read(values, payload)

"""Events as a plugin sees them: the value that is delivered, and how a handler is marked."""

from __future__ import annotations

from plugin_sdk.errors import EventTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Handler = TypeVar("Handler", bound=Callable[..., Any])

HANDLES = "__plugin_handles__"
"""Attribute that `on` leaves on a function: a tuple of event types."""

# Letters, digits and "_", joined by dots: the host's grammar of an event type, without the cost of
# a regular expression at the start of every plugin.
MAX_TYPE_LENGTH = 64
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


class Event:
    """Something that happened, as it is handed to a handler.

    Attributes:
        type: the event type, such as ``"data_processed"``.
        data: what the publisher sent with it: plain values only.
        timestamp: seconds since the epoch, UTC, stamped by the host.
        source: identity of the plugin that published it, or ``"host"``; stamped by the host.
        id: increases with every event of this host.
    """

    __slots__ = ("data", "id", "source", "timestamp", "type")

    def __init__(
        self,
        type: str,  # noqa: A002 - the field's name everywhere, also on the wire
        data: Any = None,
        timestamp: float = 0.0,
        source: str = "host",
        id: int = 0,  # noqa: A002 - as above
    ) -> None:
        self.type = type
        self.data = data
        self.timestamp = timestamp
        self.source = source
        self.id = id

    def __repr__(self) -> str:
        return f"Event({self.type!r}, id={self.id}, source={self.source!r})"


def check_event_type(event_type: object) -> str:
    """Return ``event_type`` when it is well-formed.

    Raises:
        EventTypeError: it is not words joined by dots, or longer than 64 characters.
    """
    if isinstance(event_type, str) and 0 < len(event_type) <= MAX_TYPE_LENGTH:
        words = event_type.split(".")
        if _CHARACTERS.issuperset(event_type) and all(words) and event_type[0].isalpha():
            return event_type
    text = (
        f'{event_type!r:.80} is not an event type; use a name such as "data_processed" or '
        f'"weather.updated" (letters, digits, "_" and "."; at most {MAX_TYPE_LENGTH} characters)'
    )
    raise EventTypeError(text)


def on(*event_types: str) -> Callable[[Handler], Handler]:
    """Mark a function as the handler of one or more event types.

    The function takes one argument, an `Event`. Its types must stand in plugin.json's ``events``.
    A handler that raises is logged; the other handlers still run.

    Raises:
        EventTypeError: a type is malformed, or none is given (``@on`` without a type).
    """
    if not event_types:
        text = '@on needs an event type: write @on("data_processed")'
        raise EventTypeError(text)
    types = tuple(check_event_type(event_type) for event_type in event_types)

    def mark(function: Handler) -> Handler:
        target = getattr(function, "__func__", function)
        setattr(target, HANDLES, (*getattr(target, HANDLES, ()), *types))
        return function

    return mark

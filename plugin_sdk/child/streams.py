"""Streams on the plugin's side: what is fed to an operation, and what it yields.

Both wait for the host's credit, so that neither side ever holds more of a stream than its window.
"""

from __future__ import annotations

from plugin_sdk.errors import StreamBrokenError
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import LocalProtocolError
from plugin_sdk.wire.limits import MAX_STREAM_BYTES, MAX_STREAM_ITEMS
from plugin_sdk.wire.messages import FeedCredit, FeedStop, Yield

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from plugin_sdk.child.calls import CallState
    from plugin_sdk.child.io import ChildChannel

# The host is told of what was taken when a quarter of the window is free again: seldom enough to
# cost little, early enough that its writer need not wait.
_CREDIT_ITEMS = MAX_STREAM_ITEMS // 4
_CREDIT_BYTES = MAX_STREAM_BYTES // 4


class Incoming:
    """An argument that is a stream: for ``for``, and for ``async for`` in an ``async def``.

    Its items come as the host's side yields them. It can be read once, by one reader, until the
    operation ends. `close` says that no more of it is wanted.
    """

    __slots__ = ("_call", "_channel", "_fed", "_number")

    def __init__(self, channel: ChildChannel, call: CallState, number: int) -> None:
        self._channel = channel
        self._call = call
        self._number = number
        self._fed = call.stream(number)

    def __iter__(self) -> Incoming:
        return self

    def __next__(self) -> Any:
        if not self._fed.items:
            self._credit()
            self._channel.wait(self._ready)
        if self._is_over():
            raise StopIteration
        return self._take()

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> Any:
        if not self._fed.items:
            self._credit()
            from plugin_sdk.child.tasks import wait

            await wait(self._channel, self._ready)
        if self._is_over():
            raise StopAsyncIteration
        return self._take()

    def close(self) -> None:
        """Read no more of it: whoever feeds it is told to stop."""
        fed = self._fed
        if fed.stopped:
            return
        fed.stopped = True
        fed.items.clear()
        if not fed.ended and self._call.active:
            self._channel.send(FeedStop(self._call.id, self._number))

    def _ready(self) -> bool:
        fed = self._fed
        return bool(fed.items) or fed.ended or fed.stopped or not self._call.active

    def _is_over(self) -> bool:
        """Tell whether there is nothing more; the end of the host's process is one, too.

        Raises:
            StreamBrokenError: it was cut off.
        """
        fed = self._fed
        if fed.items:
            return False
        if fed.stopped or (fed.ended and fed.problem is None):
            return True
        if fed.problem is not None:
            text = f"the stream was cut off: {unpack(fed.problem)['message']}"
            raise StreamBrokenError(text)
        text = "the stream belongs to a call that has ended"
        raise StreamBrokenError(text)

    def _take(self) -> Any:
        fed = self._fed
        payload = fed.items.popleft()
        fed.uncredited[0] += 1
        fed.uncredited[1] += len(payload)
        if fed.uncredited[0] >= _CREDIT_ITEMS or fed.uncredited[1] >= _CREDIT_BYTES:
            self._credit()
        return unpack(payload)

    def _credit(self) -> None:
        fed = self._fed
        items, fed.uncredited = fed.uncredited[0], [0, 0]
        if items and self._call.active and not fed.stopped:
            self._channel.send(FeedCredit(self._call.id, self._number, items))


def send_items(channel: ChildChannel, call: CallState, items: Any) -> Any:
    """Yield to the host what an iterator yields; return what a generator returned, or None.

    Whatever ends this early closes it: a generator's ``finally`` runs.
    """
    size, yielded = 0, False

    def fits() -> bool:
        return channel.may_yield(call.id, size)

    try:
        while True:
            try:
                item = next(items)
            except StopIteration as stop:
                if not yielded:
                    channel.send(Yield(call.id))
                return stop.value
            payload = pack(item)
            item = None  # it may be large, and the next one is made while the reader is waited for
            size = len(payload)
            channel.wait(fits)
            channel.send(Yield(call.id, payload=payload))
            yielded = True
    finally:
        close = getattr(items, "close", None)  # an iterator need not have it
        if close is not None:
            close()


async def send_items_of(channel: ChildChannel, call: CallState, items: Any) -> None:
    """Do the same for an asynchronous generator."""
    from plugin_sdk.child.tasks import wait

    size, yielded = 0, False

    def fits() -> bool:
        return channel.may_yield(call.id, size)

    try:
        async for item in items:
            payload = pack(item)
            size = len(payload)
            await wait(channel, fits)
            channel.send(Yield(call.id, payload=payload))
            yielded = True
        if not yielded:
            channel.send(Yield(call.id))
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def place_feeds(
    channel: ChildChannel, call: CallState, arguments: list[Any], keywords: dict[str, Any], at: Any
) -> None:
    """Put the streams of a call where its caller passed them: an index, or a keyword's name.

    Raises:
        LocalProtocolError: there is no such place.
    """
    for number, place in enumerate(at, 1):
        stream = Incoming(channel, call, number)
        if type(place) is int and 0 <= place < len(arguments):
            arguments[place] = stream
        elif type(place) is str and place in keywords:
            keywords[place] = stream
        else:
            text = f"no argument is at {place!r:.80}, where a stream was passed"
            raise LocalProtocolError(text)

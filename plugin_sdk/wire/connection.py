"""One side of the conversation: bytes in, messages out; messages in, bytes out. No I/O.

Four verbs: `receive_data`, `receive_eof`, `events_received`, and `send` with `data_to_send`. The
same class serves the host and the child; ``role`` says which end it is.
"""

from __future__ import annotations

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import ASKED_TOO_MUCH, FrameReader, build_frame, build_large_frame
from plugin_sdk.wire.limits import MAX_ASKED, MAX_OUTSTANDING, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Cancel,
    Deliver,
    DeliverMany,
    Failure,
    Feed,
    FeedCredit,
    FeedEnd,
    FeedStop,
    Handled,
    HandledSome,
    Progress,
    Result,
    Withdraw,
    Yield,
    YieldCredit,
    parse_message,
)
from plugin_sdk.wire.payloads import INLINE_BYTES
from plugin_sdk.wire.state import CLOSED, NEW, TABLE
from plugin_sdk.wire.streams import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugin_sdk.wire.arena import Arena

_OPENING = {Call: HOST, Deliver: HOST, DeliverMany: HOST, Ask: PLUGIN}
_CLOSING = {Result: Call, Failure: Call, Handled: Deliver, Answer: Ask}
_WITHIN = {
    Cancel: Call,
    Yield: Call,
    YieldCredit: Call,
    Feed: Call,
    FeedEnd: Call,
    FeedCredit: Call,
    FeedStop: Call,
    Progress: Call,
    HandledSome: Deliver,
    Withdraw: Ask,
}
"""What is said of an exchange before it is closed."""

_WITH_VALUES = (Call, Result, Ask, Answer, Yield, Feed)
"""What may have its payload there."""

_NOTHING: dict[type[Message], str] = {}
"""What one side may say where the table has no line for it."""

RETURNED = 0
"""Number of the stream that a call returns, among those of the call."""
_AFTER_THE_END = "bytes after the end of the session"


class _Exchanges:
    """What one side has opened and the other not yet closed; ids count up on either side."""

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self.what = what
        self.last_id = 0
        self.open: dict[int, type[Message]] = {}


class Connection:
    """The protocol's state at one end of the pipe.

    Args:
        role: `HOST` or `PLUGIN`: who we are.
        max_payload_bytes: limit of one payload in either direction, in bytes.

    Attributes:
        crossed: how many messages came of exchanges that this side had closed meanwhile.
        to_send: the frames that `data_to_send` returns; to be looked at, not to be changed.

    After a `RemoteProtocolError` the connection is closed and accepts nothing more. After a message
    of its own that closes the session it drops whatever has crossed that.
    """

    def __init__(self, role: str, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.role = role
        self._ours, self._theirs = TABLE[role], TABLE[PLUGIN if role == HOST else HOST]
        self.state = NEW
        self.max_payload_bytes = max_payload_bytes
        self._reader = FrameReader(max_payload_bytes)
        self.crossed = 0
        self._received: list[Message] = []
        self.to_send: list[bytes] = []
        self._left = False
        self._exchanges = {
            HOST: _Exchanges(MAX_OUTSTANDING, "calls and deliveries"),
            PLUGIN: _Exchanges(MAX_ASKED, "services asked for"),
        }
        self._windows = Windows()
        self._unhandled: dict[int, int] = {}  # events of a DeliverMany, by its id
        self._inline_bytes = min(max_payload_bytes, INLINE_BYTES)
        self._lends = False

    @property
    def state(self) -> str:
        """Where the session is; see `state`."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state
        self._may_send = self._ours.get(state, _NOTHING)
        self._may_come = self._theirs.get(state, _NOTHING)

    @property
    def arena(self) -> Arena | None:
        """Memory that both sides share, where large payloads may come from; see `lend`."""
        return self._reader.arena

    @arena.setter
    def arena(self, arena: Arena | None) -> None:
        self._reader.arena = arena

    def allow(self, max_payload_bytes: int) -> None:
        """Have payloads of so many bytes from now on, in either direction: the host has said so."""
        self.max_payload_bytes = max_payload_bytes
        self._inline_bytes = min(max_payload_bytes, INLINE_BYTES)
        self._reader.allow(max_payload_bytes)

    def lend(self) -> None:
        """Put large payloads into the arena from now on: the other side has it, and looks there."""
        self._lends = self.arena is not None

    @property
    def outstanding(self) -> int:
        """Calls and deliveries that have no answer yet."""
        return len(self._exchanges[HOST].open)

    def is_open(self, call: int) -> bool:
        """Tell whether a call has no answer yet."""
        return self._exchanges[HOST].open.get(call) is Call

    def may_yield(self, call: int, size: int) -> bool:
        """Tell whether the next item of what a call returns may be sent, at so many bytes."""
        return self._windows.have_room(call, RETURNED, size)

    def may_feed(self, call: int, stream: int, size: int) -> bool:
        """Tell whether the next item of a stream may be fed to a call, at so many bytes."""
        return self._windows.have_room(call, stream, size)

    def receive_data(self, data: bytes) -> None:
        """Take what was read from the pipe; complete messages appear in `events_received`.

        Raises:
            RemoteProtocolError: the peer broke the protocol. Messages before the broken one are
                kept and can still be taken.
        """
        if self._left:
            # An answer that the host sent before it could read that this side has stopped.
            return
        if self._state == CLOSED:
            raise RemoteProtocolError(_AFTER_THE_END)
        only = self._reader.only_frame(data)
        if only is None:
            self._reader.feed(data)
        try:
            if only is not None:
                message = parse_message(*only)
                if self._accept(message):
                    self._received.append(message)
                return
            while self._state != CLOSED and (frame := self._reader.next_frame()) is not None:
                message = parse_message(*frame)
                if self._accept(message):
                    self._received.append(message)
            # However the bytes were cut: what follows the end is a fault in this read or a later.
            if self.state == CLOSED and self._reader.pending_bytes:
                raise RemoteProtocolError(_AFTER_THE_END)
        except RemoteProtocolError:
            self.state = CLOSED
            self._reader.clear()
            raise

    def receive_eof(self) -> None:
        """The peer closed its end.

        Raises:
            RemoteProtocolError: it did so in the middle of a frame.
        """
        self.state = CLOSED
        if self._reader.pending_bytes and not self._left:
            text = f"stream ended inside a frame, after {self._reader.pending_bytes} bytes of it"
            raise RemoteProtocolError(text)

    def events_received(self) -> list[Message]:
        """Return the messages that came in since the last time, and forget them."""
        received, self._received = self._received, []
        return received

    def send(self, message: Message) -> None:
        """Queue a message for `data_to_send`.

        Raises:
            LocalProtocolError: it is not ours to send, not now, or breaks a limit.
        """
        after = self._may_send.get(type(message))
        if after is None:
            if message.sender != self.role:
                text = f"{type(message).__name__} is not sent by the {self.role}"
            else:
                text = f"{type(message).__name__} cannot be sent while {self.state}"
            raise LocalProtocolError(text)
        payload = message.payload
        if len(payload) <= self._inline_bytes:
            frame = build_frame(message.header(), payload, self._inline_bytes)
            self._track(message, LocalProtocolError)
        else:
            frame = self._send_large(message)
        if after != self._state:
            self.state = after
            self._left = after == CLOSED
        self.to_send.append(frame)

    def _send_large(self, message: Message) -> bytes:
        """Return the frame of a message with a large payload, which may be elsewhere then."""
        arena = self.arena if self._lends and isinstance(message, _WITH_VALUES) else None
        if arena is not None and not arena.has_room(len(message.payload)):
            arena = None
        frame = build_large_frame(
            message.header(),
            message.payload,
            self.max_payload_bytes,
            elsewhere=arena is not None,
        )
        self._track(message, LocalProtocolError)
        if arena is not None:
            arena.put(message.payload)
        return frame

    def data_to_send(self) -> bytes:
        """Return the bytes of all queued messages, and forget them."""
        if not self.to_send:
            return b""
        queued, self.to_send = self.to_send, []
        return queued[0] if len(queued) == 1 else b"".join(queued)

    def _accept(self, message: Message) -> bool:
        """Check a message that came; False where an answer of ours has crossed it: of no use."""
        after = self._may_come.get(type(message))
        if after is None:
            if message.sender == self.role:
                text = f"{type(message).__name__} is not for the peer to send"
            else:
                text = f"{type(message).__name__} is not allowed while {self.state}"
            raise RemoteProtocolError(text)
        if type(message) is Ask and len(message.payload) > MAX_PAYLOAD_BYTES:
            raise RemoteProtocolError(ASKED_TOO_MUCH)
        if type(message) in _WITHIN and self._has_crossed(message):
            self.crossed += 1
            return False
        self._track(message, RemoteProtocolError)
        if after != self._state:
            self.state = after
        return True

    def _has_crossed(self, message: Message) -> bool:
        """Tell whether a message within an exchange comes when this side has closed that."""
        opened = _WITHIN[type(message)]
        if _OPENING[opened] == self.role:
            return False
        exchanges = self._exchanges[_OPENING[opened]]
        number: int = message.id  # type: ignore[attr-defined]  # each of these has an id
        return number not in exchanges.open and number <= exchanges.last_id

    def _track(self, message: Message, error: type[Exception]) -> None:
        """Pair answers with what they answer: no forged, repeated or unasked-for answer."""
        kind = type(message)
        opens = _OPENING.get(kind)
        if opens is not None:
            self._open(self._exchanges[opens], message, error)
            return
        opened = _CLOSING.get(kind)
        closes = opened is not None
        if opened is None and (opened := _WITHIN.get(kind)) is None:
            return
        exchanges = self._exchanges[_OPENING[opened]]
        number: int = message.id  # type: ignore[attr-defined]  # as above
        if exchanges.open.get(number) is not opened:
            verb = "is of" if kind in _WITHIN else "answers"
            text = f"{kind.__name__} {verb} {number}, which is not outstanding"
            raise error(text)
        if not closes:
            if isinstance(message, HandledSome):
                self._count_events(message, error)
            else:
                self._count(message, error)
            return
        del exchanges.open[number]
        if opened is Call:
            self._windows.forget(number)
        elif opened is Deliver:
            self._unhandled.pop(number, None)

    def _count(self, message: Message, error: type[Exception]) -> None:
        """Keep the streams of a call within their credits."""
        if isinstance(message, Yield | Feed | FeedEnd):
            stream = RETURNED if isinstance(message, Yield) else message.stream
            window, size = self._windows.of(message.id, stream), len(message.payload)
            ends = isinstance(message, FeedEnd)
            if window.ended:
                text = f"{type(message).__name__} after the end of a stream of {message.id}"
            elif ends or window.has_room(size):
                window.ended = ends
                if not ends:
                    window.add(size)
                return
            else:
                text = f"{type(message).__name__} of {message.id} beyond its credit"
            raise error(text)
        if isinstance(message, YieldCredit | FeedCredit):
            stream = RETURNED if isinstance(message, YieldCredit) else message.stream
            if not self._windows.of(message.id, stream).take(message.items):
                text = f"{type(message).__name__} of {message.id} for more than there was"
                raise error(text)
        elif isinstance(message, FeedStop):
            window = self._windows.of(message.id, message.stream)
            if window.stopped:
                text = f"FeedStop of {message.id} comes twice"
                raise error(text)
            window.stopped = True

    def _count_events(self, message: HandledSome, error: type[Exception]) -> None:
        """Have no event handled twice: a Deliver has one, and Handled speaks for the last."""
        left = self._unhandled.get(message.id, 1) - message.events
        if left < 1:
            text = f"HandledSome of {message.id} for more than may be before Handled"
            raise error(text)
        self._unhandled[message.id] = left

    def _open(self, exchanges: _Exchanges, message: Message, error: type[Exception]) -> None:
        number: int = message.id  # type: ignore[attr-defined]  # as above
        if number <= exchanges.last_id:
            text = f"{type(message).__name__} reuses the id {number}"
            raise error(text)
        if len(exchanges.open) >= exchanges.most:
            text = f"more than {exchanges.most} {exchanges.what} are outstanding"
            raise error(text)
        exchanges.last_id = number
        if isinstance(message, DeliverMany):
            exchanges.open[number] = Deliver
            self._unhandled[number] = message.events
        else:
            exchanges.open[number] = type(message)

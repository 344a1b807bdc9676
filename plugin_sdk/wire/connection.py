"""One side of the conversation: bytes in, messages out; messages in, bytes out. No I/O.

Four verbs: `receive_data`, `receive_eof`, `events_received`, and `send` with `data_to_send`. The
same class serves the host and the child; ``role`` says which end it is.
"""

from __future__ import annotations

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import FrameReader, build_frame
from plugin_sdk.wire.limits import MAX_ASKED, MAX_OUTSTANDING, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.messages import (
    HOST,
    PLUGIN,
    Answer,
    Ask,
    Call,
    Deliver,
    Failure,
    Handled,
    Message,
    Result,
    parse_message,
)
from plugin_sdk.wire.state import CLOSED, NEW, next_state

_OPENING = {Call: HOST, Deliver: HOST, Ask: PLUGIN}
_CLOSING = {Result: Call, Failure: Call, Handled: Deliver, Answer: Ask}
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

    After a `RemoteProtocolError` the connection is closed and accepts nothing more. After a message
    of its own that closes the session it drops whatever has crossed that.
    """

    def __init__(self, role: str, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.role = role
        self.state = NEW
        self.max_payload_bytes = max_payload_bytes
        self._reader = FrameReader(max_payload_bytes)
        self._received: list[Message] = []
        self._to_send: list[bytes] = []
        self._left = False
        self._exchanges = {
            HOST: _Exchanges(MAX_OUTSTANDING, "calls and deliveries"),
            PLUGIN: _Exchanges(MAX_ASKED, "services asked for"),
        }

    @property
    def outstanding(self) -> int:
        """Calls and deliveries that have no answer yet."""
        return len(self._exchanges[HOST].open)

    def receive_data(self, data: bytes) -> None:
        """Take what was read from the pipe; complete messages appear in `events_received`.

        Raises:
            RemoteProtocolError: the peer broke the protocol. Messages before the broken one are
                kept and can still be taken.
        """
        if self._left:
            # An answer that the host sent before it could read that this side has stopped.
            return
        if self.state == CLOSED:
            raise RemoteProtocolError(_AFTER_THE_END)
        self._reader.feed(data)
        try:
            while self.state != CLOSED and (frame := self._reader.next_frame()) is not None:
                message = parse_message(*frame)
                self._accept(message)
                self._received.append(message)
        except RemoteProtocolError:
            self.state = CLOSED
            raise
        # However the bytes were cut: what follows the end is a fault in the same read or a later.
        if self.state == CLOSED and self._reader.pending_bytes:
            raise RemoteProtocolError(_AFTER_THE_END)

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
        if message.sender != self.role:
            text = f"{type(message).__name__} is not sent by the {self.role}"
            raise LocalProtocolError(text)
        after = next_state(self.state, type(message))
        if after is None:
            text = f"{type(message).__name__} cannot be sent while {self.state}"
            raise LocalProtocolError(text)
        frame = build_frame(message.header(), message.payload, self.max_payload_bytes)
        self._track(message, LocalProtocolError)
        self.state = after
        self._left = after == CLOSED
        self._to_send.append(frame)

    def data_to_send(self) -> bytes:
        """Return the bytes of all queued messages, and forget them."""
        if not self._to_send:
            return b""
        data = self._to_send[0] if len(self._to_send) == 1 else b"".join(self._to_send)
        self._to_send.clear()
        return data

    def _accept(self, message: Message) -> None:
        if message.sender == self.role:
            text = f"{type(message).__name__} is not for the peer to send"
            raise RemoteProtocolError(text)
        after = next_state(self.state, type(message))
        if after is None:
            text = f"{type(message).__name__} is not allowed while {self.state}"
            raise RemoteProtocolError(text)
        self._track(message, RemoteProtocolError)
        self.state = after

    def _track(self, message: Message, error: type[Exception]) -> None:
        """Pair answers with what they answer: no forged, repeated or unasked-for answer."""
        kind = type(message)
        opener = _OPENING.get(kind)
        if opener is not None:
            self._open(self._exchanges[opener], message, error)
            return
        opened = _CLOSING.get(kind)
        if opened is None:
            return
        exchanges = self._exchanges[_OPENING[opened]]
        answered = message.id  # type: ignore[attr-defined]  # every closing message has an id
        if exchanges.open.get(answered) is not opened:
            text = f"{kind.__name__} answers {answered}, which is not outstanding"
            raise error(text)
        del exchanges.open[answered]

    def _open(self, exchanges: _Exchanges, message: Message, error: type[Exception]) -> None:
        number: int = message.id  # type: ignore[attr-defined]  # as above
        if number <= exchanges.last_id:
            text = f"{type(message).__name__} reuses the id {number}"
            raise error(text)
        if len(exchanges.open) >= exchanges.most:
            text = f"more than {exchanges.most} {exchanges.what} are outstanding"
            raise error(text)
        exchanges.last_id = number
        exchanges.open[number] = type(message)

"""Messages over a stream socket: four bytes of length, then msgpack; each under a limit.

The length is checked before anything is allocated, and what was allocated is decoded under bounds
of its own (`codec`). One deadline holds for a whole frame: who sends a byte a second does not get
more time by it.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import (
    MAX_CONTAINERS,
    MAX_ELEMENTS,
    MAX_EVENT_CONTAINERS,
    MAX_EVENT_ELEMENTS,
    MAX_PAYLOAD_BYTES,
    Bounds,
)
from sandbox_host.model import MIB

MAX_REQUEST_BYTES: Final = MIB
MAX_ANSWER_BYTES: Final = MAX_PAYLOAD_BYTES + 64 * 1024
"""What a plugin may return, and what stands around it."""

_DEPTH: Final = 40

REQUEST: Final = Bounds(MAX_REQUEST_BYTES, _DEPTH, MAX_EVENT_CONTAINERS, MAX_EVENT_ELEMENTS)
ANSWER: Final = Bounds(MAX_ANSWER_BYTES, _DEPTH, MAX_CONTAINERS, MAX_ELEMENTS)

_LENGTH: Final = struct.Struct(">I")


class FrameError(Exception):
    """The other side left, was too slow, or sent what is no frame."""


class Closed(FrameError):  # noqa: N818 - an end, not an error, where nothing was being sent
    """The other side left between two frames."""


def send(connection: socket.socket, value: Any, bounds: Bounds, seconds: float) -> None:
    """Send a value as one frame.

    Args:
        connection: a stream socket; it may be non-blocking.
        value: what `codec.pack` takes.
        bounds: of the value.
        seconds: in which all of it has to be taken.

    Raises:
        PayloadError: it is no value for the wire, or exceeds the bounds; nothing was sent.
        FrameError: the other side left, or did not take it in time.
    """
    data = codec.pack(value, bounds)
    left = memoryview(_LENGTH.pack(len(data)) + data)
    until = time.monotonic() + seconds
    try:
        while left:
            _wait(connection, select.POLLOUT, until)
            try:
                left = left[connection.send(left, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                continue
    except OSError as error:
        text = f"it left: {error.strerror or error}"
        raise FrameError(text) from error


def receive(connection: socket.socket, bounds: Bounds, seconds: float) -> Any:
    """Return the value in the next frame.

    Args:
        connection: as for `send`.
        bounds: of the value; a longer frame is refused before memory is taken for it.
        seconds: in which all of it has to be there.

    Raises:
        Closed: the other side left, and nothing had come.
        FrameError: it left in the middle, was too slow, or sent something else.
    """
    until = time.monotonic() + seconds
    head = _exactly(connection, _LENGTH.size, until, first=True)
    (size,) = _LENGTH.unpack(head)
    if size > bounds.max_bytes:
        text = f"a message of {size} bytes, and at most {bounds.max_bytes} are taken"
        raise FrameError(text)
    body = _exactly(connection, size, until)
    try:
        return codec.unpack(body, bounds)
    except PayloadError as error:
        text = f"what came is not understood: {error}"
        raise FrameError(text) from None


def _exactly(connection: socket.socket, size: int, until: float, *, first: bool = False) -> bytes:
    data = bytearray(size)
    view, have = memoryview(data), 0
    try:
        while have < size:
            _wait(connection, select.POLLIN, until)
            try:
                count = connection.recv_into(view[have:], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            if count == 0:
                if first and have == 0:
                    raise Closed("it left")
                text = "it left in the middle of a message"
                raise FrameError(text)
            have += count
    except OSError as error:
        text = f"it left: {error.strerror or error}"
        raise FrameError(text) from error
    finally:
        view.release()
    return bytes(data)


def _wait(connection: socket.socket, what: int, until: float) -> None:
    left = until - time.monotonic()
    if left > 0:
        waiting = select.poll()
        waiting.register(connection, what)
        if waiting.poll(left * 1000):
            return
    text = "it took too long"
    raise FrameError(text)


def has_left(connection: socket.socket) -> bool:
    """Tell whether the other side, which has nothing more to say, left or says something."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN | select.POLLRDHUP)
    return bool(waiting.poll(0))

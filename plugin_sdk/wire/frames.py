"""Frames: ``header length | payload length | header | payload``, split from any chunks of bytes."""

from __future__ import annotations

import struct

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, PREFIX_BYTES

_PREFIX = struct.Struct(">II")


def build_frame(header: bytes, payload: bytes, max_payload_bytes: int) -> bytes:
    """Return one frame as bytes.

    Raises:
        LocalProtocolError: header or payload exceed the limits; check before you build.
    """
    if not 0 < len(header) <= MAX_HEADER_BYTES or len(payload) > max_payload_bytes:
        text = f"frame of {len(header)} + {len(payload)} bytes exceeds the wire's limits"
        raise LocalProtocolError(text)
    return b"".join((_PREFIX.pack(len(header), len(payload)), header, payload))


class FrameReader:
    """Cuts a byte stream into frames.

    Both lengths are checked as soon as the eight bytes of the prefix are there, so the buffer
    never holds more than one frame of legal size and one chunk of what was read after it.

    Args:
        max_payload_bytes: limit of one payload, in bytes.
    """

    def __init__(self, max_payload_bytes: int) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._buffer = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> None:
        """Append what was read."""
        self._buffer += data

    @property
    def pending_bytes(self) -> int:
        """Bytes held that belong to no complete frame yet."""
        return len(self._buffer) - self._start

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """Return the next ``(header, payload)``, or None until more bytes are fed.

        Raises:
            RemoteProtocolError: a length is zero or above its limit.
        """
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < PREFIX_BYTES:
            self._compact()
            return None
        header_size, payload_size = _PREFIX.unpack_from(buffer, start)
        if not 0 < header_size <= MAX_HEADER_BYTES:
            text = f"header of {header_size} bytes; 1 to {MAX_HEADER_BYTES} are allowed"
            raise RemoteProtocolError(text)
        if payload_size > self._max_payload_bytes:
            text = f"payload of {payload_size} bytes; {self._max_payload_bytes} are allowed"
            raise RemoteProtocolError(text)
        if available < PREFIX_BYTES + header_size + payload_size:
            self._compact()
            return None
        middle = start + PREFIX_BYTES + header_size
        end = middle + payload_size
        header = bytes(buffer[start + PREFIX_BYTES : middle])
        payload = bytes(memoryview(buffer)[middle:end])
        self._start = end
        return header, payload

    def _compact(self) -> None:
        """Drop what was consumed; once per batch of frames, so the cost stays linear."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0

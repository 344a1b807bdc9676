"""Frames: ``header length | payload length | header | payload``, split from any chunks of bytes."""

from __future__ import annotations

import struct
from io import BytesIO

from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, PREFIX_BYTES
from plugin_sdk.wire.payloads import parts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugin_sdk.wire.arena import Arena

_PREFIX = struct.Struct(">II")
_pack_prefix, _unpack_prefix = _PREFIX.pack, _PREFIX.unpack_from
ELSEWHERE = 1 << 31
"""Added to the payload's length: it is in the arena, not in the frame. No length is so large."""

_ASK = b"\x0e"
_WITH_VALUES = frozenset({b"\x06", b"\x07", _ASK, b"\x0f", b"\x11", b"\x13"})
"""Numbers of the messages whose payload may be elsewhere: those that carry values. That of others
would cost who copies it much, and who says so a dozen bytes."""
ASKED_TOO_MUCH = f"a service is asked with more than {MAX_PAYLOAD_BYTES} bytes"
_LARGE_BYTES = 4 * 1024
"""Of a payload. An incomplete frame that is smaller is copied with each chunk that
comes: so many bytes at most, which costs less than the system call that read the chunk."""


def build_frame(header: bytes, payload: bytes, max_payload_bytes: int) -> bytes:
    """Return one frame as bytes.

    Raises:
        LocalProtocolError: header or payload exceed the limits; check before you build.
    """
    header_size, payload_size = len(header), len(payload)
    if not 0 < header_size <= MAX_HEADER_BYTES or payload_size > max_payload_bytes:
        text = f"frame of {header_size} + {payload_size} bytes exceeds the wire's limits"
        raise LocalProtocolError(text)
    return b"".join((_pack_prefix(header_size, payload_size), header, payload))


def build_large_frame(
    header: bytes, payload: bytes, max_payload_bytes: int, *, elsewhere: bool
) -> bytes:
    """Return the frame of a payload in parts, or of one that is in the arena.

    Raises:
        LocalProtocolError: as `build_frame`.
    """
    size = len(payload)
    parts = parts_of(payload)
    if size > max_payload_bytes or (parts is None and not elsewhere):
        return build_frame(header, payload, max_payload_bytes)
    if elsewhere:
        return _PREFIX.pack(len(header), size | ELSEWHERE) + header
    return b"".join((_PREFIX.pack(len(header), size), header, *(parts.found if parts else ())))


class FrameReader:
    """Cuts a byte stream into frames.

    Both lengths are checked as soon as the eight bytes of the prefix are there. What is held is
    never more than one frame of legal size (and an eighth of it, set aside) and one chunk of what
    was read after it. Small frames are cut out of the chunk that they came in; a large payload is
    gathered as it comes, and handed out without another copy.

    Args:
        max_payload_bytes: limit of one payload, in bytes.

    Attributes:
        arena: where payloads may be that are not in their frames, or None.
    """

    def __init__(self, max_payload_bytes: int) -> None:
        self.arena: Arena | None = None
        self._may_take = False
        self.allow(max_payload_bytes)
        self._buffer = b""
        self._start = 0
        # Of a large payload that is on its way:
        self._header: bytes | None = None
        self._payload = BytesIO()
        self._missing = 0

    def allow(self, max_payload_bytes: int) -> None:
        """Take payloads of so many bytes from now on."""
        self._max_payload_bytes = max_payload_bytes
        self._legal = range(1, max_payload_bytes + 1)

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        data = bytes(data)  # itself, where it is that
        self._may_take = True
        if self._missing:
            if len(data) <= self._missing:
                self._keep(data)
                return
            first, data = data[: self._missing], data[self._missing :]
            self._keep(first)
        rest = self._buffer[self._start :]
        self._buffer, self._start = rest + data, 0

    def only_frame(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the frame that these bytes are; None where they are to be fed.

        Most reads are one whole small message: that is neither kept nor looked at twice.
        """
        size = len(data)
        if (
            self._buffer
            or self._header is not None
            or size < PREFIX_BYTES
            or type(data) is not bytes
        ):
            return None
        header_size, payload_size = _unpack_prefix(data)
        middle = PREFIX_BYTES + header_size
        if middle + payload_size != size or not 0 < header_size <= MAX_HEADER_BYTES:
            return None
        if payload_size > self._max_payload_bytes:
            return None
        return data[PREFIX_BYTES:middle], data[middle:]

    @property
    def pending_bytes(self) -> int:
        """Bytes held that belong to no complete frame yet, or were not asked for yet."""
        held = len(self._buffer) - self._start
        if self._header is not None:
            held += PREFIX_BYTES + len(self._header) + self._payload.tell()
        return held

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """Return the next ``(header, payload)``, or None until more bytes are fed.

        Raises:
            RemoteProtocolError: a length is zero or above its limit.
        """
        if self._header is not None:
            return None if self._missing else self._gathered()
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
            if self._may_be_elsewhere(payload_size - ELSEWHERE):
                return self._taken(header_size, payload_size - ELSEWHERE)
            text = f"payload of {payload_size} bytes; {self._max_payload_bytes} are allowed"
            raise RemoteProtocolError(text)
        middle = start + PREFIX_BYTES + header_size
        end = middle + payload_size
        if end <= len(buffer):
            self._start = end
            return buffer[start + PREFIX_BYTES : middle], buffer[middle:end]
        if payload_size >= _LARGE_BYTES and middle <= len(buffer):
            self._header = buffer[start + PREFIX_BYTES : middle]
            self._missing = payload_size
            self._buffer, self._start = b"", 0
            self._keep(buffer[middle:])
        self._compact()
        return None

    def _may_be_elsewhere(self, size: int) -> bool:
        return size in self._legal and self.arena is not None and size <= self.arena.capacity

    def _taken(self, header_size: int, payload_size: int) -> tuple[bytes, bytes] | None:
        """Take the payload of a frame out of the arena, if its header is there."""
        middle = self._start + PREFIX_BYTES + header_size
        if middle > len(self._buffer):
            self._compact()
            return None
        header = self._buffer[self._start + PREFIX_BYTES : middle]
        # A list of at most 15, and a small number: in so many bytes, whatever they are.
        if header[1:2] not in _WITH_VALUES:
            text = f"payload of {payload_size} bytes outside of its frame, which it may not be"
            raise RemoteProtocolError(text)
        is_asked = header[1:2] == _ASK
        if is_asked and payload_size > MAX_PAYLOAD_BYTES:
            raise RemoteProtocolError(ASKED_TOO_MUCH)
        # Who puts there waits until what was there before is taken: there is one in a read at most.
        # Else a dozen bytes each would have 8 MiB copied before anybody looks at what they are.
        if not self._may_take:
            text = (
                f"payload of {payload_size} bytes outside of its frame, before the last was taken"
            )
            raise RemoteProtocolError(text)
        self._may_take = False
        self._start = middle
        assert self.arena is not None  # noqa: S101 - who calls has looked
        # What is asked for is looked at before it is unpacked, by its first bytes.
        return header, self.arena.take(payload_size, split=not is_asked)

    def _compact(self) -> None:
        """Drop what was handed out; once per batch of frames, so the cost stays linear."""
        if self._start:
            self._buffer, self._start = self._buffer[self._start :], 0

    def clear(self) -> None:
        """Drop what is held: nothing of it will be asked for any more."""
        self._buffer, self._start = b"", 0
        self._header, self._payload, self._missing = None, BytesIO(), 0

    def _keep(self, data: bytes) -> None:
        """Keep a piece of a large payload."""
        self._missing -= self._payload.write(data)

    def _gathered(self) -> tuple[bytes, bytes]:
        # In CPython the value is the very object that was written to, cut to its length.
        header, payload = self._header or b"", self._payload.getvalue()
        self._header, self._payload = None, BytesIO()
        return header, payload

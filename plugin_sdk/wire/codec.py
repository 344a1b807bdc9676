"""Values as msgpack, and back under limits that are checked *before* anything is allocated.

`pack` takes what an operation takes and returns. `unpack` accepts only what `pack` produces:
None, bool, int (64 bits), float, str, bytes, list, dict with distinct str keys, and arrays of
numbers (`arrays`). All other extension types are refused, timestamps included: their decoding was
seen to raise OverflowError.
"""

from __future__ import annotations

import struct

import msgpack

from plugin_sdk.wire import arrays
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import VALUE
from plugin_sdk.wire.pieces import LARGE_BYTES, pieces_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from plugin_sdk.wire.limits import Bounds

# First bytes that open a container, or an extension, by the msgpack specification.
_CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_FORBIDDEN = bytes([0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9)])

# By first byte: how many bytes of body follow an element that is no container, where that is
# fixed; -1 where a length has to be read, or nothing of the kind is allowed.
_BODY = [0] * 0x80 + [-1] * 0x20 + list(range(0x20)) + [-1] * 0x20 + [0] * 0x20
for _first, _size in {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}.items():
    _BODY[_first] = _size
for _first in range(4):
    _BODY[0xCC + _first] = _BODY[0xD0 + _first] = 1 << _first

_U8, _U16, _U32 = struct.Struct(">B"), struct.Struct(">H"), struct.Struct(">I")
_SIZED = {0xC4: _U8, 0xC5: _U16, 0xC6: _U32, 0xD9: _U8, 0xDA: _U16, 0xDB: _U32}
# The smallest array has a body of 16 bytes; with fewer there is a first byte for each length.
_EXTENSIONS = {0xC7: _U8, 0xC8: _U16, 0xC9: _U32, 0xD8: None}
_ARRAY = bytes([arrays.CODE])
_COUNTED = {0xDC: (_U16, 1), 0xDD: (_U32, 1), 0xDE: (_U16, 2), 0xDF: (_U32, 2)}
_FIRST_OF_FIXED_ARRAYS, _FIRST_AFTER_FIXED_ARRAYS = 0x90, 0xA0

_BYTES_PER_STEP = 256
"""Of a large payload: to count its bytes takes about as long as one step of a scan for so many."""


def pack(value: Any, bounds: Bounds = VALUE) -> bytes:
    """Return ``value`` as msgpack bytes that `unpack` accepts under the same bounds.

    What is large in it is copied once; an array that does not lie in memory in C order, twice.

    Raises:
        PayloadError: the value has a type, key or depth that the wire does not carry.
        PayloadTooLargeError: the result exceeds one of the bounds.
    """
    pieces, is_plain = pieces_of(value, bounds)
    data = b"".join(pieces)  # one alone as it is
    # The packer's own output has no extension, and its nesting was looked at.
    if not is_plain or len(data) > bounds.elements or _openings(data) > bounds.containers:
        _scan(data, bounds)
    return data


def unpack(data: bytes, bounds: Bounds = VALUE) -> Any:
    """Return the value in ``data``.

    Raises:
        PayloadError: malformed bytes, an extension type, a key that is not a str or comes twice.
        PayloadTooLargeError: more bytes, elements, containers or depth than the limits allow.
    """
    if len(data) > bounds.max_bytes:
        text = f"payload of {len(data)} bytes; {bounds.max_bytes} are allowed"
        raise PayloadTooLargeError(text, size=len(data), limit=bounds.max_bytes)
    if _looks_suspicious(data, bounds):
        _scan(data, bounds)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            object_pairs_hook=_distinct,
            ext_hook=_array,
        )
    except PayloadError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # msgpack's own errors derive from ValueError.
        text = f"payload is not acceptable msgpack: {str(error)[:200] or type(error).__name__}"
        raise PayloadError(text) from None


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Refuse what msgpack accepts silently: a key that comes twice, or is not text."""
    result = dict(pairs)
    if len(result) != len(pairs):
        text = "payload has a dict with the same key twice"
        raise PayloadError(text)
    if not all(type(key) is str for key in result):
        text = "payload has a dict with a key that is not a str"
        raise PayloadError(text)
    return result


def _array(code: int, body: bytes) -> Any:
    if code != arrays.CODE:  # the scan saw to it
        text = f"payload has an extension of type {code}"
        raise PayloadError(text)
    return arrays.read_array(body)


def _looks_suspicious(data: bytes, bounds: Bounds) -> bool:
    """Tell whether ``data`` might break a limit, at the speed of C.

    A payload with a handful of bytes that could open a container needs no scan, and most small
    messages are of that kind. An element takes at least one byte, so few bytes are few elements.
    """
    if len(data) >= LARGE_BYTES and _scan(data, bounds, give_up=len(data) // _BYTES_PER_STEP):
        return False
    if len(data) > bounds.elements or len(data.translate(None, _FORBIDDEN)) != len(data):
        return True
    return _openings(data) > min(bounds.depth, bounds.containers)


def _openings(data: bytes) -> int:
    """Count the bytes that *could* open a container, wherever they stand: never too few."""
    return len(data) - len(data.translate(None, _CONTAINERS))


def _scan(data: bytes, bounds: Bounds, give_up: int = 2**32) -> bool:
    """Walk the payload without building it, counting elements, containers and depth.

    Returns:
        Whether all of it was walked: it has not more than ``give_up`` elements.
    """
    position, end, elements, containers = 0, len(data), 0, 0
    announced = 1  # elements, by what the containers say that they hold, to come ones included
    open_items = [1]  # items still to come, per open container; the payload itself at the bottom
    while open_items:
        if not open_items[-1]:
            open_items.pop()
            continue
        open_items[-1] -= 1
        elements += 1
        if elements > give_up:
            return False
        if position >= end:
            raise PayloadError(_TRUNCATED)
        first = data[position]
        position += 1
        body = _BODY[first]
        if body >= 0:
            position += body
            continue
        position, items = _open(first, data, position)
        if items is None:
            continue
        if first in _EXTENSIONS and not bounds.arrays:
            text = "payload has an array where none is allowed"
            raise PayloadError(text)
        containers += 1
        open_items.append(items)
        _check("containers", containers, bounds.containers)
        _check("levels of nesting", len(open_items) - 2, bounds.depth)
        announced += items
        _check("elements", announced, bounds.elements)
        if items > end - position:
            raise PayloadError(_TRUNCATED)
    if position != end:
        text = "payload has bytes after its value, or is truncated"
        raise PayloadError(text)
    return True


_TRUNCATED = "payload is truncated"


def _open(first: int, data: bytes, position: int) -> tuple[int, int | None]:
    """Return where the body of a sized element ends, or how many items a container holds."""
    if first in _SIZED:
        size = _SIZED[first]
        return position + size.size + _read(size, data, position), None
    if first in _COUNTED:
        size, factor = _COUNTED[first]
        return position + size.size, factor * _read(size, data, position)
    if _FIRST_OF_FIXED_ARRAYS <= first < _FIRST_AFTER_FIXED_ARRAYS:
        return position, first & 0x0F
    if first < _FIRST_OF_FIXED_ARRAYS:
        return position, 2 * (first & 0x0F)
    if first in _EXTENSIONS:
        # An array counts as a list without items: it takes as much memory beside its bytes.
        return _end_of_array(_EXTENSIONS[first], data, position), 0
    text = f"payload has an extension type (byte 0x{first:02x}) that is not allowed"
    raise PayloadError(text)


def _end_of_array(size: struct.Struct | None, data: bytes, position: int) -> int:
    length = 16 if size is None else _read(size, data, position)
    position += 0 if size is None else size.size
    if data[position : position + 1] != _ARRAY:
        text = "payload has an extension type that is not allowed"
        raise PayloadError(text)
    return position + 1 + length


def _read(size: struct.Struct, data: bytes, position: int) -> int:
    try:
        value: int = size.unpack_from(data, position)[0]
    except struct.error:
        raise PayloadError(_TRUNCATED) from None
    return value


def _check(what: str, value: int, limit: int) -> None:
    if value > limit:
        text = f"payload has more than {limit} {what}"
        raise PayloadTooLargeError(text, size=value, limit=limit)

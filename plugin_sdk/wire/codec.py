"""Values as msgpack, and back under limits that are checked *before* anything is allocated.

`pack` takes what an operation takes and returns. `unpack` accepts only what `pack` produces:
None, bool, int (64 bits), float, str, bytes, list, and dict with distinct str keys. Extension types
(timestamps included) are refused: their decoding was seen to raise OverflowError.
"""

from __future__ import annotations

import struct

import msgpack

from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import VALUE

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
_COUNTED = {0xDC: (_U16, 1), 0xDD: (_U32, 1), 0xDE: (_U16, 2), 0xDF: (_U32, 2)}
_FIRST_OF_FIXED_ARRAYS, _FIRST_AFTER_FIXED_ARRAYS = 0x90, 0xA0


# What the packer would carry and no reader accepts; an ExtType is a tuple, too.
_EXTENSIONS = (msgpack.ExtType, msgpack.Timestamp)
_LOOKED_AT = (dict, list, tuple, msgpack.Timestamp)


def _plain(value: Any) -> Any:
    """Turn what knows how to become plain (numpy arrays and scalars do) into plain values."""
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()
    if isinstance(value, int):
        text = "cannot carry an int outside -2**63 to 2**64 - 1"
    else:
        known = "None, bool, int, float, str, bytes, list, dict"
        text = f"cannot carry a {type(value).__name__}; use {known}"
    raise PayloadError(text)


def _check_keys(value: Any, most: int, depth: int = 0) -> None:
    """Refuse non-str keys and deep nesting at the sender, where the line of code is known."""
    if depth > most:
        text = f"cannot carry a value nested deeper than {most} levels"
        raise PayloadError(text)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                text = f"cannot carry a dict with the key {key!r:.80}; keys must be str"
                raise PayloadError(text)
            if isinstance(item, _LOOKED_AT):
                _check_keys(item, most, depth + 1)
    elif isinstance(value, _EXTENSIONS):
        text = f"cannot carry a {type(value).__name__}: extension types are not allowed"
        raise PayloadError(text)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, _LOOKED_AT):
                _check_keys(item, most, depth + 1)


def pack(value: Any, bounds: Bounds = VALUE) -> bytes:
    """Return ``value`` as msgpack bytes that `unpack` accepts under the same bounds.

    Raises:
        PayloadError: the value has a type, key or depth that the wire does not carry.
        PayloadTooLargeError: the result exceeds one of the bounds.
    """
    converted = False

    def plain(item: Any) -> Any:
        nonlocal converted
        converted = True
        result = _plain(item)
        _check_keys(result, bounds.depth)
        return result

    _check_keys(value, bounds.depth)
    try:
        data = msgpack.packb(value, default=plain, use_bin_type=True)
    except PayloadError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        text = f"cannot carry this value: {error}"
        raise PayloadError(text) from None
    if len(data) > bounds.max_bytes:
        text = f"value of {len(data)} bytes; at most {bounds.max_bytes} can be carried at once"
        raise PayloadTooLargeError(text, size=len(data), limit=bounds.max_bytes)
    if converted or len(data) > bounds.elements or _openings(data) > bounds.containers:
        _scan(data, bounds)
    return bytes(data)


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
            data, raw=False, use_list=True, strict_map_key=True, object_pairs_hook=_distinct
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


def _looks_suspicious(data: bytes, bounds: Bounds) -> bool:
    """Tell whether ``data`` might break a limit, at the speed of C.

    A payload with a handful of bytes that could open a container needs no scan, and most small
    messages are of that kind. An element takes at least one byte, so few bytes are few elements.
    """
    if len(data) > bounds.elements or len(data.translate(None, _FORBIDDEN)) != len(data):
        return True
    return _openings(data) > min(bounds.depth, bounds.containers)


def _openings(data: bytes) -> int:
    """Count the bytes that *could* open a container, wherever they stand: never too few."""
    return len(data) - len(data.translate(None, _CONTAINERS))


def _scan(data: bytes, bounds: Bounds) -> None:
    """Walk the payload without building it, counting elements, containers and depth."""
    position, end, elements, containers = 0, len(data), 0, 0
    open_items = [1]  # items still to come, per open container; the payload itself at the bottom
    while open_items:
        if not open_items[-1]:
            open_items.pop()
            continue
        open_items[-1] -= 1
        elements += 1
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
        containers += 1
        open_items.append(items)
        _check("containers", containers, bounds.containers)
        _check("levels of nesting", len(open_items) - 2, bounds.depth)
        _check("elements", elements + items, bounds.elements)
        if items > end - position:
            raise PayloadError(_TRUNCATED)
    if position != end:
        text = "payload has bytes after its value, or is truncated"
        raise PayloadError(text)


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
    text = f"payload has an extension type (byte 0x{first:02x}); none is allowed"
    raise PayloadError(text)


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

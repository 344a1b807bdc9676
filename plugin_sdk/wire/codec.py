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
from plugin_sdk.wire.payloads import EMPTY_ARRAY, EMPTY_BYTES, INLINE_BYTES, Parts, parts_of
from plugin_sdk.wire.pieces import LARGE_BYTES, opening_of_bytes, pieces_of


def _packer() -> Callable[[object], bytes]:
    """Return what packs numbers, text and bytes, alone or in a list: they bring no code along."""
    if msgpack.Packer.__module__ == "msgpack._cmsgpack":
        # Not to be interrupted by another thread while it packs such values, so one serves all.
        pack: Callable[[object], bytes] = msgpack.Packer(use_bin_type=True).pack
        return pack
    return lambda value: bytes(msgpack.packb(value, use_bin_type=True))


pack_flat = _packer()

_ATOMS = frozenset({type(None), bool, int, float})
_CONTAINER_SHARE = 40
"""Of what a small value may have: so that it nests not deeper than any bounds allow."""
_CALL, _FEW, _EMPTY_DICT = 2, 15, b"\x80"
"""A list of arguments and an object of keywords; as many as an announcement of one byte has."""
_Packer, _unpackb = msgpack.Packer, msgpack.unpackb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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

# First bytes of what is neither a container nor an extension: such a payload is one element.
_SINGLE = frozenset(range(0x100)) - frozenset(_CONTAINERS) - frozenset(_FORBIDDEN)

# Beside those: first bytes of dicts that have keys. 0x80 opens an empty one.
_NOT_PLAIN = _FORBIDDEN + bytes([*range(0x81, 0x90), 0xDE, 0xDF])

_U8, _U16, _U32 = struct.Struct(">B"), struct.Struct(">H"), struct.Struct(">I")
_SIZED = {0xC4: _U8, 0xC5: _U16, 0xC6: _U32, 0xD9: _U8, 0xDA: _U16, 0xDB: _U32}
# The smallest array has a body of 16 bytes; with fewer there is a first byte for each length.
_EXTENSIONS = {0xC7: _U8, 0xC8: _U16, 0xC9: _U32, 0xD8: None}
_ARRAY = bytes([arrays.CODE])
_COUNTED = {0xDC: (_U16, 1), 0xDD: (_U32, 1), 0xDE: (_U16, 2), 0xDF: (_U32, 2)}
_FIRST_OF_FIXED_ARRAYS, _FIRST_AFTER_FIXED_ARRAYS = 0x90, 0xA0

_STAND_IN = 127
_HERE = bytes([0xD4, _STAND_IN, 0])
"""In the place of a body that is not in one piece with the rest; nobody else may say it."""

_BYTES_PER_STEP = 256
"""Of a large payload: to count its bytes takes about as long as one step of a scan for so many."""
_WORTH_A_SCAN = 8 * _BYTES_PER_STEP

QUICK_BYTES = 16 * 1024
"""Whatever is in so many bytes, to unpack them takes a millisecond or two at worst."""

_QUICK_TO_COPY = 1024 * 1024


def pack(value: Any, bounds: Bounds = VALUE) -> bytes:
    """Return ``value`` as msgpack bytes that `unpack` accepts under the same bounds.

    What is large in it is copied once; an array that does not lie in memory in C order, twice.

    Raises:
        PayloadError: the value has a type, key or depth that the wire does not carry.
        PayloadTooLargeError: the result exceeds one of the bounds.
    """
    return bytes(pack_in_parts(value, bounds))


def pack_in_parts(value: Any, bounds: Bounds = VALUE) -> bytes:
    """Return the same, perhaps as `Parts`; what is large must not change until it is sent.

    Raises:
        PayloadError, PayloadTooLargeError: as `pack`.
    """
    kind = type(value)
    is_text = kind is bytes or kind is str
    if kind in _ATOMS or (is_text and len(value) + _CONTAINER_SHARE < bounds.small_bytes):
        try:
            return pack_flat(value)
        except (ValueError, OverflowError):
            return _looked_through(value, bounds)  # as below
    if _is_small(value, bounds.small_bytes) >= 0:
        # A packer for each value: a finalizer could pack another one in the middle.
        try:
            packed: bytes = _Packer(use_bin_type=True).pack(value)
        except (ValueError, OverflowError):
            pass  # half a character, or too large an integer: told below
        else:
            if len(packed) <= bounds.max_bytes:
                return packed
    found = _one_body(value, bounds)
    return _looked_through(value, bounds) if found is None else found


def _one_body(value: Any, bounds: Bounds) -> bytes | None:
    """Return what most large payloads are, without looking through them; None for others.

    That is large bytes alone, or as the last argument of a call after small ones.
    """
    before, body, after = b"", value, b""
    if type(value) is list and len(value) == _CALL and type(value[0]) is list:
        arguments = value[0]
        if type(value[1]) is not dict or value[1] or not 0 < len(arguments) <= _FEW:
            return None
        if type(arguments[-1]) is not bytes or _is_small(arguments[:-1], bounds.small_bytes) < 0:
            return None
        *few, body = arguments
        try:
            packed = _Packer(use_bin_type=True).pack(few)
        except (ValueError, OverflowError):
            return None  # told by who looks through it
        before, after = bytes([0x92, 0x90 + len(arguments)]) + packed[1:], _EMPTY_DICT
    if type(body) is not bytes or len(body) < LARGE_BYTES:
        return None
    parts = Parts((before + opening_of_bytes(len(body)), body, after))
    if len(parts) > bounds.max_bytes:
        return None
    return bytes(parts) if len(parts) <= INLINE_BYTES else parts  # type: ignore[return-value]  # as good as its bytes


def pack_call(
    arguments: tuple[Any, ...], keywords: dict[str, Any], bounds: Bounds = VALUE
) -> bytes:
    """Return the payload of a `Call` without streams; see `pack_in_parts`.

    Raises:
        PayloadError, PayloadTooLargeError: as `pack`.
    """
    if not keywords and type(arguments) is tuple:
        left = bounds.small_bytes - len(arguments) - 3 * _CONTAINER_SHARE
        for item in arguments:
            kind = type(item)
            if kind is bytes or kind is str:
                left -= len(item)
            elif kind not in _ATOMS:
                left = -1
                break
        if left >= 0:
            try:
                return pack_flat((arguments, _NO_KEYWORDS))
            except (ValueError, OverflowError):
                pass  # told below
    return pack_in_parts([list(arguments), keywords], bounds)


_NO_KEYWORDS: dict[str, Any] = {}


def _looked_through(value: Any, bounds: Bounds) -> bytes:
    pieces, outline = pieces_of(value, bounds)
    data = b"".join(pieces if outline is None else outline)  # one alone as it is
    # The packer's own output has no extension, and its nesting was looked at.
    if outline is not None or len(data) > bounds.elements or _openings(data) > bounds.containers:
        _scan(data, bounds)
    if outline is None:
        return data
    parts = Parts(pieces)
    if len(parts) <= INLINE_BYTES:
        return bytes(parts)
    return parts  # type: ignore[return-value]  # as good as its bytes


def _is_small(value: Any, left: int) -> int:
    """Return what is left of a small value's size after this one; negative where it is none.

    Only the wire's own types are small. Each container takes its share, and so bounds the nesting;
    each element takes its own, and so bounds their number. Bytes, which hold none, are small up to
    where they are not copied with the rest.
    """
    kind = type(value)
    if kind is dict:
        items: list[Any] | tuple[Any, ...] = [*value, *value.values()]
        if not all(type(key) is str for key in value):
            return -1
    elif kind is list or kind is tuple:
        items = value
    else:
        items = (value,)
    left -= len(items) + _CONTAINER_SHARE
    if left < 0:
        return left
    for item in items:
        kind = type(item)
        if kind is str:
            left -= len(item)
        elif kind is list or kind is tuple or kind is dict:
            left = _is_small(item, left)
            if left < 0:
                return left
        elif kind not in _ATOMS and (kind is not bytes or len(item) >= LARGE_BYTES):
            return -1
    return left


def _is_plain(data: bytes, bounds: Bounds) -> bool:
    """Tell whether a small payload keeps all limits, and has neither extensions nor keys."""
    size = len(data)
    if not 0 < size <= bounds.small_bytes:
        return False
    if type(data) is bytes and data[0] in _SINGLE:
        return True
    return len(data.translate(None, _NOT_PLAIN)) == size and (
        size <= bounds.openings or size - len(data.translate(None, _CONTAINERS)) <= bounds.openings
    )


def unpack(data: bytes, bounds: Bounds = VALUE) -> Any:
    """Return the value in ``data``.

    Raises:
        PayloadError: malformed bytes, an extension type, a key that is not a str or comes twice.
        PayloadTooLargeError: more bytes, elements, containers or depth than the limits allow.
    """
    if len(data) > bounds.max_bytes:
        text = f"payload of {len(data)} bytes; {bounds.max_bytes} are allowed"
        raise PayloadTooLargeError(text, size=len(data), limit=bounds.max_bytes)
    is_plain = _is_plain(data, bounds)
    if not is_plain:
        if (parts := parts_of(data)) is not None:
            return _unpack_parts(parts, bounds)
        if len(data) <= bounds.few_bytes and bounds.arrays:
            return _unpack_few(data, bounds)
        if _looks_suspicious(data, bounds):
            _scan(data, bounds)
        return _built(data, _array)
    try:
        return _unpackb(data, raw=False, use_list=True)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # msgpack's own errors derive from ValueError.
        text = f"payload is not acceptable msgpack: {str(error)[:200] or type(error).__name__}"
        raise PayloadError(text) from None


def is_quick(data: bytes | Parts, bounds: Bounds = VALUE) -> bool:
    """Tell whether to unpack it takes hardly longer than to copy it; never raises.

    It has few bytes, or few elements for its bytes.
    """
    if not QUICK_BYTES < len(data) <= _QUICK_TO_COPY:
        return len(data) <= QUICK_BYTES
    if isinstance(data, Parts):
        return data.is_split and len(data.found[0]) + len(data.found[3]) <= QUICK_BYTES
    try:
        return _scan(data, bounds, give_up=len(data) // _BYTES_PER_STEP)
    except PayloadError:
        return False


def _unpack_few(data: bytes, bounds: Bounds) -> Any:
    """Return the value of a payload of so few bytes that it cannot hold too much.

    Each element takes a byte at least. How deep it is can be seen from what was built, in a tenth
    of the time that a scan takes: it nests not deeper than msgpack's own stack, of 1,024.
    """
    try:
        value = _built(data, _array)
    except PayloadError:
        _scan(data, bounds)  # says more of what is wrong, where it is one of the limits
        raise
    if _looks_suspicious(data, bounds):
        _look_through(value, bounds)
    return value


def _look_through(value: Any, bounds: Bounds) -> None:
    """Refuse a value that nests too deep, or has a timestamp, which msgpack makes unasked."""
    level: list[Any] = [[value]]
    depth = -1
    while level:
        inner: list[Any] = []
        for container in level:
            items = container.values() if type(container) is dict else container
            kinds = set(map(type, items))
            if kinds <= _SCALARS:
                continue
            if msgpack.Timestamp in kinds:
                raise PayloadError(_UNKNOWN_EXTENSION)
            _check("levels of nesting", depth + 1, bounds.depth)  # an array is one, too
            inner += [item for item in items if type(item) in _NESTING]
        level, depth = inner, depth + 1


_SCALARS = _ATOMS | {str, bytes}
_NESTING = frozenset({list, dict})


def _unpack_parts(data: Parts, bounds: Bounds) -> Any:
    """Return the value of a payload that is split around its body, without copying that.

    What is around the body is read as ever, with something small in its place.
    """
    if not data.is_split:
        return unpack(bytes(data), bounds)
    before, opening, body, after = map(bytes, data.found)
    is_array = opening[0] in _EXTENSIONS
    if is_array and opening[-1:] != _ARRAY:
        raise PayloadError(_UNKNOWN_EXTENSION)
    outline = before + (EMPTY_ARRAY if is_array else EMPTY_BYTES) + after
    if _looks_suspicious(outline, bounds):
        _scan(outline, bounds)

    def extension(code: int, content: bytes) -> Any:
        if code != _STAND_IN:
            return _array(code, content)
        return arrays.read_array(body) if is_array else body

    return _built(before + _HERE + after, extension)


def _built(data: bytes, extension: Callable[[int, bytes], Any]) -> Any:
    try:
        return _unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            object_pairs_hook=_distinct,
            ext_hook=extension,
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
    if len(data) >= _WORTH_A_SCAN and _scan(data, bounds, give_up=len(data) // _BYTES_PER_STEP):
        return False
    if len(data) > bounds.elements or len(data.translate(None, _FORBIDDEN)) != len(data):
        return True
    return _openings(data) > bounds.openings


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
_UNKNOWN_EXTENSION = "payload has an extension type that is not allowed"


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
        raise PayloadError(_UNKNOWN_EXTENSION)
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

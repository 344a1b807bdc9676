"""Arrays of numbers: a small strict header, and the elements as they lie in memory.

The header says what the elements are (`b1` is a boolean, `f8` a float of eight bytes) and how many
there are along each dimension; then come the elements, in C order, little-endian. Nothing is
converted one by one: whoever has numpy sees an ndarray over the bytes that came, who has not a
`memoryview` over the same.
"""

from __future__ import annotations

import struct
import sys

from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import MAX_DIMENSIONS, MAX_PAYLOAD_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CODE = 1
"""Of the one extension type of msgpack's that is accepted."""

# Kind and size as numpy writes them, with the format character of the struct module's. No more than
# a memoryview can show, so that what passes through a process without numpy arrives unchanged.
_FORMATS = {
    b"b1": "?",
    b"i1": "b",
    b"i2": "h",
    b"i4": "i",
    b"i8": "q",
    b"u1": "B",
    b"u2": "H",
    b"u4": "I",
    b"u8": "Q",
    b"f4": "f",
    b"f8": "d",
}
_KINDS = {"?": "b", **dict.fromkeys("bhilqn", "i"), **dict.fromkeys("BHILQN", "u")}
_KINDS |= {"f": "f", "d": "f"}
_BOOLEAN = b"b1"

# Eight bytes, then eight for each dimension: the elements begin at a multiple of eight, as aligned
# as the bytes object that they come in. numpy is slower on what is not.
_HEAD = struct.Struct("<2sB5s")
_RESERVED = bytes(5)
HEAD_BYTES = 8

_IS_LITTLE = sys.byteorder == "little"
_NOTHING = bytes(4_096)
_ONE_OCTET = "@B"
"""Format of bytes that came as an array, as `memoryview` allows it to be written: with "B" it could
not be told from bytes, which travel as such."""


def header_of(view: memoryview) -> bytes | None:
    """Return the header of an array that can be carried, or None for what is none.

    Raises:
        PayloadError: it has no elements, and dimensions that no receiver accepts.
    """
    element = _element(view)
    if element is None or not 0 < view.ndim <= MAX_DIMENSIONS:
        return None
    shape = view.shape or ()
    _count(shape)
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return _HEAD.pack(element, len(shape), _RESERVED) + sizes


def content_of(view: memoryview) -> memoryview | bytes:
    """Return the elements as they travel: ``view`` itself where it lies in memory like that.

    Raises:
        PayloadError: a boolean is neither 0 nor 1.
    """
    data = view if view.c_contiguous else view.tobytes()  # in C order, whatever it has
    if view.itemsize > 1 and _is_swapped(view.format):
        data = swapped(bytes(data), view.itemsize)
    if _element(view) == _BOOLEAN:
        _check_booleans(bytes(data))
    return data


def read_array(body: bytes) -> Any:
    """Return the array in the body of an extension: read-only, over the bytes of ``body``.

    Returns:
        An ndarray where this process has imported numpy, else a memoryview of the same shape. One
        without elements has a shape of the same length in any case only with numpy.

    Raises:
        PayloadError: the header is not exact, or not exactly of what follows it.
    """
    element, shape, start = _parse(body)
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    if ndarray is not None:
        return ndarray(shape, f"<{element.decode()}", body, start)
    code, size = _FORMATS[element], element[1] - ord("0")
    if code == "B" and len(shape) == 1:
        code = _ONE_OCTET
    if 0 in shape:
        return _empty(code, size, shape)
    content = memoryview(body)[start:]
    if size > 1 and not _IS_LITTLE:
        content = memoryview(swapped(bytes(content), size))
    return content.cast(code, shape)  # type: ignore[call-overload]  # a format that is no literal


def swapped(data: bytes, size: int) -> bytes:
    """Return elements of ``size`` bytes with the bytes of each in the opposite order."""
    result = bytearray(len(data))
    for place in range(size):
        result[place::size] = data[size - 1 - place :: size]
    return bytes(result)


def _parse(body: bytes) -> tuple[bytes, tuple[int, ...], int]:
    """Return the kind of the elements, the shape, and where the elements begin."""
    if len(body) < HEAD_BYTES:
        raise PayloadError(_CUT)
    element, dimensions, reserved = _HEAD.unpack_from(body)
    if element not in _FORMATS or reserved != _RESERVED:
        text = f"payload has an array of an unknown kind: {body[:HEAD_BYTES].hex()}"
        raise PayloadError(text)
    if not 0 < dimensions <= MAX_DIMENSIONS:
        text = f"payload has an array of {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed"
        raise PayloadError(text)
    start = HEAD_BYTES + 8 * dimensions
    if len(body) < start:
        raise PayloadError(_CUT)
    shape = struct.unpack_from(f"<{dimensions}Q", body, HEAD_BYTES)
    size = _count(shape) * (element[1] - ord("0"))
    if size != len(body) - start:
        text = f"payload has an array of {size} bytes, in {len(body) - start}"
        raise PayloadError(text)
    if element == _BOOLEAN:
        _check_booleans(body[start:])
    return element, shape, start


_CUT = "payload has an array that ends inside its header"


def _count(shape: tuple[int, ...]) -> int:
    """Return how many elements there are; integers of Python's do not overflow."""
    count, others = 1, 1
    for length in shape:
        count *= length
        others *= length or 1
    # Without elements the other dimensions cost nothing here; numpy raises for immense ones.
    if not count and others > MAX_PAYLOAD_BYTES:
        text = f"an array without elements has immense dimensions: {shape}"
        raise PayloadError(text)
    return count


def _element(view: memoryview) -> bytes | None:
    order, code = view.format[:-1], view.format[-1:]
    if order not in {"", "@", "=", "<", ">", "!"} or code not in _KINDS:
        return None
    # The size is what the exporter says: an "l" has 4 or 8 bytes, by platform and order.
    element = f"{_KINDS[code]}{view.itemsize}".encode()
    return element if element in _FORMATS else None


def _is_swapped(form: str) -> bool:
    order = form[0]
    is_little = order == "<" or (_IS_LITTLE and order not in ">!")
    return not is_little


def _check_booleans(data: bytes) -> None:
    """Refuse what is neither true nor false: numpy takes such bytes as they are, and misbehaves."""
    if data.translate(None, b"\x00\x01"):
        text = "an array of booleans has a byte that is neither 0 nor 1"
        raise PayloadError(text)


def _empty(code: str, size: int, shape: tuple[int, ...]) -> memoryview:
    """Return a view without elements; `memoryview.cast` takes no dimension of 0, slicing makes one.

    The shape is kept where it is the first dimension that is 0, and the rest not large.
    """
    rest = shape[1:]
    needed = size
    for length in rest:
        needed *= length
    if shape[0] or not 0 < needed <= len(_NOTHING):
        rest, needed = (), size
    view: memoryview = memoryview(_NOTHING)[:needed].cast(code, (1, *rest))  # type: ignore[call-overload]
    return view[:0]

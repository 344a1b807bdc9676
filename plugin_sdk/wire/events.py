"""Events as `DeliverMany` carries them: each packed once, whoever gets it; joined for each.

The host has checked the data of each under the bounds for events, so nobody counts again.
"""

from __future__ import annotations

import struct

import msgpack

from plugin_sdk.wire import arrays
from plugin_sdk.wire.errors import PayloadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# A list of four, of which the first is packed already; a float of 64 bits (msgpack specification).
_OPENING, _FLOAT = b"\x94", struct.Struct(">Bd")
_FLOAT_CODE = 0xCB
# An integer of 64 bits, without a sign.
_NUMBER, _NUMBER_CODE = struct.Struct(">BQ"), 0xCF
# A list of up to 65,535.
_LIST, _LIST_CODE = struct.Struct(">BH"), 0xDC
_LIST_BYTE = bytes([_LIST_CODE])


def pack_event(data: bytes, timestamp: float, source: str, number: int) -> bytes:
    """Return one event of a `DeliverMany`, around its packed data as it is."""
    packed = _sources.get(source)
    if packed is None:
        packed = msgpack.packb(source, use_bin_type=True)
        if len(_sources) < _MAX_SOURCES:
            _sources[source] = packed
    stamp = _FLOAT.pack(_FLOAT_CODE, timestamp)
    return b"".join((_OPENING, data, stamp, packed, _NUMBER.pack(_NUMBER_CODE, number)))


_sources: dict[str, bytes] = {}
_MAX_SOURCES = 1_024
"""The same plugins publish again and again."""


def join_events(packed: Iterable[bytes], count: int) -> bytes:
    """Return the payload of a `DeliverMany` with so many events, each from `pack_event`."""
    return b"".join((_LIST.pack(_LIST_CODE, count), *packed))


def unpack_data(data: bytes) -> Any:
    """Return the data of an event, which `codec.unpack` has accepted before."""
    return msgpack.unpackb(data, raw=False, use_list=True, ext_hook=_array)


def unpack_events(payload: bytes, count: int) -> Iterator[list[Any]]:
    """Return an iterator over data, timestamp, source and id of each event of the host's.

    One is decoded at a time: all of them would not fit into a CPU's cache. What comes after these
    in a list is from a later version. The iterator raises what `BROKEN` names, where the payload is
    no list of lists.

    Raises:
        PayloadError: the payload is no list of so many.
    """
    events = msgpack.Unpacker(
        raw=False, use_list=True, ext_hook=_array, max_buffer_size=len(payload)
    )
    events.feed(payload)
    if payload[:1] != _LIST_BYTE or events.read_array_header() != count:
        text = f"the payload of events is no list of {count}"
        raise PayloadError(text)
    iterator: Iterator[list[Any]] = events
    return iterator


BROKEN = (ValueError, TypeError, OverflowError, RecursionError, LookupError)
"""What is raised where the packed events are not what the host sends."""


def _array(code: int, body: bytes) -> Any:
    if code != arrays.CODE:
        text = f"payload has an extension of type {code}"
        raise PayloadError(text)
    return arrays.read_array(body)

"""Values as pieces of msgpack: what is large stays where it is until all are joined, once.

msgpack's own packer copies everything into its buffer, which grows by doubling, and then out of it;
and it takes a memoryview for its bytes, whatever its format. So a value is looked through first.
Where nothing in it is large or unusual, the packer has all of it; where something is, that and what
leads to it is written here.
"""

from __future__ import annotations

import struct
import sys

import msgpack

from plugin_sdk.wire import arrays
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.payloads import EMPTY_ARRAY, EMPTY_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from plugin_sdk.wire.limits import Bounds

LARGE_BYTES = 16 * 1024
"""From here on one copy more is worth more than a few lines of Python."""

_SCALARS = frozenset({type(None), bool, int, float, str})
_SUBCLASSED = (int, float, str)
"""What the packer takes of subclasses as well, such as those of enum."""
_PACKED = (*_SUBCLASSED, dict, list, tuple, bytes, bytearray)
# What the packer would carry and no reader accepts; an ExtType is a tuple, too.
_EXTENSIONS = (msgpack.ExtType, msgpack.Timestamp)
_BYTES, _EXTENSION = 0xC4, 0xC7


def pieces_of(value: Any, bounds: Bounds) -> tuple[list[bytes | memoryview], list[bytes] | None]:
    """Return what makes up ``value`` when it is joined, and the same without what is large.

    The second is None where the packer wrote all of it. Else it has as many containers and elements
    at the same depth, to be counted.

    Raises:
        PayloadError: the value has a type, key or depth that the wire does not carry.
        PayloadTooLargeError: it has more bytes than ``bounds`` allow.
    """
    pieces = _Pieces(bounds)
    try:
        pieces.write(value, 0)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        text = f"cannot carry this value: {error}"
        raise PayloadError(text) from None
    return pieces.found, pieces.outline if pieces.is_mixed else None


class _Pieces:
    """What was written of one value.

    Attributes:
        found: the pieces.
        outline: the same, with a small body for each large one.
        is_mixed: some of them are not the packer's.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.found: list[bytes | memoryview] = []
        self.outline: list[bytes] = []
        self.is_mixed = False
        self._bounds = bounds
        self._size = 0
        self._packer = msgpack.Packer(default=_refuse, use_bin_type=True)
        # The containers that lead to something that is not for the packer, by identity: they live
        # as long as the value. One too many of a value that was converted does no harm.
        self._leading: set[int] = set()

    def write(self, value: Any, depth: int) -> None:
        """Write a value that was not looked through yet."""
        if type(value) not in _SCALARS and self._look(value, depth):
            self.is_mixed = True
            self._take_apart(value, depth)
        else:
            self._add(self._packer.pack(value))

    def _look(self, value: Any, depth: int) -> bool:
        """Check keys and nesting at the sender, where the line of code is known.

        Returns:
            Whether there is something in it, or it is something, that is not for the packer.
        """
        if type(value) is list or type(value) is tuple:
            return self._look_at_list(value, depth)
        if isinstance(value, _EXTENSIONS):
            text = f"cannot carry a {type(value).__name__}: extension types are not allowed"
            raise PayloadError(text)
        if isinstance(value, dict):
            self._check_depth(depth)
            leads = self._look_at_items(value, depth)
        elif isinstance(value, (list, tuple)):
            return self._look_at_list(value, depth)
        else:
            if isinstance(value, (bytes, bytearray)):
                return len(value) >= LARGE_BYTES
            return not isinstance(value, _SUBCLASSED)
        if leads:
            self._leading.add(id(value))
        return leads

    def _look_at_list(self, value: list[Any] | tuple[Any, ...], depth: int) -> bool:
        self._check_depth(depth)
        leads = False
        for item in value:
            kind = type(item)
            if kind in _SCALARS or (kind is bytes and len(item) < LARGE_BYTES):
                continue
            if self._look(item, depth + 1):
                leads = True
        if leads:
            self._leading.add(id(value))
        return leads

    def _look_at_items(self, value: dict[Any, Any], depth: int) -> bool:
        leads = False
        for key, item in value.items():
            if not isinstance(key, str):
                text = f"cannot carry a dict with the key {key!r:.80}; keys must be str"
                raise PayloadError(text)
            if type(item) not in _SCALARS and self._look(item, depth + 1):
                leads = True
        return leads

    def _check_depth(self, depth: int) -> None:
        if depth > self._bounds.depth:
            text = f"cannot carry a value nested deeper than {self._bounds.depth} levels"
            raise PayloadError(text)

    def _take_apart(self, value: Any, depth: int) -> None:
        """Write a value that was looked through."""
        if isinstance(value, dict) and id(value) in self._leading:
            self._add(self._packer.pack_map_header(len(value)))
            for key, item in value.items():
                self._add(self._packer.pack(key))
                self._take_apart(item, depth + 1)
        elif isinstance(value, (list, tuple)) and id(value) in self._leading:
            self._add(self._packer.pack_array_header(len(value)))
            for item in value:
                self._take_apart(item, depth + 1)
        elif isinstance(value, (bytes, bytearray)) and len(value) >= LARGE_BYTES:
            self._add_bytes(memoryview(value))
        elif value is None or isinstance(value, _PACKED):
            self._add(self._packer.pack(value))
        else:
            self._write_unusual(value, depth)

    def _write_unusual(self, value: Any, depth: int) -> None:
        """Write what msgpack does not know, or not well."""
        view = None if _has_a_view_of_its_own(value) else _view_of(value)
        if view is not None:
            # Before anything is copied to make it contiguous.
            self._check_size(self._size + view.nbytes)
            if isinstance(value, memoryview) and view.ndim == 1 and view.format in {"B", "c"}:
                self._add_bytes(view)
                return
            if self._bounds.arrays and (header := arrays.header_of(view)) is not None:
                self._check_depth(depth)
                self._add_body(
                    _opening(_EXTENSION, len(header) + view.nbytes) + bytes([arrays.CODE]) + header,
                    arrays.content_of(_contiguous(value, view)),
                    EMPTY_ARRAY,
                )
                return
        self.write(_plain(value), depth)

    def _add_bytes(self, view: memoryview) -> None:
        self._check_size(self._size + view.nbytes)
        body = view if view.c_contiguous else view.tobytes()
        self._add_body(_opening(_BYTES, view.nbytes), body, EMPTY_BYTES)

    def _add_body(self, opening: bytes, body: bytes | memoryview, empty: bytes) -> None:
        size = body.nbytes if isinstance(body, memoryview) else len(body)
        self._count(len(opening) + size)
        self.found += (opening, body)
        self.outline.append(empty)

    def _add(self, piece: bytes) -> None:
        self._count(len(piece))
        self.found.append(piece)
        self.outline.append(piece)

    def _count(self, size: int) -> None:
        self._size += size
        self._check_size(self._size)

    def _check_size(self, size: int) -> None:
        if size > self._bounds.max_bytes:
            most = self._bounds.max_bytes
            text = f"value of at least {size} bytes; at most {most} can be carried at once"
            raise PayloadTooLargeError(text, size=size, limit=most)


def _refuse(value: Any) -> Any:
    """Explain what the packer does not take; by now that is no array and has no ``tolist()``."""
    if isinstance(value, int):
        text = "cannot carry an int outside -2**63 to 2**64 - 1"
    else:
        known = "None, bool, int, float, str, bytes, list, dict, or an array of numbers"
        text = f"cannot carry a {type(value).__name__}; use {known}"
    raise PayloadError(text)


def _plain(value: Any) -> Any:
    """Turn what knows how to become plain (numpy's other arrays and scalars do) into that."""
    to_list = getattr(value, "tolist", None)
    if not callable(to_list):
        return _refuse(value)
    try:
        return to_list()
    except NotImplementedError:
        if not isinstance(value, memoryview):
            raise
        text = f"cannot carry a memoryview of the format {value.format!r:.80}"
        raise PayloadError(text) from None


def _has_a_view_of_its_own(value: Any) -> bool:
    """Tell whether this is an array of numpy's with more to it than its elements.

    A masked array, for one, has a mask beside them, and says None for what is masked when it
    becomes a list.
    """
    numpy = sys.modules.get("numpy")
    ndarray, memmap = getattr(numpy, "ndarray", None), getattr(numpy, "memmap", None)
    if ndarray is None or not isinstance(value, ndarray):
        return False
    return type(value) not in {ndarray, memmap}


def _view_of(value: Any) -> memoryview | None:
    try:
        return memoryview(value)
    except (TypeError, ValueError, BufferError):
        return None


def _contiguous(value: Any, view: memoryview) -> memoryview:
    """Return a view in C order, if ``value`` has a faster way to it than `memoryview.tobytes`."""
    copy = getattr(value, "copy", None)  # of numpy's arrays; its result is in that order
    return view if view.c_contiguous or copy is None else memoryview(copy())


def opening_of_bytes(size: int) -> bytes:
    """Return what stands before so many bytes."""
    return _opening(_BYTES, size)


def _opening(first: int, size: int) -> bytes:
    """Return what stands before ``size`` bytes: ``first`` is of the narrowest of the three."""
    if size < 1 << 8:
        return struct.pack(">BB", first, size)
    if size < 1 << 16:
        return struct.pack(">BH", first + 1, size)
    return struct.pack(">BI", first + 2, size)

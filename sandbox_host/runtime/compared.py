"""The first place where two values differ, and how that is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox_host.reading import at, quoted

_MISSING: Final = object()
_MAX_SHOWN: Final = 60
_MAX_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Difference:
    """One place that differs.

    Attributes:
        path: such as ``result.rows[3].temperature``.
        recorded: what stood there when it was recorded, for people: short, and escaped.
        replayed: what stands there now.
    """

    path: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return f"{self.path}: {self.recorded} != {self.replayed}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How values are compared.

    Attributes:
        tolerance: numbers are the same that differ by no more than this, or by this part of the
            larger one.
        ignored: names of fields that may differ, at any depth, in lower case.
    """

    tolerance: float = 0.0
    ignored: frozenset[str] = field(default_factory=frozenset)

    def first(self, path: str, recorded: Any, replayed: Any) -> Difference | None:
        """Return the first difference of two values that came over the wire, or None.

        Args:
            path: what the values are called.
            recorded: the one.
            replayed: the other.
        """
        pair = (recorded, replayed)
        if all(isinstance(one, dict) for one in pair):
            return self._of_objects(path, recorded, replayed)
        if all(isinstance(one, list) for one in pair):
            return self._of_lists(path, recorded, replayed)
        views = [_array(one) for one in pair]
        if None not in views:
            return self._of_arrays(path, *views)  # type: ignore[arg-type]  # neither is None
        if self._same(recorded, replayed):
            return None
        return Difference(path, shown(recorded), shown(replayed))

    def _same(self, one: Any, other: Any) -> bool:
        if _is_number(one) and _is_number(other):
            if one == other or (one != one and other != other):  # noqa: PLR0124 - not a number
                return True
            near = self.tolerance
            return near > 0 and math.isclose(one, other, rel_tol=min(near, 1.0), abs_tol=near)
        return type(one) is type(other) and bool(one == other)

    def _of_objects(
        self, path: str, one: dict[str, Any], other: dict[str, Any]
    ) -> Difference | None:
        for key in (*one, *sorted(other.keys() - one.keys())):
            if key.casefold() in self.ignored:
                continue
            pair = one.get(key, _MISSING), other.get(key, _MISSING)
            if found := self.first(at(path, key), *pair):
                return found
        return None

    def _of_lists(self, path: str, one: list[Any], other: list[Any]) -> Difference | None:
        for index, pair in enumerate(zip(one, other, strict=False)):
            if found := self.first(at(path, index), *pair):
                return found
        return _lengths(path, one, other)

    def _of_arrays(self, path: str, one: memoryview, other: memoryview) -> Difference | None:
        if (one.shape, _kind(one)) != (other.shape, _kind(other)):
            return Difference(path, shown(one), shown(other))
        if one.nbytes == 0 or one.tobytes() == other.tobytes():
            return None
        # NaN is not the same bytes everywhere, and there may be a tolerance.
        flat = [view.cast("B").cast(_kind(view)) for view in (one, other)]  # type: ignore[call-overload]
        for index, pair in enumerate(zip(*flat, strict=True)):
            if not self._same(*pair):
                return Difference(f"{path}{_place(index, one.shape or ())}", *map(shown, pair))
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _array(value: object) -> memoryview | None:
    """Return an array that came over the wire, with or without numpy."""
    if value is None or value is _MISSING:
        return None
    if isinstance(value, bytes | str | int | float | list | dict):
        return None
    view = memoryview(value)  # type: ignore[arg-type]  # nothing else comes over the wire
    return view if view.c_contiguous else memoryview(view.tobytes())


def _kind(view: memoryview) -> str:
    return view.format.lstrip("@=<")


def _place(index: int, shape: Sequence[int]) -> str:
    places = []
    for length in reversed(shape):
        index, place = divmod(index, length)
        places.append(place)
    return "".join(f"[{place}]" for place in reversed(places))


def _lengths(path: str, one: Sequence[Any], other: Sequence[Any]) -> Difference | None:
    if len(one) == len(other):
        return None
    index = min(len(one), len(other))
    pair = (rest[index] if index < len(rest) else _MISSING for rest in (one, other))
    return Difference(at(path, index), *map(shown, pair))


def shown(value: Any) -> str:
    """Return a value for people, short: what is in a container is not told."""
    if value is _MISSING:
        return "nothing"
    match value:
        case None | bool() | int() | float():
            text = repr(value)
            return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
        case str():
            return quoted(value, _MAX_SHOWN)
        case bytes():
            beginning = value[:_MAX_BYTES].hex()
            more = "..." if len(value) > _MAX_BYTES else ""
            return f"{len(value)} bytes ({beginning}{more})"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)}"
        case _:
            pass
    view = memoryview(value)
    return f"an array {_kind(view)}{list(view.shape or ())}"


def lowered(names: Iterable[str]) -> frozenset[str]:
    """Return names of fields as `Comparison` takes them."""
    return frozenset(name.casefold() for name in names)

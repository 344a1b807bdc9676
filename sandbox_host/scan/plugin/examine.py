"""One file in, plain findings out: what the host asks for, a file at a time."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from typing import Any, Final

from .look import Look
from .text import Sighting, Source, deceptive

MAX_PLACES: Final = 5
"""Of the same thing in one file that are told; whoever reads five looks for the others."""

MAX_THINGS: Final = 400
"""Of one rule in one file; with more of them, that is what is told."""

MAX_WHAT: Final = 160
_NESTED: Final = ("too many nested", "too complex", "too many levels", "stack overflow")


def examine(data: bytes) -> list[list[Any]]:
    """Return what is suspicious in a source: rule, line, column and what, sorted by place.

    It is parsed as this interpreter would, with the encoding that it names, and nothing of it runs.
    """
    warnings.simplefilter("ignore")  # what the compiler thinks of its style goes nowhere
    found: list[Sighting] = []
    try:
        source = Source(data)
    except (UnicodeError, LookupError, ValueError) as error:
        return [["SH402", 1, 1, _cut(str(error))]]
    found += deceptive(source)
    found += _parsed(data, source)
    return _told(found)


def _parsed(data: bytes, source: Source) -> Iterable[Sighting]:
    if b"\0" in data:
        line, column = source.place(max(0, source.text.find("\0")))
        return [("SH404", line, column, "")]
    try:
        tree = ast.parse(data)
    except SyntaxError as error:
        deep = any(words in str(error.msg) for words in _NESTED)
        rule = "SH405" if deep else "SH401"
        return [(rule, error.lineno or 1, error.offset or 1, str(error.msg))]
    except ValueError as error:
        return [("SH401", 1, 1, str(error))]
    except (RecursionError, MemoryError):
        return [("SH405", 1, 1, "more deeply than the parser goes")]
    return [
        (rule, line, source.column(line, offset), what)
        for rule, line, offset, what in Look(tree).sightings()
    ]


def _told(found: Iterable[Sighting]) -> list[list[Any]]:
    """Return sightings sorted, the same thing only so often, and no rule without end."""
    told: list[list[Any]] = []
    places: dict[tuple[str, str], int] = {}
    things: dict[str, int] = {}
    unique = sorted({(rule, line, column, _cut(what)) for rule, line, column, what in found})
    for rule, line, column, what in unique:
        seen = places.get((rule, what), 0)
        places[rule, what] = seen + 1
        if seen == 0:
            things[rule] = things.get(rule, 0) + 1
            if things[rule] == MAX_THINGS + 1:
                told.append(["SH408", line, column, rule])
        if seen < MAX_PLACES and things[rule] <= MAX_THINGS:
            told.append([rule, line, column, what])
    return sorted(told, key=lambda one: (one[1], one[2], one[0]))


def _cut(what: str) -> str:
    # Half a surrogate pair, which a source may hold as an escape, could not be sent.
    return what[:MAX_WHAT].encode("utf-8", "backslashreplace").decode()

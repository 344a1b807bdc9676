"""What the process that read a source tells of it: checked here, for it may have been taken over.

A parser is a large program that met a stranger. Whatever it says, it can say no more than which
rule of ours was broken in a line that there is, with a short text that nothing acts on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sandbox_host.reading import escaped
from sandbox_host.scan.rules import RULES

MAX_SIGHTINGS: Final = 50_000
"""Of one file."""

MAX_SHOWN: Final = 200
_MAX_COLUMN: Final = 2**31
_FIELDS: Final = 4
_BREAK: Final = re.compile(rb"\r\n|\r|\n")


class BadSightingError(Exception):
    """It told something that no reader of a source tells."""


@dataclass(frozen=True, slots=True, order=True)
class Sighting:
    """One place where a rule is broken, before it is compared with what plugin.json asks for.

    Attributes:
        what: the name, path or text that was seen, escaped.
    """

    path: str
    line: int
    column: int
    rule: str
    what: str


def read_sightings(value: Any, path: str, data: bytes) -> tuple[Sighting, ...]:
    """Return what was told of one file.

    Args:
        value: as it came over the wire.
        path: of the file.
        data: what is in it.

    Raises:
        BadSightingError: it is not what an honest reader tells.
    """
    if not isinstance(value, list) or len(value) > MAX_SIGHTINGS:
        raise BadSightingError
    # Splitting by all three, even of another encoding's bytes, there are at least as many lines.
    lines = len(_BREAK.findall(data)) + 1
    return tuple(_read(one, path, lines) for one in value)


def _read(value: Any, path: str, lines: int) -> Sighting:
    if not isinstance(value, list) or len(value) != _FIELDS:
        raise BadSightingError
    rule, line, column, what = value
    if not (isinstance(rule, str) and isinstance(what, str)):
        raise BadSightingError
    if rule not in RULES or RULES[rule].seen_by_host:
        raise BadSightingError
    if type(line) is not int or type(column) is not int or not 0 < column <= _MAX_COLUMN:
        raise BadSightingError
    if line < 1:
        raise BadSightingError
    # At the end of a file the parser names the line after its last.
    return Sighting(path, min(line, lines), column, rule, escaped(what, MAX_SHOWN))

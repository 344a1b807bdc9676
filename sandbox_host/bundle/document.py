"""A JSON document from a stranger: bytes to plain values, or one error with the path of the fault.

RFC 8259 leaves open what a duplicate key, NaN or a number of a thousand digits means, and
parsers that answer differently are how a reviewer and a machine come to read two different
documents (CVE-2017-12635 began so). Everything it leaves open is refused here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from sandbox_host.reading import BadValueError, at

# Every branch consumes what it starts on, so the scan is linear whatever the bytes are.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)|[\[{]|[\]}]|,', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_NUMBER_LENGTH: Final = 64
_MAX_VALUES: Final = 20_000
"""Values in one document: an empty list is 2 bytes on disk and 150 in memory. The statement of the
largest bundle has some 8,000."""


class _Pairs(list[tuple[str, Any]]):
    """An object as the parser saw it, with its duplicates."""


class _BadNumber:
    """Stands where the document has a number that is none, until its path is known."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def _number(text: str) -> int | float | _BadNumber:
    if len(text) > _MAX_NUMBER_LENGTH:
        return _BadNumber("expected a number of at most 64 characters, got a longer one")
    if text.lstrip("-").isdigit():
        whole = int(text)
        fits = -(2**63) <= whole < 2**63
        return whole if fits else _BadNumber(f"expected a number of 64 bits, got {text}")
    real = float(text)
    return real if math.isfinite(real) else _BadNumber(f"expected a finite number, got {text}")


def _constant(text: str) -> _BadNumber:
    return _BadNumber(f"expected a finite number, got {text}")


def _check_shape(text: str, max_depth: int) -> None:
    # Before the parser runs: its own answer to a deep document is RecursionError, or worse, and
    # to a wide one fifty times its size in memory.
    depth = values = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        depth += first in "[{"
        depth -= first in "]}"
        # Every value but the first of a list or object has a comma before it.
        values += first in "[{,"
        if depth > max_depth:
            raise BadValueError("", f"expected at most {max_depth} nested levels, got more")
        if values > _MAX_VALUES:
            raise BadValueError("", f"expected at most {_MAX_VALUES} values, got more")


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, _BadNumber):
        raise BadValueError(path, value.problem)
    if isinstance(value, _Pairs):
        result: dict[str, Any] = {}
        for key, entry in value:
            where = at(path, key)
            _check_text(key, where)
            if key in result:
                raise BadValueError(where, "this key is given twice")
            result[key] = _plain(entry, where)
        return result
    if isinstance(value, list):
        return [_plain(entry, at(path, index)) for index, entry in enumerate(value)]
    if isinstance(value, str):
        _check_text(value, path)
    return value


def _check_text(text: str, path: str) -> None:
    if not text.isascii() and _SURROGATE.search(text):
        raise BadValueError(path, "expected Unicode text, got half of a surrogate pair")


def parse_document(data: bytes, *, max_bytes: int, max_depth: int = 32) -> Any:
    """Return the one JSON value in `data`.

    Args:
        data: UTF-8 without byte order mark (RFC 8259, 8.1).
        max_bytes: the most bytes that are looked at.
        max_depth: the most levels of lists and objects.

    Raises:
        BadValueError: not JSON, too large, deep or wide (20,000 values), a duplicate key at any
            level, NaN or Infinity, an integer beyond 64 bits, a lone surrogate; with the path
            where there is one.
    """
    if len(data) > max_bytes:
        raise BadValueError("", f"expected at most {max_bytes} bytes, got {len(data)}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise BadValueError("", "expected UTF-8 without a byte order mark, got one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadValueError("", f"expected UTF-8, got another byte at {error.start}") from None
    _check_shape(text, max_depth)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Pairs,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise BadValueError("", f"expected JSON; {where}: {error.msg}") from None
    return _plain(value, "")

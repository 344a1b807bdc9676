"""JSON with one reading only: what two parsers could understand differently is refused.

Refused beyond RFC 8259: duplicate keys at any level, NaN and infinities, fractions, integers that
do not fit 64 bits, byte-order marks, deep nesting, strings that are not encodable as UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_MAX_INTEGER: Final = 2**63 - 1
# Possessive, and the closing quote optional: an unterminated string takes the rest of the input
# in one match, so hostile text cannot make this quadratic.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class JsonFaultError(ValueError):
    """The bytes are not strict JSON; the text says why. Callers raise their own typed error."""


def parse_strict(data: bytes, *, max_bytes: int, max_depth: int) -> Any:
    """Parse JSON made of objects, arrays, strings, integers, booleans and null.

    Args:
        data: the bytes, UTF-8 without a byte-order mark.
        max_bytes: refused before anything is decoded.
        max_depth: of nested objects and arrays, counted before the parser recurses.

    Raises:
        JsonFaultError: for every other input.
    """
    if len(data) > max_bytes:
        raise JsonFaultError(f"it has {len(data)} bytes, more than the {max_bytes} allowed")
    _check_depth(data, max_depth)
    try:
        text = data.decode()
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_no_fraction,
            parse_int=_small_integer,
        )
    except JsonFaultError:
        raise
    except UnicodeDecodeError as error:
        raise JsonFaultError(f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise JsonFaultError(f"not JSON: {error}") from None


def text_fault(value: str, max_characters: int) -> str:
    """Return why a parsed string is not acceptable text, or ""."""
    if len(value) > max_characters:
        return f"longer than {max_characters} characters"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "holds a lone surrogate, which no encoding can carry"
    return ""


def _check_depth(data: bytes, max_depth: int) -> None:
    # Only brackets outside strings count. Where the text is not JSON, the parser says so later;
    # that this count is never too low is what matters, and a string never hides a bracket that
    # the parser would see as structure.
    depth = 0
    for character in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        if character in b"[{":
            depth += 1
            if depth > max_depth:
                raise JsonFaultError(f"it is nested deeper than {max_depth} levels")
        else:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise JsonFaultError(f"the key {key[:80]!a} appears twice in one object")
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise JsonFaultError(f"{name} is not a JSON value")


def _no_fraction(text: str) -> Any:
    raise JsonFaultError(f"{text[:40]} is not an integer")


def _small_integer(text: str) -> int:
    if len(text) > len(str(_MAX_INTEGER)) + 1 or abs(int(text)) > _MAX_INTEGER:
        raise JsonFaultError(f"{text[:24]}... does not fit 64 bits")
    return int(text)

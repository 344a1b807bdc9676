"""Values out of a stranger's JSON, for `envelope` and `statement`: one small check a function.

Each takes where the value stands, for the message, and returns it with the type it was found to
have. All of them raise `VerificationError`, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any, Final

from sandbox_host.bundle.contents import ENVELOPE_NAME, ReadLimits
from sandbox_host.bundle.document import parse_document
from sandbox_host.bundle.names import shown
from sandbox_host.errors import VerificationError
from sandbox_host.reading import BadValueError, sentence

LIMITS: Final = ReadLimits()
_MAX_DEPTH: Final = 6
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def fault(where: str, reason: str) -> VerificationError:
    """Return the refusal of the value at `where`, to be raised."""
    return VerificationError(
        sentence(f"{ENVELOPE_NAME}: {where}: {reason}"),
        remedy="Get the bundle again; if you are its author, sign it again (`sandbox-host sign`).",
    )


def type_name(value: Any) -> str:
    """Return what a JSON value is, for messages."""
    names = {dict: "an object", list: "an array", str: "text", int: "an integer"}
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def read_json(data: bytes, where: str) -> Any:
    """Return the one JSON value in `data`, of at most as many bytes as an envelope may have."""
    try:
        return parse_document(data, max_bytes=LIMITS.envelope_bytes, max_depth=_MAX_DEPTH)
    except BadValueError as error:
        raise fault(where, str(error)) from error


def read_object(
    value: Any, required: set[str], where: str, optional: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    """Return an object that has all `required` keys and none beside them and the `optional`."""
    if type(value) is not dict:
        raise fault(where, f"expected an object, got {type_name(value)}")
    unknown, missing = value.keys() - required - optional, required - value.keys()
    if unknown:
        raise fault(where, f"unknown key {shown(min(unknown))}")
    if missing:
        raise fault(where, f"missing key {min(missing)!r}")
    return value


def read_array(value: Any, where: str) -> list[Any]:
    """Return a list."""
    if type(value) is not list:
        raise fault(where, f"expected an array, got {type_name(value)}")
    return value


def read_text(value: Any, where: str, most: int = 200) -> str:
    """Return text of 1 to `most` characters."""
    if type(value) is not str:
        raise fault(where, f"expected text, got {type_name(value)}")
    if not 0 < len(value) <= most:
        raise fault(where, f"expected 1 to {most} characters, got {len(value)}")
    return value


def read_constant(value: Any, expected: str, where: str) -> None:
    """Refuse everything but the text `expected`."""
    text = read_text(value, where)
    if text != expected:
        raise fault(where, f"expected {expected!r}, got {shown(text)}")


def read_digest(value: Any, where: str) -> str:
    """Return a SHA-256 digest as 64 lower-case hexadecimal digits."""
    if type(value) is not str or not _HEX_DIGEST.fullmatch(value):
        raise fault(where, "expected 64 lower-case hexadecimal digits")
    return value


def read_base64(value: Any, where: str, most: int) -> bytes:
    """Return what base64 text of at most `most` characters stands for.

    Only the canonical form of RFC 4648, section 4, is read: with padding, without line feeds, and
    with the unused bits zero (section 3.5). Otherwise two texts would mean the same bytes.
    """
    if type(value) is not str or len(value) > most:
        raise fault(where, f"expected base64 text of at most {most} characters")
    try:
        data = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise fault(where, "not base64") from None
    if base64.b64encode(data).decode() != value:
        raise fault(where, "not canonical base64")
    return data


def read_time(value: Any, where: str) -> datetime:
    """Return a moment that is written as RFC 3339 in UTC with whole seconds."""
    if type(value) is str and _TIME.fullmatch(value):
        try:
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            pass
    raise fault(where, "expected a time as 2026-01-31T12:00:00Z")

"""Strict reading of values that somebody else wrote, with the path of the bad one in the error.

plugin.json and the operator's TOML arrive as nested dicts and lists. The readers here check one
value each and raise `BadValueError`, whose text is ``path: expected ..., got ...``. They coerce
nothing: a bool is no number, a number is no text.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_QUANTITY: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]{1,3})")
_MAX_QUANTITY_LENGTH: Final = 32
_MAX_KEYS_SHOWN: Final = 24
_CUT: Final = "..."

_BYTE_UNITS: Final[Mapping[str, int]] = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SHOWN_UNITS: Final = tuple(
    (f"{prefix}iB", 2**power) for prefix, power in zip("TGMK", (40, 30, 20, 10), strict=True)
)
_MAX_SHOWN_NUMBER: Final = 9_999
_SECOND_UNITS: Final[Mapping[str, Decimal]] = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
}

# Right-to-left overrides and isolates: they make a reviewer read another text than the machine.
_BIDI_CONTROLS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_UNPRINTABLE_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})

SIZE: Final = 'bytes as a whole number, or text such as "256 MB" or "256 MiB"'
DURATION: Final = 'seconds as a number, or text such as "60 s" or "500 ms"'


class BadValueError(Exception):
    """A value is not acceptable. Callers turn it into `ManifestError` or `ConfigError`.

    Attributes:
        path: where the value stands, such as ``limits.memory``; "" for the whole document.
        problem: what is wrong with it.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


def quoted(text: str, limit: int = 60) -> str:
    """Return hostile text as a short ASCII literal in quotes, safe for a terminal and a log."""
    return json.dumps(text) if len(text) <= limit else json.dumps(text[:limit]) + "..."


def escaped(text: str, limit: int, *, keep: str = "", keep_end: bool = False) -> str:
    r"""Return hostile text on one line and without control characters, cut to `limit` characters.

    What a terminal or a log would act on stands there as its escape, such as ``\x1b``; so does what
    shows as nothing and makes a reader see another text: zero-width and bidirectional formatting
    characters (Unicode's category Cf; CVE-2021-42574), and what is private or not assigned.

    Args:
        text: anything that somebody else wrote.
        limit: the most characters of the result; "..." stands for what was cut off.
        keep: characters that pass all the same, such as ``"\n\t"`` in a traceback.
        keep_end: cut off the beginning, not the end: a traceback's last lines say most.
    """
    part = text[-limit:] if keep_end and limit else text[:limit]
    shown = "".join(c if c in keep else _escaped_character(c) for c in part)
    if len(shown) <= limit and len(text) <= limit:
        return shown
    room = max(0, limit - len(_CUT))
    if keep_end:
        return _CUT + shown[len(shown) - min(room, len(shown)) :]
    return shown[:room] + _CUT


@functools.lru_cache(maxsize=1_024)
def _escaped_character(c: str) -> str:
    # Remembered, because a hostile text may be long and need this for each of its characters.
    return c.encode("unicode_escape").decode() if _is_unsafe(c) else c


def _is_unsafe(c: str) -> bool:
    category = unicodedata.category(c)
    return category.startswith("C") or category in _UNPRINTABLE_CATEGORIES


def sentence(text: str) -> str:
    """Return text with a full stop, unless it ends as a sentence does already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def shown_bytes(count: float) -> str:
    """Return a number of bytes for people, such as ``64 MiB``; exact where that stays short.

    Units are powers of 1024 (IEC 80000-13). What is no short whole number of any unit is rounded
    to one decimal of the largest that fits, such as ``1.5 KiB``.
    """
    whole = int(count)
    for name, size in _SHOWN_UNITS:
        number, rest = divmod(whole, size)
        if number and not rest and number <= _MAX_SHOWN_NUMBER:
            return f"{number} {name}"
    for name, size in _SHOWN_UNITS:
        if whole >= size:
            return f"{whole / size:.1f} {name}"
    return f"{whole} B"


def shown_seconds(seconds: float) -> str:
    """Return a duration for people, such as ``24 h``, ``30 s`` or ``500 ms``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.12g} ms"
    if seconds >= 3600 and seconds % 3600 == 0:  # noqa: PLR2004 - an hour
        return f"{seconds / 3600:.12g} h"
    if seconds >= 120 and seconds % 60 == 0:  # noqa: PLR2004 - "60 s" reads better than "1 min"
        return f"{seconds / 60:.12g} min"
    return f"{seconds:.12g} s"


def shown_amount(value: float, unit: str) -> str:
    """Return an amount of a budget for people, such as ``64 MiB``, ``1.5 s`` or ``9 threads``.

    Args:
        value: how much.
        unit: ``bytes``, ``seconds``, or what is counted; "" for nothing.
    """
    if unit == "bytes":
        return shown_bytes(value)
    if unit == "seconds":
        return shown_seconds(round(value, 3))
    return f"{value:.12g} {unit}".rstrip()


def describe(value: object) -> str:
    """Return what a value is, in the words of an error text: short, ASCII, never its contents."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case int():
            return str(value) if value.bit_length() <= 64 else "a very large number"  # noqa: PLR2004
        case float():
            return repr(value)
        case str():
            return quoted(value)
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def at(path: str, key: str | int) -> str:
    """Return the path of a key or list index below `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    shown = key if _PLAIN_KEY.fullmatch(key) else quoted(key)
    return f"{path}.{shown}" if path else shown


def expected(path: str, what: str, value: object) -> BadValueError:
    """Return the error ``path: expected what, got value``, to be raised."""
    return BadValueError(path, f"expected {what}, got {describe(value)}")


def read_object(value: object, path: str) -> Mapping[str, Any]:
    """Return `value` if it is an object whose keys are text."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise expected(path, "an object", value)
    return value


def _hint(key: str, known: Collection[str]) -> str:
    # The known keys may be hostile as well: a plugin's schema names them.
    near = difflib.get_close_matches(key[:64], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {quoted(near[0])}?"
    shown = ", ".join(at("", name) for name in list(known)[:_MAX_KEYS_SHOWN])
    return f"expected one of {shown}{', ...' if len(known) > _MAX_KEYS_SHOWN else ''}"


def check_keys(
    table: Mapping[str, Any], path: str, known: Collection[str], required: Collection[str] = ()
) -> None:
    """Refuse unknown keys, with the nearest known one, and missing required ones."""
    for key in table:
        if key not in known:
            raise BadValueError(at(path, key), f"unknown key; {_hint(key, known)}")
    for key in required:
        if key not in table:
            raise BadValueError(at(path, key), "missing; this key is required")


def read_flag(value: object, path: str) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise expected(path, "true or false", value)
    return value


def read_whole(value: object, path: str, minimum: int, maximum: int) -> int:
    """Return `value` if it is an int, not a bool, from `minimum` to `maximum` inclusive."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise expected(path, "a whole number", value)
    if not minimum <= value <= maximum:
        raise expected(path, f"a whole number from {minimum} to {maximum}", value)
    return value


def is_printable(text: str) -> bool:
    """Tell whether text has no control, bidirectional override, separator or surrogate."""
    # What Python calls printable has none of these, and is found out much faster.
    return text.isprintable() or not any(map(_is_control, text))


def _is_control(c: str) -> bool:
    return c in _BIDI_CONTROLS or unicodedata.category(c) in _UNPRINTABLE_CATEGORIES


def read_text(value: object, path: str, *, limit: int, blank: bool = False) -> str:
    """Return `value` if it is text of at most `limit` characters on one line.

    Args:
        value: what was written.
        path: where.
        limit: the most characters.
        blank: whether empty text, or only spaces, is acceptable.

    Raises:
        BadValueError: another type, too long, blank, or with control characters.
    """
    if not isinstance(value, str):
        raise expected(path, "text", value)
    if len(value) > limit:
        raise BadValueError(path, f"expected at most {limit} characters, got {len(value)}")
    if not is_printable(value):
        raise BadValueError(path, f"expected text without control characters, got {quoted(value)}")
    if not blank and not value.strip():
        raise expected(path, "text that is not blank", value)
    return value


def read_match(value: object, path: str, pattern: re.Pattern[str], what: str) -> str:
    """Return `value` if it is text that `pattern` matches in full; `what` describes the pattern."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise expected(path, what, value)
    return value


def read_list(
    value: object, path: str, item: Callable[[object, str], T], *, limit: int = 64
) -> tuple[T, ...]:
    """Return a list of at most `limit` different items, each read by `item(value, path)`."""
    if not isinstance(value, list | tuple):
        raise expected(path, "a list", value)
    if len(value) > limit:
        raise BadValueError(path, f"expected at most {limit} entries, got {len(value)}")
    items: list[T] = []
    for index, entry in enumerate(value):
        read = item(entry, at(path, index))
        if read in items:
            raise BadValueError(at(path, index), f"{describe(entry)} is listed twice")
        items.append(read)
    return tuple(items)


def _quantity(text: str) -> tuple[Decimal, str] | None:
    if len(text) > _MAX_QUANTITY_LENGTH or not (match := _QUANTITY.fullmatch(text)):
        return None
    return Decimal(match[1]), match[2]


def parse_bytes(value: object, path: str = "") -> int:
    """Return a size in bytes.

    A number is bytes; text carries its unit: B, kB, MB, GB, TB are powers of 1000 and KiB, MiB,
    GiB, TiB powers of 1024 (IEC 80000-13). A fraction of a byte is dropped.

    Raises:
        BadValueError: negative, a fraction without unit, another type or unit.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (quantity := _quantity(value)) and quantity[1] in _BYTE_UNITS:
        return int(quantity[0] * _BYTE_UNITS[quantity[1]])
    raise expected(path, SIZE, value)


def parse_seconds(value: object, path: str = "") -> float:
    """Return a duration in seconds: a number is seconds; text ends in ns, us, ms, s, min or h.

    Raises:
        BadValueError: negative, not finite, another type or unit.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Compared as it is: float() of an int with 400 digits would overflow.
        if 0 <= value < 1e18 and math.isfinite(value):  # noqa: PLR2004
            return float(value)
    elif isinstance(value, str) and (quantity := _quantity(value)) and quantity[1] in _SECOND_UNITS:
        return float(quantity[0] * _SECOND_UNITS[quantity[1]])
    raise expected(path, DURATION, value)

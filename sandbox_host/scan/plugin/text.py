"""What stands in a source as text: its encoding, and characters that deceive whoever reads it.

After "Trojan Source" (CVE-2021-42574, CVE-2021-42694), UTS #39 and PEP 672.
"""

from __future__ import annotations

import array
import bisect
import codecs
import io
import itertools
import re
import tokenize
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

Sighting = tuple[str, int, int, str]
"""A rule's id, a line and a column from 1, and what was seen there."""

# PEP 263, whose two lines are found before anything is decoded.
_COOKIE: Final = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.ASCII)
_COOKIE_BYTES: Final = 400
_HARMLESS_ENCODINGS: Final = frozenset({"utf-8", "ascii"})
_BLANK_LINE: Final = re.compile(rb"[ \t\f]*(?:#.*)?", re.DOTALL)

_LINE: Final = re.compile(r"\r\n|\r|\n")
_BIDI: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f")
_CONTROL: Final = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x9f\u2028\u2029]|\r(?!\n)")
_BLANKS: Final = re.compile(r"[^\S\r\n]{100,}+")
_MAX_LINE: Final = 2_000

# Letters of other scripts that look like Latin ones in most fonts (UTS #39, confusables.txt).
_ALIKE: Final = str.maketrans(
    "АВЕЅІЈКМНОРСТУХЗаеѕіјорсухԁһԛԝѵ"  # noqa: RUF001 - Cyrillic
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοναι"  # noqa: RUF001 - Greek
    "օհոսցքԼՏՕ",
    "ABESIJKMHOPCTYX3aesijopcyxdhqwv" + "ABEZHIKMNOPTYXovai" + "ohnugqLSO",
)
_ASCII_LETTER: Final = re.compile("[A-Za-z]")


class Source:
    """One file, decoded as the interpreter would, with its lines.

    Args:
        data: the file.

    Raises:
        LookupError: it names an encoding that there is not, or that is none of text.
        UnicodeDecodeError: it is not in the encoding that it names, or not in UTF-8.
    """

    def __init__(self, data: bytes) -> None:
        self.encoding = declared_encoding(data)
        body = data.removeprefix(codecs.BOM_UTF8)
        self.text = body.decode(self.encoding or "utf-8")
        self._starts = [0, *(match.end() for match in _LINE.finditer(self.text))]
        self._ends: dict[int, Sequence[int]] = {}

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of a character, both from 1."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def column(self, line: int, byte_offset: int) -> int:
        """Return the column, from 1, that is so many bytes of UTF-8 into a line."""
        if not 1 <= line <= len(self._starts):
            return 1
        ends = self._ends.get(line)
        if ends is None:
            ends = self._ends[line] = self._character_ends(line)
        return bisect.bisect_right(ends, byte_offset) + 1

    def _character_ends(self, line: int) -> Sequence[int]:
        """Return where each character of a line ends, in bytes of UTF-8.

        Once for each line: its author may have put all of the file, and every finding, into one.
        """
        following = self._starts[line] if line < len(self._starts) else None
        text = self.text[self._starts[line - 1] : following]
        if text.isascii():
            return range(1, len(text) + 1)
        sizes = (len(char.encode("utf-8", "replace")) for char in text)
        return array.array("L", itertools.accumulate(sizes))

    def lines(self) -> Iterator[tuple[int, int]]:
        """Yield where each line starts and ends, its line break included."""
        yield from zip(self._starts, [*self._starts[1:], len(self.text)], strict=True)


def declared_encoding(data: bytes) -> str:
    """Return the encoding that a source names in its first two lines, or "" for none or UTF-8."""
    body = data[:_COOKIE_BYTES].removeprefix(codecs.BOM_UTF8)
    for line in re.split(rb"\r\n|\r|\n", body)[:2]:
        if match := _COOKIE.match(line):
            return _foreign(match[1].decode("ascii", "replace"))
        if not _BLANK_LINE.fullmatch(line):
            return ""  # the second line counts only below a line without code
    return ""


def _foreign(name: str) -> str:
    try:
        return "" if codecs.lookup(name).name in _HARMLESS_ENCODINGS else name
    except LookupError:
        return name


def deceptive(source: Source) -> Iterator[Sighting]:
    """Yield what in a source shows otherwise than it is read."""
    if source.encoding:
        yield "SH403", 1, 1, source.encoding
    yield from _lines(source)
    for rule, pattern, counts in _CHARACTERS:
        for match in pattern.finditer(source.text):
            if counts(source.text, match):
                yield rule, *source.place(match.start()), _named(match[0][0])
    if not source.text.isascii():
        yield from _identifiers(source)


def _any(_text: str, _match: re.Match[str]) -> bool:
    return True


def _joins_nothing(text: str, match: re.Match[str]) -> bool:
    # After a symbol they choose the form of an emoji, or join two of them.
    before = text[match.start() - 1] if match.start() else ""
    drawn = before != "" and (unicodedata.category(before) in {"So", "Sk", "Mn"} or before in "#*")
    return not (match[0] in _JOINERS and drawn)


def _is_followed(text: str, match: re.Match[str]) -> bool:
    return text[match.end() : match.end() + 1] not in ("", "\n", "\r", "#")


_CHARACTERS: Final[tuple[tuple[str, re.Pattern[str], Callable[..., bool]], ...]] = (
    ("SH301", _BIDI, _any),
    ("SH302", _INVISIBLE, _joins_nothing),
    ("SH305", _CONTROL, _any),
    ("SH306", _BLANKS, _is_followed),
)


def _named(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()


def _lines(source: Source) -> Iterator[Sighting]:
    for number, (start, end) in enumerate(source.lines(), 1):
        if end - start > _MAX_LINE:
            yield "SH307", number, 1, f"{end - start} characters"


def _identifiers(source: Source) -> Iterator[Sighting]:
    for token in _tokens(source.text):
        name = token.string
        if token.type != tokenize.NAME or name.isascii():
            continue
        line, column = token.start
        if unicodedata.normalize("NFKC", name).isascii():
            yield "SH304", line, column + 1, name
        elif _is_disguised(name):
            yield "SH303", line, column + 1, name


def _is_disguised(name: str) -> bool:
    """Tell whether letters of another script pass for the Latin ones beside or in place of them."""
    seeming = name.translate(_ALIKE)
    return seeming != name and (seeming.isascii() or _ASCII_LETTER.search(name) is not None)


def _tokens(text: str) -> Iterable[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):
        return  # the parser says more of it

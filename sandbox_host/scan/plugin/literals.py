"""Literals that hold what nobody can read: encoded text, bytes, long tables of numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from .names import summands
from .text import Sighting

MIN_LENGTH: Final = 512
"""Characters; a digest, a key or a small picture is shorter."""

_MIN_NUMBERS: Final = 256
_MIN_PART: Final = 32
_SPACES: Final = re.compile(r"\s+")
_HEX: Final = re.compile(r"(?:0x|\\x|[0-9A-Fa-f])+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_CLASSES: Final = tuple(map(re.compile, ("[a-z]", "[A-Z]", "[0-9]")))
_WORD: Final = re.compile(rf"[!-~]{{{MIN_LENGTH},}}+")
_UNREADABLE: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\xa0\ud800-\udfff\ufffd]")
_SAMPLE: Final = 65_536
_HEX_DIGITS: Final = 8
_BASE85_DIGITS: Final = 40
_UNREADABLE_PART: Final = 10  # one in ten


def kind_of(text: str) -> str:
    """Return what a long text is made of, such as "base64", or "" for what can be read."""
    if len(text) < MIN_LENGTH:
        return ""
    sample = text[:_SAMPLE]
    if len(_UNREADABLE.findall(sample)) * _UNREADABLE_PART > len(sample):
        return "bytes"
    dense = _SPACES.sub("", sample)
    if len(dense) < MIN_LENGTH // 2:
        return ""
    if _HEX.fullmatch(dense):
        return "hexadecimal" if len(set(dense)) >= _HEX_DIGITS else ""
    if _BASE64.fullmatch(dense):
        return "base64" if all(one.search(dense) for one in _CLASSES) else ""
    word = _WORD.search(sample)
    return "encoded" if word and len(set(word[0])) >= _BASE85_DIGITS else ""


class Literals:
    """Looks at the literals of one file; each is told once, as the largest that it is part of."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def look(self, node: ast.AST) -> Iterator[Sighting]:
        """Yield what is suspicious of a node; parents have to come before children."""
        if id(node) in self._seen:
            return
        match node:
            case ast.Constant(value=str() | bytes() as value):
                text = value if isinstance(value, str) else value.decode("latin-1")
                yield from _told(node, text)
            case ast.Constant(value=int() as value) if value.bit_length() > MIN_LENGTH * 4:
                yield "SH310", node.lineno, node.col_offset, f"{value.bit_length()} bits, a number"
            case ast.BinOp(op=ast.Add()):
                yield from self._sum(node)
            case ast.List() | ast.Tuple() | ast.Set():
                yield from self._collection(node)
            case _:
                pass

    def _sum(self, node: ast.BinOp) -> Iterator[Sighting]:
        inner: ast.expr = node.left
        while isinstance(inner, ast.BinOp):
            self._seen.add(id(inner))
            inner = inner.left
        yield from self._parts(node, summands(node))

    def _collection(self, node: ast.List | ast.Tuple | ast.Set) -> Iterator[Sighting]:
        numbers = sum(_is_byte(one) for one in node.elts)
        if numbers >= _MIN_NUMBERS and numbers == len(node.elts):
            yield "SH311", node.lineno, node.col_offset, f"{numbers} numbers"
        yield from self._parts(node, node.elts)

    def _parts(self, node: ast.expr, parts: list[ast.expr]) -> Iterator[Sighting]:
        texts = [_constant_text(one) for one in parts]
        known = [text for text in texts if text]
        joined = "".join(known)
        if len(known) != len(texts) or len(joined) < _MIN_PART * len(known):
            return
        if kind_of(joined):
            self._seen.update(map(id, parts))
            yield from _told(node, joined)


def _told(node: ast.expr, text: str) -> Iterator[Sighting]:
    kind = kind_of(text)
    if kind:
        yield "SH310", node.lineno, node.col_offset, f"{len(text)} characters, {kind}"


def _constant_text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.Constant(value=bytes() as value):
            return value.decode("latin-1")
        case _:
            return ""


def _is_byte(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() as value):
            return not isinstance(value, bool) and 0 <= value <= 0xFF  # noqa: PLR2004 - a byte
        case _:
            return False

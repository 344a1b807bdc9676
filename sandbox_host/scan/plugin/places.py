"""Files and addresses that a source names where it opens or connects: what a grant is about."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from .names import Names
from .reach import (
    ADDRESSED,
    DEFAULT_PORTS,
    FILES,
    HARMLESS_FILES,
    MOVERS,
    NAMES,
    PATH_WRITERS,
    rule_of,
)
from .text import Sighting

_READ: Final = "SH150"
_WRITE: Final = "SH151"
_CLIMB: Final = "SH152"
_ADDRESS: Final = "SH103"
_WRITING_MODES: Final = frozenset("wax+")
_WRITING_FLAGS: Final = frozenset(
    ["os.O_WRONLY", "os.O_RDWR", "os.O_CREAT", "os.O_TRUNC", "os.O_APPEND"]
)
_OPENERS: Final = frozenset(
    ["builtins.open", "io.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open"]
)
_MAX_PORT: Final = 65_535


class Places:
    """Finds them in one file.

    Args:
        names: what its names stand for.
    """

    def __init__(self, names: Names) -> None:
        self._names = names

    def called(self, node: ast.Call, names: list[str]) -> Iterator[Sighting]:
        """Yield what a call opens or connects to, where its arguments say so.

        Args:
            node: the call.
            names: what its function may be.
        """
        for name in dict.fromkeys(names):
            if kind := rule_of(FILES, name):
                yield from self._files(node, name, kind)
            elif name in ADDRESSED:
                yield from self._address(node, name)
            elif rule_of(NAMES, name) == "SH102":
                yield from self._url(node)
        yield from self._method(node)

    # -- files --------------------------------------------------------------------------------

    def _files(self, node: ast.Call, name: str, kind: str) -> Iterator[Sighting]:
        writes = kind == "write" or (name in _OPENERS and self._mode(node))
        writes = writes or (name in {"os.open", "posix.open"} and self._flags(node))
        path = self._path(node.args)
        if path:
            yield from _file(node, path, writes=writes)
        if name in MOVERS and (target := self._path(node.args[1:])):
            yield from _file(node, target, writes=True)

    def _path(self, args: list[ast.expr]) -> str:
        if not args:
            return ""
        first = args[0]
        if isinstance(first, ast.Call) and _ends(self._names.meanings(first.func), "expanduser"):
            first = first.args[0] if first.args else first
        return self._names.text(first) or ""

    def _mode(self, node: ast.Call) -> bool:
        """Tell whether a file is opened to be written, as far as its mode says."""
        given = node.args[1] if len(node.args) > 1 else None
        for one in node.keywords:
            given = one.value if one.arg == "mode" else given
        if given is None:
            return False
        mode = self._names.text(given)
        return mode is None or bool(_WRITING_MODES.intersection(mode))

    def _flags(self, node: ast.Call) -> bool:
        found = (self._names.meanings(inner) for one in node.args[1:2] for inner in ast.walk(one))
        return any(_WRITING_FLAGS.intersection(names) for names in found)

    def _method(self, node: ast.Call) -> Iterator[Sighting]:
        """Yield what ``Path("/etc/motd").write_text("")`` writes to."""
        match node.func:
            case ast.Attribute(value=ast.Call(func=made, args=args), attr=method):
                opened = ast.Call(node.func, [made, *node.args], node.keywords)
                writes = method in PATH_WRITERS or (method == "open" and self._mode(opened))
                of_path = any(name.startswith("pathlib.") for name in self._names.meanings(made))
                path = self._path(args)
                if writes and of_path and path:
                    yield from _file(node, path, writes=True)
            case _:
                pass

    # -- addresses ----------------------------------------------------------------------------

    def _address(self, node: ast.Call, name: str) -> Iterator[Sighting]:
        host, port = (self._argument(node, index) for index in (0, 1))
        if isinstance(host, ast.Tuple) and len(host.elts) >= 2:  # noqa: PLR2004 - host and port
            host, port = host.elts[:2]
        text = self._names.text(host) if host is not None else None
        number = DEFAULT_PORTS.get(name, 0)
        match port:
            case ast.Constant(value=int() as value) if 0 < value <= _MAX_PORT:
                number = value
            case None:
                pass
            case _:
                number = 0
        if text and number:
            yield _ADDRESS, node.lineno, node.col_offset, _entry(text, number)

    @staticmethod
    def _argument(node: ast.Call, index: int) -> ast.expr | None:
        if len(node.args) > index:
            return node.args[index]
        wanted = ("host", "port")[index]
        return next((one.value for one in node.keywords if one.arg == wanted), None)

    def _url(self, node: ast.Call) -> Iterator[Sighting]:
        for one in [*node.args[:2], *(keyword.value for keyword in node.keywords[:8])]:
            text = self._names.text(one)
            if text and (entry := _entry_of(text)):
                yield _ADDRESS, node.lineno, node.col_offset, entry


def _file(node: ast.Call, path: str, *, writes: bool) -> Iterator[Sighting]:
    clean = posixpath.normpath(path)
    if clean.startswith("../") or clean == "..":
        yield _CLIMB, node.lineno, node.col_offset, path
    elif clean.startswith(("/", "~")) and clean not in HARMLESS_FILES:
        rule = _WRITE if writes else _READ
        yield (
            rule,
            node.lineno,
            node.col_offset,
            "/" + clean.lstrip("/") if clean[0] == "/" else clean,
        )


def _ends(names: list[str], last: str) -> bool:
    return any(name.rpartition(".")[2] == last for name in names)


def _entry_of(url: str) -> str:
    """Return the ``host:port`` of a URL, or ""."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    port = port or DEFAULT_PORTS.get(parts.scheme, 0)
    return _entry(host, port) if host and port else ""


def _entry(host: str, port: int) -> str:
    name = host.lower().removesuffix(".")
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

"""What a name in a source stands for: its imports and plain assignments, followed without running.

Flow and scope are not looked at. A name may stand for several things, and each of them counts: a
second assignment that never happens must not hide the first.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from .reach import DICTIONARIES, IMPORTERS, NAMESPACES

_BUILTINS: Final = frozenset(dir(builtins))
_MAX_MEANINGS: Final = 32
_MAX_DEPTH: Final = 24
_MAX_TEXT: Final = 4_096
_MAX_STEPS: Final = 2_000_000
"""Of one file: every expression that is looked into counts, as each can lead to two others."""


class Names:
    """Resolves expressions of one file.

    Args:
        nodes: all of its nodes.
    """

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        self.modules: set[str] = set()
        self._stars: list[str] = []
        self._aliases: dict[str, list[str]] = defaultdict(list)
        self._values: dict[str, list[ast.expr]] = defaultdict(list)
        self._folded: dict[str, str | None] = {}
        self._known: dict[str, list[str]] = {}
        self._steps = 0
        for node in nodes:
            self._learn(node)

    @property
    def exhausted(self) -> bool:
        """Whether names lead in so many directions that not all of them were followed."""
        return self._steps > _MAX_STEPS

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    self._import(alias)
            case ast.ImportFrom():
                self._import_from(node)
            case ast.Assign(value=value):
                for target in node.targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.NamedExpr(target=target, value=value):
                self._assign(target, value)
            case ast.AugAssign(target=ast.Name(id=name)):
                self._values[name] += [node.value, node.value]  # no single value any more
            case _:
                pass

    def _import(self, alias: ast.alias) -> None:
        self.modules.add(alias.name)
        if alias.asname:
            self._aliases[alias.asname].append(alias.name)
        else:
            top = alias.name.partition(".")[0]
            self._aliases[top].append(top)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        if not node.level:
            self.modules.add(module)
        for alias in node.names:
            if alias.name == "*":
                self._stars.append(module)
            else:
                self._aliases[alias.asname or alias.name].append(f"{module}.{alias.name}")

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._values[target.id].append(value)
        elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
            for one, its in zip(target.elts, value.elts, strict=False):
                if isinstance(one, ast.Name):
                    self._values[one.id].append(its)

    # -- names --------------------------------------------------------------------------------

    def meanings(self, node: ast.AST, depth: int = _MAX_DEPTH) -> list[str]:
        """Return every dotted name that an expression may stand for, such as ``os.system``."""
        self._steps += 1
        if depth <= 0 or self._steps > _MAX_STEPS:
            return []
        match node:
            case ast.Name(id=name):
                return self._name(name, depth)
            case ast.Attribute():
                return self._attribute(node, depth)
            case ast.Call(func=func, args=args) if args:
                return self._call(func, args, depth)
            case ast.Subscript(value=value, slice=key):
                return self._item(value, key, depth)
            case ast.NamedExpr(value=value):
                return self.meanings(value, depth - 1)
            case ast.IfExp(body=body, orelse=other):
                return self.meanings(body, depth - 1) + self.meanings(other, depth - 1)
            case _:
                return []

    def _attribute(self, node: ast.Attribute, depth: int) -> list[str]:
        tail = [node.attr]
        inner: ast.expr = node.value
        while isinstance(inner, ast.Attribute):
            tail.append(inner.attr)
            inner = inner.value
            if len(tail) > _MAX_DEPTH:
                return []
        path = ".".join(reversed(tail))
        return [f"{base}.{path}" for base in self.meanings(inner, depth - 1)]

    def _name(self, name: str, depth: int) -> list[str]:
        if name not in self._known:
            self._known[name] = []  # a name that leads to itself leads nowhere
            self._known[name] = self._looked_up(name, depth)
        return self._known[name]

    def _looked_up(self, name: str, depth: int) -> list[str]:
        found = list(self._aliases.get(name, ()))
        for value in self._values.get(name, ())[:_MAX_MEANINGS]:
            if isinstance(value, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.IfExp):
                found += self.meanings(value, depth - 1)
        if name in _BUILTINS and found != [f"re.{name}"]:
            found.append(f"builtins.{name}")
        elif name == "__builtins__":
            found.append("builtins")
        found += [f"{module}.{name}" for module in self._stars]
        return list(dict.fromkeys(found))[:_MAX_MEANINGS]

    def _call(self, func: ast.expr, args: list[ast.expr], depth: int) -> list[str]:
        """Return what ``getattr(os, "system")`` and ``__import__("os")`` stand for."""
        for name in self.meanings(func, depth - 1):
            if name in IMPORTERS and (module := self.text(args[0])):
                # Of a package, __import__ returns the top; both are told, it costs nothing.
                return list(dict.fromkeys((module, module.partition(".")[0])))
            if name == "builtins.getattr" and len(args) > 1 and (attr := self.text(args[1])):
                return [f"{base}.{attr}" for base in self.meanings(args[0], depth - 1)]
            if name == "builtins.vars":
                return [f"{base}.__dict__" for base in self.meanings(args[0], depth - 1)]
        if isinstance(func, ast.Attribute) and func.attr in DICTIONARIES:
            return self._item(func.value, args[0], depth)
        return []

    def _item(self, value: ast.expr, key: ast.expr, depth: int) -> list[str]:
        """Return what ``sys.modules["os"]`` and ``vars(os)["system"]`` stand for."""
        text = self.text(key)
        if not text:
            return []
        return [name for base in self.tables(value, depth) for name in _inside(base, text)]

    def tables(self, node: ast.AST | None, depth: int = _MAX_DEPTH) -> list[str]:
        """Return which dictionaries of names an expression may be.

        Such as ``sys.modules``, ``os.__dict__``, or "builtins.globals" for what that returns.
        """
        if node is None:
            return []
        found = [name for name in self.meanings(node, depth - 1) if name not in NAMESPACES]
        if isinstance(node, ast.Call):
            found += [name for name in self.meanings(node.func, depth - 1) if name in NAMESPACES]
        return found

    # -- texts --------------------------------------------------------------------------------

    def text(self, node: ast.AST, depth: int = _MAX_DEPTH) -> str | None:
        """Return the text that an expression is put together to, or None where that is not known.

        Bytes are returned as text of the same characters.
        """
        self._steps += 1
        if depth <= 0 or self._steps > _MAX_STEPS:
            return None
        match node:
            case ast.Constant(value=str() as value):
                result: str | None = value
            case ast.Constant(value=bytes() as value):
                result = value[:_MAX_TEXT].decode("latin-1")
            case ast.BinOp(op=ast.Add()):
                result = _joined("", [self.text(one, depth - 1) for one in summands(node)])
            case ast.JoinedStr(values=values):
                result = _joined("", [self.text(one, depth - 1) for one in values[:_MAX_MEANINGS]])
            case ast.FormattedValue(value=value, format_spec=None):
                result = self.text(value, depth - 1)
            case ast.Subscript(value=value, slice=ast.Slice(None, None, step)) if _is_minus_one(
                step
            ):
                inner = self.text(value, depth - 1)
                result = None if inner is None else inner[::-1]
            case ast.Name(id=name):
                result = self._named_text(name, depth)
            case ast.Call(func=func, args=args):
                result = self._called_text(func, args, depth)
            case _:
                result = None
        return None if result is None or len(result) > _MAX_TEXT else result

    def _named_text(self, name: str, depth: int) -> str | None:
        if name not in self._folded:
            self._folded[name] = None
            values = self._values.get(name, [])
            if len(values) == 1:
                self._folded[name] = self.text(values[0], depth - 1)
        return self._folded[name]

    def _called_text(self, func: ast.expr, args: list[ast.expr], depth: int) -> str | None:
        match func:
            case ast.Attribute(value=value, attr="decode" | "encode" | "lower" | "strip"):
                return self.text(value, depth - 1)
            case ast.Attribute(attr="join") if args:
                return self._with_separator(func, args, depth)
            case ast.Attribute(value=value, attr="replace") if len(args) == 2:  # noqa: PLR2004
                return self._replaced(value, args, depth)
            case ast.Name(id="chr") if len(args) == 1:
                return _character(args[0])
            case ast.Name(id="str") if len(args) == 1:
                return self.text(args[0], depth - 1)
            case _:
                return None

    def _with_separator(self, func: ast.Attribute, args: list[ast.expr], depth: int) -> str | None:
        separator, parts = self.text(func.value, depth - 1), self._parts(args[-1], depth)
        if parts is not None and separator is not None:
            return _joined(separator, parts)
        if "os.path.join" in self.meanings(func, depth - 1):
            return _joined("/", [self.text(one, depth - 1) for one in args])
        return None

    def _replaced(self, value: ast.expr, args: list[ast.expr], depth: int) -> str | None:
        text, old, new = (self.text(one, depth - 1) for one in (value, *args))
        if text is None or old is None or new is None or len(text) * (len(new) + 1) > _MAX_TEXT:
            return None
        return text.replace(old, new)

    def _parts(self, node: ast.expr, depth: int) -> list[str | None] | None:
        if isinstance(node, ast.List | ast.Tuple):
            return [self.text(one, depth - 1) for one in node.elts[:_MAX_TEXT]]
        text = self.text(node, depth - 1)
        return None if text is None else list(text)


def summands(node: ast.expr) -> list[ast.expr]:
    """Return what an expression adds up, from left to right; itself where it adds nothing."""
    found: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and len(found) < _MAX_TEXT:
        found.append(node.right)
        node = node.left
    return [node, *reversed(found)]


def _inside(base: str, key: str) -> list[str]:
    """Return what a dictionary of names has under a key."""
    if base == "sys.modules":
        return [key]
    if base in NAMESPACES or base == "builtins":
        return ["builtins" if key == "__builtins__" else f"builtins.{key}"]
    if base.endswith(".__dict__"):
        return [f"{base.removesuffix('.__dict__')}.{key}"]
    return []


def _character(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(value=int() as code) if 0 <= code <= sys.maxunicode:
            return chr(code)
        case _:
            return None


def _is_minus_one(node: ast.expr | None) -> bool:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1)):
            return True
        case _:
            return False


def _joined(separator: str, parts: list[str | None]) -> str | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or sum(map(len, known)) > _MAX_TEXT:
        return None
    return separator.join(known)

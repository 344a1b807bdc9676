"""The walk over one file's syntax tree: what it imports, calls, reads and sets.

Node by node and never by recursion: how deep a source nests is its author's choice.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, Final

from .literals import Literals
from .names import Names
from .places import Places
from .reach import (
    ATTRIBUTES,
    CALLS,
    DECODERS,
    DICTIONARIES,
    DUNDER_TEXTS,
    EXECUTORS,
    GETTERS,
    HOOKED,
    IMPORTERS,
    IMPORTS,
    NAMES,
    NAMESPACES,
    ORDINARY_METHODS,
    POWERFUL,
    SENSITIVE,
    rule_of,
)
from .text import Sighting

_MAX_BELOW: Final = 2_000
_ENVIRONMENT: Final = "os.environ"
_ATTRIBUTE_GETTERS: Final = frozenset({"operator.attrgetter", "operator.methodcaller"})


class Look:
    """One walk.

    Args:
        tree: of the file. Columns of what is found are offsets in bytes, as the tree has them.
    """

    def __init__(self, tree: ast.AST) -> None:
        self._nodes = list(ast.walk(tree))
        self._names = Names(self._nodes)
        self._places = Places(self._names)
        self._literals = Literals()
        self._done: set[int] = set()
        self._inert = {
            id(node.value)
            for node in self._nodes
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        self._handlers: dict[type[ast.AST], Callable[[Any], Iterator[Sighting]]] = {
            ast.Import: self._import,
            ast.ImportFrom: self._import_from,
            ast.Call: self._call,
            ast.Attribute: self._attribute,
            ast.Name: self._name,
            ast.Subscript: self._subscript,
            ast.Constant: self._constant,
            ast.Compare: self._compare,
            ast.MatchClass: self._match_class,
        }

    def sightings(self) -> Iterator[Sighting]:
        """Yield everything that is suspicious, parents before children."""
        for node in self._nodes:
            yield from self._literals.look(node)
            handle = self._handlers.get(type(node))
            if handle is not None:
                yield from handle(node)
        if self._names.exhausted:
            yield "SH409", 1, 0, "its names"

    # -- imports ------------------------------------------------------------------------------

    def _import(self, node: ast.Import) -> Iterator[Sighting]:
        for alias in node.names:
            yield from self._module(alias, alias.name)

    def _import_from(self, node: ast.ImportFrom) -> Iterator[Sighting]:
        if node.level:
            return  # of the plugin's own
        module = node.module or ""
        yield from self._module(node, module)
        for alias in node.names:
            name = f"{module}.{alias.name}"
            if not rule_of(IMPORTS, module):
                yield from self._module(alias, name)
            if rule := rule_of(NAMES, name):
                yield _at(alias, rule, name)

    def _module(self, node: ast.AST, name: str) -> Iterator[Sighting]:
        if rule := rule_of(IMPORTS, name):
            yield _at(node, rule, name)

    # -- names --------------------------------------------------------------------------------

    def _name(self, node: ast.Name) -> Iterator[Sighting]:
        if node.id == "__builtins__":
            yield _at(node, "SH230", node.id)
        if id(node) not in self._done and not isinstance(node.ctx, ast.Store):
            yield from self._reaches(node)

    def _attribute(self, node: ast.Attribute) -> Iterator[Sighting]:
        if (rule := ATTRIBUTES.get(node.attr)) and not _is_ordinary(node):
            yield _at(node, rule, node.attr)
        if node.attr == "__dict__" and POWERFUL.intersection(self._names.meanings(node.value)):
            yield _at(node, "SH223", "__dict__")
        if id(node) in self._done:
            return
        if isinstance(node.ctx, ast.Store | ast.Del):
            yield from self._sets(node)
        yield from self._reaches(node)

    def _reaches(self, node: ast.expr) -> Iterator[Sighting]:
        """Yield what a name, or what takes its place, stands for; once for each rule."""
        told = set()
        for name in self._names.meanings(node):
            rule = rule_of(NAMES, name)
            if rule and rule not in told:
                told.add(rule)
                yield _at(node, rule, _shown(name))
            if name == _ENVIRONMENT:
                yield _at(node, "SH141", "os.environ")
        inner = getattr(node, "value", None)
        while told and isinstance(inner, ast.Attribute | ast.Name):
            self._done.add(id(inner))
            inner = getattr(inner, "value", None)

    def _sets(self, node: ast.expr) -> Iterator[Sighting]:
        for name in self._names.meanings(node):
            head, _, last = name.rpartition(".")
            if head == "builtins" and not isinstance(node, ast.Name):
                yield _at(node, "SH241", last)
            elif name in HOOKED:
                yield _at(node, "SH243", name)

    # -- items --------------------------------------------------------------------------------

    def _subscript(self, node: ast.Subscript) -> Iterator[Sighting]:
        bases = self._names.meanings(node.value)
        if _ENVIRONMENT in bases:
            self._done.add(id(node.value))
            if isinstance(node.ctx, ast.Load):
                yield from self._variable(node, node.slice)
            else:
                yield _at(node, "SH142", self._names.text(node.slice) or "")
            return
        yield from self._item(node, self._names.tables(node.value), node.slice)
        if isinstance(node.ctx, ast.Store | ast.Del):
            yield from self._sets(node)
        yield from self._reaches(node)

    def _item(self, node: ast.expr, bases: list[str], key: ast.expr) -> Iterator[Sighting]:
        for base in bases:
            owner = base.removesuffix(".__dict__")
            if base in NAMESPACES or base == "builtins" or (owner != base and owner in POWERFUL):
                text = self._names.text(key)
                yield _at(node, "SH223", f"{_shown(base)}[{'...' if text is None else text!r}]")
                return

    def _variable(self, node: ast.expr, key: ast.expr) -> Iterator[Sighting]:
        name = self._names.text(key)
        if name is None:
            yield _at(node, "SH141", "a computed name")
        else:
            yield _at(node, "SH140", name)

    def _compare(self, node: ast.Compare) -> Iterator[Sighting]:
        for right in node.comparators[:_MAX_BELOW]:
            if _ENVIRONMENT in self._names.meanings(right):
                self._done.add(id(right))
                yield from self._variable(node, node.left)

    def _match_class(self, node: ast.MatchClass) -> Iterator[Sighting]:
        for attr in node.kwd_attrs:
            if rule := ATTRIBUTES.get(attr):
                yield _at(node, rule, attr)

    # -- calls --------------------------------------------------------------------------------

    def _call(self, node: ast.Call) -> Iterator[Sighting]:
        names = self._names.meanings(node.func)
        for name in dict.fromkeys(names):
            yield from self._called(node, name)
        yield from self._places.called(node, names)
        yield from self._reaches(node)

    def _called(self, node: ast.Call, name: str) -> Iterator[Sighting]:
        method = name.rpartition(".")[2]
        first = node.args[0] if node.args else None
        if rule := CALLS.get(name):
            yield _at(node, rule, name)
        elif name in IMPORTERS:
            yield from self._imports(node, IMPORTERS[name], _argument(node, "name"))
        elif name in GETTERS:
            yield from self._gets(node, method)
        elif name in _ATTRIBUTE_GETTERS and first is not None:
            yield from self._by_path(node, first)
        elif name in EXECUTORS and self._decodes(node):
            yield _at(node, "SH202", _shown(name))
        elif name in {"yaml.load", "yaml.load_all", "numpy.load"}:
            yield from self._loads(node, name)
        elif first is not None:
            yield from self._looks_up(node, name, first)

    def _looks_up(self, node: ast.Call, name: str, first: ast.expr) -> Iterator[Sighting]:
        """Yield what is taken from the environment, or another table, by the name `first`."""
        head, _, method = name.rpartition(".")
        owner = getattr(node.func, "value", None)
        if name in {"os.getenv", "posix.getenv"}:
            yield from self._variable(node, first)
        elif head == _ENVIRONMENT and method in DICTIONARIES:
            self._done |= {id(node.func), id(owner)}
            yield from self._variable(node, first)
        elif method in DICTIONARIES:
            yield from self._item(node, self._names.tables(owner), first)

    def _loads(self, node: ast.Call, name: str) -> Iterator[Sighting]:
        """Yield a call that reads objects that may run code, as its other arguments have it."""
        given = [*node.args[1:], *(one.value for one in node.keywords)]
        safe = any("Safe" in meaning for one in given for meaning in self._names.meanings(one))
        pickled = any(one.arg == "allow_pickle" for one in node.keywords)
        if pickled if name == "numpy.load" else not safe:
            yield _at(node, "SH252", name)

    def _imports(self, node: ast.Call, rule: str, name: ast.expr | None) -> Iterator[Sighting]:
        text = None if name is None else self._names.text(name)
        if text is None:
            yield _at(node, rule, "a computed name")
            return
        if rule == "SH211":
            yield _at(node, rule, text)
        yield from self._module(node, text)
        yield from self._hidden(node, name, text)

    def _hidden(self, node: ast.AST, written: ast.expr | None, text: str) -> Iterator[Sighting]:
        """Yield that a name was put together from parts, as nobody does who has no reason to."""
        if not isinstance(written, ast.Constant | ast.Name):
            yield _at(node, "SH222", text)

    def _gets(self, node: ast.Call, function: str) -> Iterator[Sighting]:
        if len(node.args) < 2:  # noqa: PLR2004 - an object and a name
            return
        base, name = node.args[:2]
        owners = self._names.meanings(base)
        text = self._names.text(name)
        if text is not None:
            if rule := ATTRIBUTES.get(text):
                yield _at(node, rule, text)
            if function == "setattr" and "builtins" in owners:
                yield _at(node, "SH241", text)
            yield from self._hidden(node, name, text)
        elif POWERFUL.intersection(owners):
            yield _at(node, "SH221", f"{function} of {min(POWERFUL.intersection(owners))}")
        elif function != "hasattr":
            yield _at(node, "SH220", function)

    def _by_path(self, node: ast.Call, first: ast.expr) -> Iterator[Sighting]:
        text = self._names.text(first)
        if text is None:
            yield _at(node, "SH220", "operator.attrgetter")
            return
        for attr in text.split("."):
            if rule := ATTRIBUTES.get(attr):
                yield _at(node, rule, attr)

    def _decodes(self, node: ast.Call) -> bool:
        """Tell whether what is executed was decoded on the spot."""
        looked = 0
        for argument in node.args:
            for inner in ast.walk(argument):
                looked += 1
                if looked > _MAX_BELOW:
                    return False
                if isinstance(inner, ast.Call) and DECODERS.intersection(
                    self._names.meanings(inner.func)
                ):
                    return True
        return False

    # -- texts --------------------------------------------------------------------------------

    def _constant(self, node: ast.Constant) -> Iterator[Sighting]:
        value = node.value
        if id(node) in self._inert or not isinstance(value, str | bytes):
            return
        text = value if isinstance(value, str) else value.decode("latin-1")
        for rule, words in (("SH153", SENSITIVE), ("SH233", DUNDER_TEXTS)):
            word = next((word for word in words if word in text), "")
            if word:
                yield _at(node, rule, word)


def _at(node: Any, rule: str, what: str) -> Sighting:
    return rule, node.lineno, node.col_offset, what


def _shown(name: str) -> str:
    return name.removeprefix("builtins.")


def _argument(node: ast.Call, keyword: str) -> ast.expr | None:
    if node.args:
        return node.args[0]
    return next((one.value for one in node.keywords if one.arg == keyword), None)


def _is_ordinary(node: ast.Attribute) -> bool:
    """Tell whether it is ``super().__reduce__`` and the like."""
    match node:
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=attr):
            return attr in ORDINARY_METHODS
        case _:
            return False

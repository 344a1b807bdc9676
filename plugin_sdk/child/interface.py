"""What an imported plugin offers: hooks, operations, handlers. Found, never guessed.

Only two modules are looked at, the package and its ``main``, because that is where an author
expects to be found; marks elsewhere are told in a warning.
"""

from __future__ import annotations

import sys
from types import MethodType

from plugin_sdk.events import HANDLES
from plugin_sdk.kinds import KINDS, OPERATION, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import ModuleType
    from typing import Any

    Operation = Callable[..., Any]

REQUIRED_HOOKS = {"init_plugin": "bool", "get_metadata": "dict"}
OPTIONAL_HOOKS = {
    "cleanup": "bool",
    "health_check": "dict",
    "export_state": "Any",
    "import_state": "None",
}

# Hooks that the host may call again at any time, like operations.
_CALLABLE_HOOKS = ("get_metadata", "health_check", "export_state", "import_state")

# inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR, without the cost of importing inspect.
_ASYNC = 0x0080 | 0x0200

_KIND_EXAMPLE = {"Model": "model", "DataSource": "source", "Pipeline": "pipeline"}


class LoadError(Exception):
    """The plugin cannot be loaded.

    Attributes:
        code: "import", "interface", "init" or "metadata".
        cause: the plugin's own exception, or None where the plugin broke a rule.
    """

    def __init__(self, code: str, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.cause = cause


class Interface:
    """What was found.

    Attributes:
        operations: by name.
        operation_kinds: by the same names: "operation" for what is marked, "hook", or the kind of
            the object.
        handlers: by event type, in the order in which they were found.
        kind: "Model", "DataSource", "Pipeline" or None.
        warnings: what the author should know although it is accepted.
    """

    __slots__ = ("handlers", "kind", "operation_kinds", "operations", "warnings")

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}
        self.operation_kinds: dict[str, str] = {}
        self.handlers: dict[str, list[Operation]] = {}
        self.kind: str | None = None
        self.warnings: list[str] = []

    def add_operation(self, name: str, function: Operation, kind: str) -> None:
        """Add an operation, unless it is there already.

        Raises:
            LoadError: another one has the same name, or it is a hook's name.
        """
        if name in {"init_plugin", "cleanup"}:
            text = f"{name}() is called by the host itself and cannot be an operation; rename it"
            raise LoadError("interface", text)
        present = self.operations.get(name)
        if present is not None:
            if _same(present, function):
                return
            text = (
                f'two operations are called "{name}": {_where(present)} and {_where(function)}. '
                'Rename one, or give it another name with @operation("...").'
            )
            raise LoadError("interface", text)
        self.operations[name] = function
        self.operation_kinds[name] = kind

    def add_handler(self, function: Operation, events: Collection[str]) -> None:
        """Add a handler for each event type it is marked with.

        Raises:
            LoadError: a type is not in plugin.json.
        """
        for event_type in getattr(function, HANDLES):
            if event_type not in events:
                text = (
                    f'{_where(function)} handles the event "{event_type}", which plugin.json does '
                    f'not list. Add it: "events": ["{event_type}"], and sign the plugin again.'
                )
                raise LoadError("interface", text)
            handlers = self.handlers.setdefault(event_type, [])
            if not any(_same(function, present) for present in handlers):
                handlers.append(function)


def find_hooks(modules: list[ModuleType]) -> dict[str, Operation]:
    """Return the hooks that the plugin defines, by name.

    Raises:
        LoadError: a required one is missing, one is no function, or two modules define it
            differently.
    """
    hooks: dict[str, Operation] = {}
    for name, returns in {**REQUIRED_HOOKS, **OPTIONAL_HOOKS}.items():
        found = [(module, vars(module)[name]) for module in modules if name in vars(module)]
        if not found:
            if name in REQUIRED_HOOKS:
                places = " or ".join(_file(module) for module in modules)
                text = f"{name}() is missing. Define `def {name}() -> {returns}:` in {places}."
                raise LoadError("interface", text)
            continue
        if any(value is not found[0][1] for _, value in found):
            places = " and ".join(_file(module) for module, _ in found)
            text = f"{name} is defined differently in {places}. Keep one of the two."
            raise LoadError("interface", text)
        module, hook = found[0]
        if not callable(hook):
            text = f"{name} in {_file(module)} is a {type(hook).__name__}, not a function."
            raise LoadError("interface", text)
        _refuse_async(name, hook)
        hooks[name] = hook
    return hooks


def find_interface(
    modules: list[ModuleType], hooks: dict[str, Operation], events: Collection[str]
) -> Interface:
    """Return operations and handlers of the package and its ``main``.

    Called after ``init_plugin()``, which may be what makes the object of a kind.

    Raises:
        LoadError: two operations of one name, two objects of a kind, a subclass of a kind without
            an object, a handler of an event that is not in ``events``, or anything ``async``.
    """
    found = Interface()
    for function in _marked(modules, OPERATION):
        found.add_operation(getattr(function, OPERATION), function, "operation")
    for function in _marked(modules, HANDLES):
        found.add_handler(function, events)
    holder = _kind_object(modules)
    if holder is not None:
        _add_kind(found, holder, events)
    for name in _CALLABLE_HOOKS:
        if name in hooks:
            found.add_operation(name, hooks[name], "hook")
    for event_type in sorted(events):
        if event_type not in found.handlers:
            found.warnings.append(
                f'plugin.json lists the event "{event_type}", but nothing handles it: mark a '
                f'function with @on("{event_type}"), or remove it from "events".'
            )
    found.warnings.extend(_marks_elsewhere(modules, found))
    return found


def _values(modules: list[ModuleType]) -> Iterator[Any]:
    for module in modules:
        yield from list(vars(module).values())


def _marked(modules: list[ModuleType], mark: str) -> Iterator[Operation]:
    """Yield what carries the mark at module level: functions, and wrappers such as a cache."""
    for value in _values(modules):
        if mark in _marks_of(value):
            yield value


def _marks_of(value: object) -> dict[str, Any]:
    """Return a callable's own attributes: a mock or a proxy has whatever it is asked for."""
    # Not isinstance, which would ask the value itself for its class.
    if issubclass(type(value), type) or not callable(value):
        return {}
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return own if type(own) is dict else {}


def _kind_object(modules: list[ModuleType]) -> Kind | None:
    """Return the one object of a kind, or None where the plugin uses no kind."""
    objects: dict[int, Kind] = {}
    classes: list[type[Kind]] = []
    for value in _values(modules):
        if issubclass(type(value), Kind):
            objects[id(value)] = value
        elif _is_kind_of_its_own(value):
            classes.append(value)
    if len(objects) > 1:
        names = ", ".join(sorted(type(value).__name__ for value in objects.values()))
        text = f"there are {len(objects)} objects of a kind ({names}); a plugin has at most one."
        raise LoadError("interface", text)
    if objects:
        return next(iter(objects.values()))
    if classes:
        variable = _KIND_EXAMPLE.get(_kinds_of(classes[0])[0].__name__, "plugin")
        text = (
            f"{classes[0].__name__} is never used: its methods belong to an object. Add "
            f"`{variable} = {classes[0].__name__}()` at the end of {classes[0].__module__}."
        )
        raise LoadError("interface", text)
    return None


def _is_kind_of_its_own(value: Any) -> bool:
    if not issubclass(type(value), type) or not issubclass(value, Kind):
        return False
    return value is not Kind and value not in KINDS


def _kinds_of(subclass: type[Kind]) -> list[type[Kind]]:
    return [kind for kind in KINDS if issubclass(subclass, kind)] or [Kind]


def _add_kind(found: Interface, holder: Kind, events: Collection[str]) -> None:
    """Add the methods of the kind that the object overrides, and all that are marked."""
    kinds = _kinds_of(type(holder))
    if len(kinds) > 1:
        names = " and ".join(kind.__name__ for kind in kinds)
        text = f"{type(holder).__name__} is {names} at once; derive it from one of them."
        raise LoadError("interface", text)
    kind = kinds[0]
    found.kind = kind.__name__
    for name in kind.OPERATIONS:
        inherited = getattr(type(holder), name) is getattr(kind, name)
        if not inherited or name in vars(holder):
            found.add_operation(name, _bound(holder, name), kind.__name__)
    for name in dir(type(holder)):
        raw = _unwrapped(type(holder), name)
        marks = _marks_of(raw)
        if OPERATION in marks:
            found.add_operation(marks[OPERATION], getattr(holder, name), "operation")
        if HANDLES in marks:
            found.add_handler(getattr(holder, name), events)


def _unwrapped(holder: type, name: str) -> Any:
    """Return a class's attribute as it was defined, without calling any descriptor."""
    for parent in holder.__mro__:
        if name in parent.__dict__:
            raw = parent.__dict__[name]
            return getattr(raw, "__func__", raw)
    return None


def _bound(holder: Kind, name: str) -> Operation:
    """Return the method, or, for a list such as ``stages``, a function that names its items."""
    value = getattr(holder, name)
    if callable(value):
        method: Operation = value
        return method
    if name != "stages" or not isinstance(value, (list, tuple)):
        text = f"{type(holder).__name__}.{name} is a {type(value).__name__}, not a method."
        raise LoadError("interface", text)

    def names() -> list[str]:
        return [
            item if isinstance(item, str) else str(getattr(item, "__name__", type(item).__name__))
            for item in getattr(holder, name)
        ]

    return names


def _marks_elsewhere(modules: list[ModuleType], found: Interface) -> Iterator[str]:
    """Tell about marked functions in modules of the plugin that are not looked at."""
    prefix = modules[0].__name__ + "."
    known = [*found.operations.values()]
    for handlers in found.handlers.values():
        known += handlers
    for name, module in list(sys.modules.items()):
        if not name.startswith(prefix) or module in modules:
            continue
        for mark in (OPERATION, HANDLES):
            for function in _marked([module], mark):
                if function.__module__ == name and not any(_same(function, k) for k in known):
                    yield (
                        f"{_where(function)} is marked but not offered: import it in "
                        f"{_file(modules[-1])}."
                    )


def _same(one: Operation, other: Operation) -> bool:
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    return one is other


def is_async(function: Operation) -> bool:
    """Tell whether a function is ``async def``, with or without ``yield``."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return bool(getattr(code, "co_flags", 0) & _ASYNC)


def _refuse_async(name: str, hook: Operation) -> None:
    if is_async(hook):
        text = (
            f"{name} is `async def`; operations and handlers may be, the hooks are called before "
            "and after them. Make it a plain `def`; asyncio.run() inside it works."
        )
        raise LoadError("interface", text)


def _where(function: Operation) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}.{getattr(function, '__qualname__', type(function).__name__)}"


def _file(module: ModuleType) -> str:
    return "main.py" if module.__name__.endswith(".main") else "__init__.py"

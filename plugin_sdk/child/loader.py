"""Imports the plugin from its private copy, initialises it, and finds what it offers."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader

from plugin_sdk.child.faults import text_of
from plugin_sdk.child.interface import LoadError, find_hooks, find_interface
from plugin_sdk.context import Context, install_context
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES, METADATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from plugin_sdk.child.interface import Interface, Operation
    from plugin_sdk.wire.messages import Answer

_RESERVED = frozenset({"plugin_sdk", "msgpack"})


class LoadOrder:
    """What the host asks to be loaded: the payload of the message `Load`.

    Attributes:
        identity: the name under which the package is imported.
        package_dir: the private copy of the verified files.
        sys_path: directories of the plugin environment, in order.
        config, data_dir, scratch_dir: as the plugin's context shows them.
        desk: the descriptor of the host's network desk, or -1: no network.
        events: event types that the plugin may handle.
        publish: event types that it may publish.
        granted: the permissions in force, by their names in plugin.json.
        trial: its author tries it: what it uses, and is refused, is written down.
        services: names of the host's services that it may ask for.
        concurrency: how many calls it may work on at a time.
        payload_bytes: so large one payload may be.
    """

    __slots__ = (
        "arena",
        "concurrency",
        "config",
        "data_dir",
        "desk",
        "events",
        "granted",
        "identity",
        "package_dir",
        "payload_bytes",
        "publish",
        "scratch_dir",
        "services",
        "sys_path",
        "trial",
    )

    def __init__(self, payload: dict[str, Any]) -> None:
        self.identity: str = payload["identity"]
        self.package_dir: str = payload["package_dir"]
        self.sys_path: list[str] = payload["sys_path"]
        self.config: dict[str, Any] = payload["config"]
        self.data_dir: str = payload["data_dir"]
        self.scratch_dir: str = payload["scratch_dir"]
        self.desk: int = payload.get("desk", -1)
        self.events: list[str] = payload["events"]
        self.publish: list[str] = payload["publish"]
        self.granted: dict[str, Any] = payload.get("granted", {})
        self.trial: bool = payload.get("trial", False)
        self.services: list[str] = payload.get("services", [])
        self.concurrency: int = payload.get("concurrency", 1)
        self.arena: bool = payload.get("arena", False)
        self.payload_bytes: int = payload.get("payload_bytes", MAX_PAYLOAD_BYTES)


class LoadedPlugin:
    """A plugin that is ready to be called.

    Attributes:
        metadata: what ``get_metadata()`` returned.
        hooks: the hooks that it defines, by name.
    """

    __slots__ = ("hooks", "interface", "metadata")

    def __init__(
        self, metadata: dict[str, Any], hooks: dict[str, Operation], interface: Interface
    ) -> None:
        self.metadata = metadata
        self.hooks = hooks
        self.interface = interface

    def ready_payload(self, *, arena: bool = False) -> dict[str, Any]:
        """Return the payload of the message `Ready`.

        Args:
            arena: large payloads may be put there for it.
        """
        found = self.interface
        return {
            "metadata": self.metadata,
            "operations": [{"name": n, "kind": k} for n, k in found.operation_kinds.items()],
            "handles": list(found.handlers),
            "kind": found.kind,
            "hooks": {name: name in self.hooks for name in ("cleanup", "health_check")},
            "warnings": found.warnings,
            "arena": arena,
        }


class PluginFinder:
    """Finds one package, the plugin's, in its private copy; its directory is on no path.

    On `sys.meta_path`, so that the import system's own rules hold: a failed import leaves nothing
    behind, and ``from . import x`` works.
    """

    def __init__(self, identity: str, package_dir: str) -> None:
        self._identity = identity
        self._package_dir = package_dir

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the plugin's spec for its own name, and None for every other."""
        del path, target
        if name != self._identity:
            return None
        file = os.path.join(self._package_dir, "__init__.py")
        loader = SourceFileLoader(name, file)
        # Not importlib.util.spec_from_file_location: importing that costs more than all of this.
        spec = ModuleSpec(name, loader, origin=file, is_package=True)
        spec.submodule_search_locations = [self._package_dir]
        spec.has_location = True
        return spec


def load(
    order: LoadOrder,
    send: Callable[[str, bytes], None],
    ask: Callable[[str, bytes], Answer | None] | None = None,
    log: Callable[[int, str, str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LoadedPlugin:
    """Import and initialise the plugin.

    Args:
        order: what to load.
        send: publishes an event, given its type and packed data.
        ask: has a service done, given its name and packed arguments.
        log: takes an entry for the log: level, logger, text.
        progress: says how much of the current call is done.

    Raises:
        LoadError: it cannot be imported, breaks a rule of the interface, or refuses to start.
    """
    # 1. The context exists before the first line of the plugin runs.
    install_context(
        Context(
            order.identity,
            config=order.config,
            data_dir=order.data_dir,
            scratch_dir=order.scratch_dir,
            publishable=frozenset(order.publish),
            send=send,
            services=frozenset(order.services),
            ask=ask,
            calls=frozenset(order.granted.get("calls", ())),
            log=log,
            progress=progress,
        )
    )
    # 2. The package, and its main if it has one.
    modules = _import_plugin(order)
    # 3. Its hooks, checked before any of them runs.
    hooks = find_hooks(modules)
    # 4. init_plugin().
    _initialise(order.identity, hooks["init_plugin"])
    # 5. Operations and handlers: now, because init_plugin() may have made the object of a kind.
    interface = find_interface(modules, hooks, frozenset(order.events))
    # 6. get_metadata().
    return LoadedPlugin(_metadata(hooks["get_metadata"]), hooks, interface)


def _import_plugin(order: LoadOrder) -> list[ModuleType]:
    identity = order.identity
    if not identity.isidentifier() or identity in sys.stdlib_module_names | _RESERVED:
        text = (
            f'a plugin cannot be imported as "{identity}", because a module of Python or of this '
            'system has that name; choose another "name" in plugin.json.'
        )
        raise LoadError("import", text)
    sys.path.extend(order.sys_path)
    sys.meta_path.insert(0, PluginFinder(identity, order.package_dir))
    names = [identity]
    if os.path.isfile(os.path.join(order.package_dir, "main.py")):
        names.append(f"{identity}.main")
    try:
        for name in names:
            __import__(name)
        return [sys.modules[name] for name in names]
    except BaseException as error:  # noqa: BLE001 - sys.exit() at import is one of them
        text = f"importing {identity} failed: {type(error).__name__}: {text_of(error)}"
        raise LoadError("import", text + _hint(error, order), error) from None


def _hint(error: BaseException, order: LoadOrder) -> str:
    """Return what to do about a module that was not found, or ""."""
    if not isinstance(error, ModuleNotFoundError) or not isinstance(error.name, str):
        return ""
    wanted = error.name.partition(".")[0]
    here = os.path.join(order.package_dir, wanted)
    if wanted.isidentifier() and (os.path.isfile(here + ".py") or os.path.isdir(here)):
        return f". It is a module of the plugin itself: write `from . import {wanted}`."
    if wanted == order.identity:
        return f". There is no {error.name.partition('.')[2].replace('.', '/')}.py in the plugin."
    return (
        f". Plugins see the standard library and the plugin environment only; have {wanted} "
        "installed into the plugin environment."
    )


def _run_hook(code: str, name: str, hook: Operation) -> Any:
    try:
        return hook()
    except BaseException as error:  # noqa: BLE001 - sys.exit() at import is one of them
        text = f"{name}() raised {type(error).__name__}: {text_of(error)}"
        raise LoadError(code, text, error) from None


def _initialise(identity: str, init_plugin: Operation) -> None:
    answer = _run_hook("init", "init_plugin", init_plugin)
    if answer is True:
        return
    if answer is False:
        text = f"init_plugin() of {identity} returned False: the plugin refuses to start."
        raise LoadError("init", text)
    text = (
        f"init_plugin() of {identity} returned {_shown(answer)}; it must return True when the "
        "plugin is ready, or False."
    )
    raise LoadError("interface", text)


def _metadata(get_metadata: Operation) -> dict[str, Any]:
    answer = _run_hook("metadata", "get_metadata", get_metadata)
    if not isinstance(answer, dict):
        text = f"get_metadata() returned {_shown(answer)}; it must return a dict."
        raise LoadError("metadata", text)
    try:
        # As the host takes it, without arrays; and whatever becomes of the dict from now on.
        carried: dict[str, Any] = unpack(pack(answer, METADATA), METADATA)
    except PayloadError as error:
        text = f"get_metadata() returned a dict that cannot be sent: {error}"
        raise LoadError("metadata", text) from None
    return carried


def _shown(value: object) -> str:
    """Name a value without running its ``__repr__``."""
    return "None" if value is None else f"a value of type {type(value).__name__}"

"""Brings what a plugin logs to the host as messages, with the level and the logger's name.

`context().log` does so by itself. The standard library's `logging` does because a handler is put at
its root logger as soon as the plugin imports it, and not before: importing it takes longer than all
else of a start. Who configures handlers of his own gets those, and nobody else's.
"""

from __future__ import annotations

import sys

from plugin_sdk.context import print_entry
from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.errors import LocalProtocolError
from plugin_sdk.wire.limits import MAX_ERROR_TEXT_BYTES, MAX_ID, MAX_NAME_BYTES
from plugin_sdk.wire.messages import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from plugin_sdk.wire.message import Message

    Send = Callable[[int, str, str], None]

_LOGGING = "logging"
_CUT = " ..."
_MAX_TEXT_BYTES = MAX_ERROR_TEXT_BYTES - 5 - len(_CUT)  # 5: what msgpack says before a text


def entry_sender(send: Callable[[Message], None]) -> Send:
    """Return a function that sends an entry: its level, its logger's name and its text.

    It never raises for what they are. Where nothing can be sent, by a process that the plugin has
    started or after the end of the session, entries go to stderr.

    Args:
        send: sends a message.
    """

    def send_entry(level: int, logger: str, text: str) -> None:
        number, name = _level(level), _name(logger)
        try:
            send(Log(number, name, payload=pack(_bounded(text))))
        except (LocalProtocolError, OSError):
            print_entry(number, name, text)

    return send_entry


def _level(level: object) -> int:
    return min(max(level, 0), MAX_ID) if isinstance(level, int) else 0


def _name(logger: object) -> str:
    text = logger[:MAX_NAME_BYTES] if isinstance(logger, str) else ""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    return text.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore") or "root"


def _bounded(text: str) -> str:
    data = text[:MAX_ERROR_TEXT_BYTES].encode("utf-8", "backslashreplace")
    if len(data) <= _MAX_TEXT_BYTES and len(text) <= MAX_ERROR_TEXT_BYTES:
        return data.decode()
    return data[:_MAX_TEXT_BYTES].decode("utf-8", "ignore") + _CUT


def install_bridge(send_entry: Send) -> None:
    """Have `logging` send its entries, now or when it is imported."""
    module = sys.modules.get(_LOGGING)
    if module is not None:
        attach(module, send_entry)
    sys.meta_path.insert(0, _Finder(send_entry))


class _Finder:
    """Finds `logging` as the others do, and has it attached once it is executed; also again."""

    def __init__(self, send_entry: Send) -> None:
        self._send_entry = send_entry

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of `logging`, and None for every other module."""
        if name != _LOGGING:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._send_entry)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Executes a module as its own loader does, and attaches it."""

    def __init__(self, loader: Any, send_entry: Send) -> None:
        self._loader = loader
        self._send_entry = send_entry

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute it, with its own loader where it looks for that, and attach it."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        attach(module, self._send_entry)


def attach(logging: Any, send_entry: Send) -> None:
    """Put a handler at the root logger, and let ``basicConfig`` work beside it.

    The root's level is the module's own: WARNING, until the plugin sets another.

    Args:
        logging: the module.
        send_entry: takes each entry.
    """
    kind = _handler_class(logging, send_entry)
    handler, last = kind(), kind(logging.WARNING)
    for one in (handler, last):
        # The host adds the time, the level and the name: a format would say them twice.
        one.setFormatter(logging.Formatter("%(message)s"))
    logging.root.addHandler(handler)
    logging.lastResort = last
    logging.basicConfig = _beside(logging.basicConfig, logging.root, handler)


def _handler_class(logging: Any, send_entry: Send) -> Any:
    base = logging.Handler

    class HostHandler(base):  # type: ignore[misc,valid-type]  # of the module that was imported
        """Sends each record to the host."""

        def handle(self, record: Any) -> Any:
            # Without the handler's lock: a finalizer may log in the middle of a message, and two
            # threads would each hold what the other waits for. Messages are sent one by one anyway.
            wanted = self.filter(record)
            if wanted:
                self.emit(record if wanted is True else wanted)
            return wanted

        def emit(self, record: Any) -> None:
            try:
                send_entry(record.levelno, record.name, self.format(record))
            except RecursionError:
                raise
            except Exception:  # noqa: BLE001 - as every handler: a bad format ends no operation
                self.handleError(record)

    return HostHandler


def _beside(original: Callable[..., None], root: Any, handler: Any) -> Callable[..., None]:
    """Return ``basicConfig`` as it is where nobody has configured anything yet.

    It does nothing where the root has a handler; the host's does not count, the first time.
    """
    configured = False

    def basic_config(**options: Any) -> None:
        nonlocal configured
        alone = root.handlers == [handler] and not configured
        if alone:
            root.removeHandler(handler)
        if _is_for_the_log(options):
            for name in ("stream", "filename", "filemode"):
                options.pop(name, None)
            options["handlers"] = [handler]
        try:
            original(**options)
            configured = True
        finally:
            if alone and not root.handlers:
                root.addHandler(handler)

    basic_config.__name__, basic_config.__doc__ = original.__name__, original.__doc__
    return basic_config


def _is_for_the_log(options: dict[str, Any]) -> bool:
    """Tell whether a configuration names no other place than the plugin's log."""
    if options.get("handlers") is not None or options.get("filename") is not None:
        return False
    stream = options.get("stream")
    return any(stream is one for one in (None, sys.stdout, sys.stderr))

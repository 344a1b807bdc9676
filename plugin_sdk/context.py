"""What the host gives to a plugin: configuration, directories, a logger, and publishing.

A plugin calls `context` wherever it needs one of them: at import, inside ``init_plugin()``, in
operations and handlers.
"""

from __future__ import annotations

import sys

from plugin_sdk.errors import (
    ContextUnavailableError,
    NotSerializableError,
    PermissionDenied,
    PluginStoppingError,
    ServiceError,
)
from plugin_sdk.events import check_event_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from plugin_sdk.wire.messages import Answer


class Log:
    """A logger with the methods everybody knows; each call is one entry of the host's log.

    Written to stderr as ``LEVEL text``. `logging` from the standard library works as well, but
    costs its import, which is most of a plugin's start.
    """

    __slots__ = ()

    def debug(self, text: object, *values: object) -> None:
        """Log what helps to find a fault."""
        self._write("DEBUG", text, values)

    def info(self, text: object, *values: object) -> None:
        """Log what happened."""
        self._write("INFO", text, values)

    def warning(self, text: object, *values: object) -> None:
        """Log what the operator should look at."""
        self._write("WARNING", text, values)

    def error(self, text: object, *values: object) -> None:
        """Log what went wrong."""
        self._write("ERROR", text, values)

    def exception(self, text: object, *values: object) -> None:
        """Log what went wrong, with the traceback of the exception that is being handled."""
        import traceback

        self._write("ERROR", text, values)
        self._write("ERROR", traceback.format_exc().rstrip(), ())

    def _write(self, level: str, text: object, values: tuple[object, ...]) -> None:
        line = str(text)
        if values:
            try:
                line = line % values
            except (TypeError, ValueError):
                line = f"{line} {values!r}"
        stream = sys.stderr
        if stream is not None:
            # Continuation lines are indented, so that none of them can pass for an entry.
            stream.write(f"{level} {line}\n" if "\n" not in line else _indented(level, line))


def _indented(level: str, text: str) -> str:
    return f"{level} " + "\n    ".join(text.splitlines()) + "\n"


class Context:
    """What one plugin has been given.

    Attributes:
        name: the plugin's identity.
        config: its configuration, with the defaults of its schema filled in.
        data_dir: path of its own directory, as str; what is written there outlives the process.
        scratch_dir: path of a directory, as str, that is emptied when the plugin is unloaded.
        log: a `Log`.
    """

    __slots__ = (
        "_ask",
        "_publishable",
        "_send",
        "_services",
        "config",
        "data_dir",
        "log",
        "name",
        "scratch_dir",
    )

    def __init__(
        self,
        name: str,
        *,
        config: dict[str, Any],
        data_dir: str,
        scratch_dir: str,
        publishable: Collection[str],
        send: Callable[[str, bytes], None],
        services: Collection[str] = (),
        ask: Callable[[str, bytes], Answer | None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.data_dir = data_dir
        self.scratch_dir = scratch_dir
        self.log = Log()
        self._publishable = publishable
        self._send = send
        self._services = services
        self._ask = ask

    def publish(self, event_type: str, data: Any = None) -> None:
        """Publish an event; the host stamps its source and time.

        Args:
            event_type: one of the types that are granted to the plugin, or a type that one of the
                granted patterns matches.
            data: plain values, at most 256 KiB when packed.

        Raises:
            EventTypeError: the type is malformed.
            PermissionDenied: the type is not granted.
            NotSerializableError: the data cannot be carried.
            PluginStoppingError: the plugin is being unloaded.
        """
        from plugin_sdk.wire.codec import pack
        from plugin_sdk.wire.errors import LocalProtocolError, PayloadError
        from plugin_sdk.wire.limits import EVENT

        plain = check_event_type(event_type)
        if not self._may_publish(plain):
            text = (
                f'{self.name} may not publish "{plain}". List it in plugin.json under '
                f'permissions.publish ("publish": ["{plain}"]), sign the plugin again, and ask '
                "the operator to grant it."
            )
            raise PermissionDenied.of("publish", plain, text)
        try:
            payload = pack(data, EVENT)
        except PayloadError as error:
            text = f'the data of the event "{plain}" cannot be sent: {error}'
            raise NotSerializableError(text) from None
        try:
            self._send(plain, payload)
        except LocalProtocolError:
            text = f'"{plain}" was not published: {self.name} is being unloaded'
            raise PluginStoppingError(text) from None

    def ask(self, service: str, /, *arguments: Any, **keywords: Any) -> Any:
        """Have a service of the host's application done, and return its value.

        Meanwhile the calling thread waits, and the operation's deadline goes on.

        Args:
            service: one of the names granted to the plugin.
            arguments: plain values, checked by the service's own signature.
            keywords: the same, by name.

        Raises:
            PermissionDenied: the service is not granted.
            NotSerializableError: an argument cannot be carried.
            ServiceError: it refused the arguments, failed, or cannot be asked now.
            PluginStoppingError: the host is gone.
        """
        from plugin_sdk.wire.codec import pack, unpack
        from plugin_sdk.wire.errors import LocalProtocolError, PayloadError
        from plugin_sdk.wire.limits import ARGUMENTS

        if self._ask is None or service not in self._services:
            text = (
                f'{self.name} may not ask for the service "{service}". List it in plugin.json '
                f'under permissions.services ("services": ["{service}"]), sign the plugin again, '
                "and ask the operator to grant it."
            )
            raise PermissionDenied.of("services", service, text)
        try:
            answer = self._ask(service, pack([list(arguments), keywords], ARGUMENTS))
        except PayloadError as error:
            text = f'the arguments for "{service}" cannot be sent: {error}'
            raise NotSerializableError(text) from None
        except LocalProtocolError as error:
            text = f'"{service}" cannot be asked for now: {error}'
            raise ServiceError(text) from None
        if answer is None:
            text = f'"{service}" was not done: the host is gone'
            raise PluginStoppingError(text)
        value = unpack(answer.payload)
        if not answer.ok:
            text = f'"{service}" was not done: {value["message"]}'
            raise ServiceError(text)
        return value

    def _may_publish(self, event_type: str) -> bool:
        if event_type in self._publishable:
            return True
        from fnmatch import fnmatchcase

        return any(fnmatchcase(event_type, pattern) for pattern in self._publishable)


_current: Context | None = None


def context() -> Context:
    """Return the context of the plugin that this process runs.

    Raises:
        ContextUnavailableError: this process runs no plugin.
    """
    if _current is None:
        text = (
            "there is no plugin context here, because this code does not run inside a plugin's "
            "process. In a unit test, wrap the call in `with plugin_sdk.testing.plugin_context():`."
        )
        raise ContextUnavailableError(text)
    return _current


def install_context(new: Context | None) -> Context | None:
    """Make ``new`` what `context` returns, and return what it replaces."""
    global _current
    replaced, _current = _current, new
    return replaced

"""What the host gives to a plugin: configuration, directories, a log, a store, events, calls.

A plugin calls `context` wherever it needs one of them: at import, inside ``init_plugin()``, in
operations and handlers.
"""

from __future__ import annotations

import sys

from plugin_sdk.errors import (
    CallError,
    ContextUnavailableError,
    NotSerializableError,
    PermissionDenied,
    PluginStoppingError,
    QuotaExceededError,
    ServiceError,
    StoreError,
)
from plugin_sdk.events import check_event_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from plugin_sdk.store import Store
    from plugin_sdk.wire.messages import Answer


LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
"""Names of the levels, by Python's numbers of them."""


class Log:
    """A logger with the methods everybody knows; each call is one entry of the host's log.

    `logging` from the standard library works as well: its entries arrive with their level and
    their logger's name, but it costs its import, which is most of a plugin's start.

    Args:
        name: the logger's name: the plugin's identity.
        send: takes a level, a logger's name and a text; without it, entries go to stderr.
    """

    __slots__ = ("_name", "_send")

    def __init__(self, name: str = "", send: Callable[[int, str, str], None] | None = None) -> None:
        self._name = name
        self._send = send

    def debug(self, text: object, *values: object) -> None:
        """Log what helps to find a fault."""
        self._write(10, text, values)

    def info(self, text: object, *values: object) -> None:
        """Log what happened."""
        self._write(20, text, values)

    def warning(self, text: object, *values: object) -> None:
        """Log what the operator should look at."""
        self._write(30, text, values)

    def error(self, text: object, *values: object) -> None:
        """Log what went wrong."""
        self._write(40, text, values)

    def exception(self, text: object, *values: object) -> None:
        """Log what went wrong, with the traceback of the exception that is being handled."""
        import traceback

        self._write(40, text, values)
        self._write(40, traceback.format_exc().rstrip(), ())

    def _write(self, level: int, text: object, values: tuple[object, ...]) -> None:
        line = str(text)
        if values:
            try:
                line = line % values
            except (TypeError, ValueError):
                line = f"{line} {values!r}"
        if self._send is None:
            print_entry(level, "", line)
        else:
            self._send(level, self._name, line)


def print_entry(level: int, logger: str, text: str) -> None:
    """Write an entry to stderr as ``LEVEL logger: text``, where it cannot be sent."""
    stream = sys.stderr
    if stream is not None:
        name = f"{logger}: " if logger else ""
        # Continuation lines are indented, so that none of them can pass for an entry.
        lines = "\n    ".join(text.splitlines()) if "\n" in text or "\r" in text else text
        stream.write(f"{LEVELS.get(level, f'LEVEL{level}')} {name}{lines}\n")


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
        "_callable",
        "_progress",
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
        calls: Collection[str] = (),
        log: Callable[[int, str, str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.data_dir = data_dir
        self.scratch_dir = scratch_dir
        self.log = Log(name, log)
        self._publishable = publishable
        self._send = send
        self._services = services
        self._ask = ask
        self._callable = calls
        self._progress = progress

    @property
    def store(self) -> Store:
        """The plugin's own `plugin_sdk.store.Store`: keys and values that the host keeps."""
        from plugin_sdk.store import Store

        return Store(self)

    def publish(
        self, event_type: str, data: Any = None, *, acknowledged: bool = False
    ) -> int | None:
        """Publish an event; the host stamps its source and time.

        Args:
            event_type: one of the types that are granted to the plugin, or a type that one of the
                granted patterns matches.
            data: plain values, at most 256 KiB when packed.
            acknowledged: wait until the host has it, and has written it down for every durable
                subscription that wants it; else nobody says what becomes of it.

        Returns:
            The event's number where it is acknowledged.

        Raises:
            ServiceError: it is to be acknowledged, and was not kept.
            EventTypeError: the type is malformed.
            PermissionDenied: the type is not granted.
            NotSerializableError: the data cannot be carried.
            PluginStoppingError: the plugin is being unloaded.
        """
        from plugin_sdk.wire.codec import pack
        from plugin_sdk.wire.errors import LocalProtocolError, PayloadError
        from plugin_sdk.wire.limits import EVENT

        plain = check_event_type(event_type)
        if not _matches(self._publishable, plain):
            raise self._not_granted("publish", "publish", plain)
        try:
            payload = pack(data, EVENT)
        except PayloadError as error:
            text = f'the data of the event "{plain}" cannot be sent: {error}'
            raise NotSerializableError(text) from None
        if acknowledged and self._ask is not None:
            from plugin_sdk.wire.services import PUBLISH_PREFIX

            ok, value = self._exchange(PUBLISH_PREFIX + plain, plain, payload)
            if not ok:
                raise _refusal(plain, value)
            return int(value)
        try:
            self._send(plain, payload)
        except LocalProtocolError:
            text = f'"{plain}" was not published: {self.name} is being unloaded'
            raise PluginStoppingError(text) from None
        return None

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
        if service not in self._services:
            raise self._not_granted("ask for the service", "services", service)
        payload = self._arguments(service, arguments, keywords)
        ok, value = self._exchange(service, service, payload)
        if not ok:
            raise _refusal(service, value)
        return value

    def call(self, target: str, /, *arguments: Any, **keywords: Any) -> Any:
        """Run an operation of another plugin, through the host, and return its value.

        Meanwhile the calling thread waits. The deadline of the operation that this is part of
        holds for the other as well, and so does the other plugin's own.

        Args:
            target: such as ``weather_source.read``: granted to this plugin under
                ``permissions.calls``, and exported by the other.
            arguments: plain values.
            keywords: the same, by name.

        Raises:
            PermissionDenied: the call is not granted, or the other plugin does not export it.
            NotSerializableError: an argument cannot be carried.
            CallError: it raised, was too late, has ended, or waits for this plugin itself.
            ServiceError: it cannot be asked for now.
            PluginStoppingError: the host is gone.
        """
        from plugin_sdk.wire.errors import PayloadError
        from plugin_sdk.wire.services import CALL_PREFIX

        if not _matches(self._callable, target):
            raise self._not_granted("call", "calls", target)
        payload = self._arguments(target, arguments, keywords, whole=True)
        try:
            ok, value = self._exchange(CALL_PREFIX + target, target, payload)
        except PayloadError as error:
            # It comes as the other plugin sent it.
            text = f'"{target}" returned what cannot be read: {error}'
            raise CallError.of("not-serializable", "", text) from None
        if not ok:
            raise _refusal(target, value)
        return value

    def progress(self, done: int, total: int = 0) -> None:
        """Tell the caller how much of the current operation is done.

        Costs a message, which counts like an event; nothing where no operation runs.

        Args:
            done: so many of `total`, from 0 on.
            total: 0 where it is not known.

        Raises:
            ValueError: one of them is no whole number from 0 to 2**53 - 1.
        """
        if self._progress is None:
            return
        from plugin_sdk.wire.message import is_count

        for value in (done, total):
            if not is_count(value):
                text = f"progress takes whole numbers from 0 on, not {value!r:.80}"
                raise ValueError(text)
        self._progress(done, total)

    def _not_granted(self, doing: str, rule: str, entry: str) -> PermissionDenied:
        text = (
            f'{self.name} may not {doing} "{entry}". List it in plugin.json under '
            f'permissions.{rule} ("{rule}": ["{entry}"]), sign the plugin again, and ask the '
            "operator to grant it."
        )
        return PermissionDenied.of(rule, entry, text)

    def _arguments(
        self,
        what: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        *,
        whole: bool = False,
    ) -> bytes:
        from plugin_sdk.wire.codec import pack
        from plugin_sdk.wire.errors import PayloadError
        from plugin_sdk.wire.limits import ARGUMENTS, ASKED

        try:
            return pack([list(arguments), keywords], ASKED if whole else ARGUMENTS)
        except PayloadError as error:
            text = f'the arguments for "{what}" cannot be sent: {error}'
            raise NotSerializableError(text) from None

    def _exchange(self, service: str, what: str, payload: bytes) -> tuple[bool, Any]:
        """Ask the host, and return whether it was done, with the value or the reason."""
        from plugin_sdk.wire.codec import unpack
        from plugin_sdk.wire.errors import LocalProtocolError

        answer: Answer | None = None
        try:
            if self._ask is not None:
                answer = self._ask(service, payload)
        except LocalProtocolError as error:
            text = f'"{what}" cannot be asked for now: {error}'
            raise ServiceError(text) from None
        if answer is None:
            text = f'"{what}" was not done: the host is gone'
            raise PluginStoppingError(text)
        return answer.ok, unpack(answer.payload)


def _matches(granted: Collection[str], name: str) -> bool:
    if name in granted:
        return True
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in granted)


def _refusal(what: str, told: dict[str, Any]) -> Exception:
    """Return the error for what the host did not do, from what it says."""
    text = f'"{what}" was not done: {told["message"]}'
    kind = told.get("kind", "")
    if kind == "permission":
        return PermissionDenied.of(told.get("rule", ""), what, text)
    if kind == "call":
        return CallError.of(told.get("code", ""), told.get("type", ""), text)
    return {"quota": QuotaExceededError, "store": StoreError}.get(kind, ServiceError)(text)


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

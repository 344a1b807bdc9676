"""What the embedding application does for plugins, by name: checked against a typed signature.

Each plugin that asks has a thread of its own, so that a slow service, or one plugin that asks
without end, keeps no other waiting; what one plugin asks for is done in its order. The application
trusts its functions: they run in the host, and the deadline of the operation that waits is all that
bounds how long they take.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pydantic

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import ARGUMENTS, MAX_PAYLOAD_BYTES
from sandbox_host.backends.worker import Worker
from sandbox_host.errors import ServiceError, UsageError
from sandbox_host.reading import BadValueError
from sandbox_host.runtime.answers import clean
from sandbox_host.runtime.serving import serving
from sandbox_host.terms import read_service

if TYPE_CHECKING:
    from sandbox_host.runtime.process import PluginProcess

_log = logging.getLogger("sandbox_host")

_MAX_REASON: Final = 1_000
_MAX_PROBLEMS: Final = 3
_MAX_COUNTED: Final = 100
_MAX_TRACE: Final = 8_000
_CALL_PARTS: Final = 2  # arguments and keywords

MAX_WAITING_BYTES: Final = 2 * MAX_PAYLOAD_BYTES
"""Of one plugin's arguments, as the host holds those that wait for their turn."""


@dataclass(slots=True)
class _Turns:
    """What one plugin asked for, done one after the other.

    Attributes:
        waiting_bytes: of arguments that are not done with.
    """

    worker: Worker
    waiting_bytes: int = 0


class Services:
    """The services of one host. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered: dict[str, Callable[..., Any]] = {}
        self._turns: dict[PluginProcess, _Turns] = {}

    @property
    def names(self) -> frozenset[str]:
        """Of all that are offered."""
        with self._lock:
            return frozenset(self._offered)

    def offer(self, name: str, function: Callable[..., Any]) -> None:
        """Have plugins ask for a function by a name.

        Args:
            name: such as ``prices.latest``.
            function: with an annotation for each parameter, by which what a plugin sends is
                checked strictly.

        Raises:
            UsageError: the name is malformed or taken, or a parameter has no annotation.
        """
        try:
            read_service(name, "the name")
        except BadValueError as error:
            text = f"A service cannot be offered: {error}."
            raise UsageError(text) from None
        checked = _checked(name, function)
        with self._lock:
            if name in self._offered:
                text = f'A service "{name}" is offered already.'
                raise UsageError(text)
            self._offered[name] = checked

    def ask(self, process: PluginProcess, number: int, name: str, payload: bytes) -> None:
        """Do a service for a plugin, after what it asked for before. Does not block.

        Args:
            process: who asks; that it may has been checked.
            number: of its message.
            name: of the service.
            payload: its arguments, packed; hostile.
        """
        with self._lock:
            turns = self._turns.get(process)
            if turns is None:
                worker = Worker(f"sandbox-host-service-{process.identity}")
                turns = self._turns[process] = _Turns(worker)
            fits = turns.waiting_bytes + len(payload) <= MAX_WAITING_BYTES
            turns.waiting_bytes += len(payload) if fits else 0
        if fits:
            turns.worker.submit(lambda: self._take_turn(turns, process, number, name, payload))
        else:
            reason = _reason("too much that the plugin asked for waits already")
            process.answer(number, ok=False, payload=codec.pack(reason))

    def forget(self, process: PluginProcess) -> None:
        """The plugin has ended: what it asked for and is not begun is not done."""
        with self._lock:
            turns = self._turns.pop(process, None)
        if turns is not None:
            turns.worker.leave()

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            processes = list(self._turns)
        for process in processes:
            self.forget(process)

    def _take_turn(
        self, turns: _Turns, process: PluginProcess, number: int, name: str, payload: bytes
    ) -> None:
        try:
            self._do(process, number, name, payload)
        finally:
            with self._lock:
                turns.waiting_bytes -= len(payload)

    def _do(self, process: PluginProcess, number: int, name: str, payload: bytes) -> None:
        if process.ended.is_set():
            return
        try:
            arguments, keywords = _arguments(payload)
        except PayloadError as error:
            process.violated(str(error))
            return
        with serving(process.identity):
            ok, value = self._outcome(process, name, arguments, keywords)
        try:
            packed = codec.pack(value)
        except PayloadError as error:
            _complain(process, f'The service "{name}" returned what cannot be carried: {error}')
            ok, packed = False, codec.pack(_reason("its value cannot be carried"))
        process.answer(number, ok=ok, payload=packed)

    def _outcome(
        self, process: PluginProcess, name: str, arguments: list[Any], keywords: dict[str, Any]
    ) -> tuple[bool, Any]:
        with self._lock:
            function = self._offered[name]
        try:
            return True, function(*arguments, **keywords)
        except pydantic.ValidationError as error:
            return False, _reason(_told(error))
        except ServiceError as error:
            return False, _reason(error.message)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the application's own; not a plugin's to know
            what = f'The service "{name}" failed, asked for by {process.identity}'
            _complain(process, what, "".join(traceback.format_exception(error)))
            return False, _reason("it failed; the host's log has why")


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
        bare = [one.name for one in parameters if one.annotation is inspect.Parameter.empty]
        if bare:
            text = f"its parameter {bare[0]} has no annotation"
            raise TypeError(text)
        return pydantic.validate_call(config=pydantic.ConfigDict(strict=True))(function)
    except (TypeError, ValueError, NameError, pydantic.PydanticUserError) as error:
        text = f'The service "{name}" cannot be offered: {str(error).splitlines()[0]}.'
        remedy = "Annotate every parameter, such as `def latest(symbol: str) -> float`."
        raise UsageError(text, remedy=remedy) from None


def _arguments(payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    value = codec.unpack(payload, ARGUMENTS)
    if not isinstance(value, list) or len(value) != _CALL_PARTS:
        text = "what it asks for is no list of arguments and keywords"
        raise PayloadError(text)
    arguments, keywords = value
    if not isinstance(arguments, list) or not isinstance(keywords, dict):
        text = "what it asks for is no list of arguments and keywords"
        raise PayloadError(text)
    return arguments, keywords


def _told(error: pydantic.ValidationError) -> str:
    if error.error_count() > _MAX_COUNTED:  # each takes time and memory to be told
        return f"its arguments are not what it takes, in {error.error_count()} places"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = (f"{_place(one['loc'])}: {one['msg']}" for one in problems[:_MAX_PROBLEMS])
    return "its arguments are not what it takes: " + "; ".join(told)


def _place(location: tuple[int | str, ...]) -> str:
    """Return where in the arguments a problem is; positions count from 1."""
    first, *below = location or ("arguments",)
    name = f"argument {first + 1}" if isinstance(first, int) else first
    return ".".join([name, *map(str, below)])


def _complain(process: PluginProcess, what: str, trace: str = "") -> None:
    """Log a failure, if not too many were; what an exception says may be the plugin's own words."""
    told = process.complaints.told(what, time.monotonic())
    if told:
        lines = clean(trace, _MAX_TRACE, keep="\n").splitlines()
        # No line of it looks like one that the log itself began.
        _log.error("%s", "\n    | ".join([told, *lines]))


def _reason(text: str) -> dict[str, str]:
    return {"message": clean(text, _MAX_REASON)}

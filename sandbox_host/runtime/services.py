"""What the host and its application do for plugins, by name, and in which order.

Each plugin that asks has threads of its own, so that a slow service, or one plugin that asks
without end, keeps no other waiting. It has as many as it works on calls at a time, and what a
plugin with one asks for is done in its order. The application's functions are checked against a
typed signature and trusted: they run in the host, and the deadline of the operation that waits is
all that bounds how long they take. The host's own services are in `own_services`.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pydantic

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import ARGUMENTS, MAX_PAYLOAD_BYTES
from sandbox_host.backends.worker import Worker
from sandbox_host.errors import ServiceError, UsageError
from sandbox_host.model import HOST_SERVICES
from sandbox_host.reading import BadValueError
from sandbox_host.runtime.answers import clean
from sandbox_host.runtime.asked import Asked
from sandbox_host.runtime.refusal import RefusalError
from sandbox_host.runtime.serving import serving
from sandbox_host.terms import read_service

if TYPE_CHECKING:
    from sandbox_host.runtime.own_services import OwnServices
    from sandbox_host.runtime.process import PluginProcess

_log = logging.getLogger("sandbox_host")

_MAX_REASON: Final = 1_000
_MAX_PROBLEMS: Final = 3
_MAX_COUNTED: Final = 100
_MAX_TRACE: Final = 8_000
_CALL_PARTS: Final = 2  # arguments and keywords
_ROOM_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.01

MAX_AT_A_TIME: Final = 8
"""Services that are done for one plugin at a time, each in a thread, however many calls it works
on."""

_WITHDRAWN: Final = "the plugin did not wait for it"

MAX_WAITING_BYTES: Final = 2 * MAX_PAYLOAD_BYTES
"""Of one plugin's arguments, as the host holds those that wait for their turn."""


@dataclass(slots=True)
class _Turns:
    """What one plugin asked for.

    Attributes:
        most: so much of it is done at a time.
        idle: threads that have nothing to do.
        waiting: what is not begun, by number, in its order.
        begun: what is being done, by number.
        waiting_bytes: of arguments that are not done with.
        threads: those that are at work.
    """

    most: int
    idle: list[Worker] = field(default_factory=list)
    waiting: dict[int, Asked] = field(default_factory=dict)
    begun: dict[int, Asked] = field(default_factory=dict)
    waiting_bytes: int = 0
    threads: int = 0
    left: bool = False


class Services:
    """The services of one host. Thread-safe.

    Args:
        own: those of the host itself.
    """

    def __init__(self, own: OwnServices) -> None:
        self._own = own
        self._lock = threading.Lock()
        self._offered: dict[str, Callable[..., Any]] = {}
        self._turns: dict[PluginProcess, _Turns] = {}

    @property
    def names(self) -> frozenset[str]:
        """Of all that the application offers."""
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
        if name in HOST_SERVICES:
            text = f'A service "{name}" is the host\'s own; no application offers one.'
            raise UsageError(text, remedy="Choose another name.")
        checked = _checked(name, function)
        with self._lock:
            if name in self._offered:
                text = f'A service "{name}" is offered already.'
                raise UsageError(text)
            self._offered[name] = checked

    def ask(self, process: PluginProcess, asked: Asked) -> None:
        """Do a service for a plugin, after what it asked for before. Does not block.

        Args:
            process: who asks; that it may has been checked.
            asked: what for.
        """
        with self._lock:
            turns = self._turns.get(process)
            if turns is None:
                most = max(1, min(process.plan.manifest.concurrency, MAX_AT_A_TIME))
                turns = self._turns[process] = _Turns(most)
            fits = turns.waiting_bytes + len(asked.payload) <= MAX_WAITING_BYTES
            if fits:
                turns.waiting_bytes += len(asked.payload)
                turns.waiting[asked.number] = asked
                self._begin(process, turns)
        if not fits:
            reason = _reason("too much that the plugin asked for waits already")
            process.answer(asked.number, ok=False, payload=codec.pack(reason))

    def waits(self, process: PluginProcess) -> bool:
        """Tell whether something that a plugin asked for is not done yet."""
        with self._lock:
            turns = self._turns.get(process)
            return turns is not None and bool(turns.waiting or turns.begun)

    def withdraw(self, process: PluginProcess, number: int) -> None:
        """A plugin waits no more for what it asked for: drop it, or have it end. Does not block.

        Args:
            process: the plugin's.
            number: of what it asked for; has been checked to be without an answer.
        """
        with self._lock:
            turns = self._turns.get(process)
            asked = turns.waiting.pop(number, None) if turns is not None else None
            begun = turns.begun.get(number) if turns is not None else None
            if turns is not None and asked is not None:
                turns.waiting_bytes -= len(asked.payload)
        if asked is not None:
            process.answer(number, ok=False, payload=codec.pack(_reason(_WITHDRAWN)))
        elif begun is not None:
            begun.withdraw()

    def forget(self, process: PluginProcess, then: Callable[[], object] = lambda: None) -> None:
        """The plugin has ended: what it asked for and is not begun is not done.

        Args:
            process: the plugin's.
            then: is called when the host has closed what it had open for it, from any thread.
        """
        with self._lock:
            turns = self._turns.pop(process, None)
            begun, idle = (list(turns.begun.values()), turns.idle) if turns else ([], [])
            if turns is not None:
                turns.waiting.clear()
                turns.idle, turns.left = [], True
        for worker in idle:
            worker.leave()
        for asked in begun:
            asked.withdraw()
        self._own.forget(process, then)

    def copied(self) -> None:
        """Belong to a forked copy of the host."""
        self._own.copied()

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            processes = list(self._turns)
        for process in processes:
            self.forget(process)
        self._own.close()

    # -- one after the other ----------------------------------------------------------------

    def _begin(self, process: PluginProcess, turns: _Turns) -> None:
        """Have one thread more take turns, if there may be one; locked."""
        if turns.threads >= turns.most:
            return
        name = f"sandbox-host-service-{process.identity}"
        worker = turns.idle.pop() if turns.idle else Worker(name)
        turns.threads += 1
        worker.submit(lambda: self._take_turns(process, turns, worker))

    def _take_turns(self, process: PluginProcess, turns: _Turns, worker: Worker) -> None:
        while (asked := self._next(turns, worker)) is not None:
            try:
                self._do(process, asked)
            except Exception as error:  # noqa: BLE001 - a fault of ours, told in the log
                _log.exception("%s: a service was not done", process.identity)
                process.failed(error)
            finally:
                with self._lock:
                    turns.begun.pop(asked.number, None)
                    turns.waiting_bytes -= len(asked.payload)

    def _next(self, turns: _Turns, worker: Worker) -> Asked | None:
        """Return what is to be done now, or None: then the thread waits, or ends."""
        with self._lock:
            if turns.waiting:
                asked = turns.waiting.pop(next(iter(turns.waiting)))
                turns.begun[asked.number] = asked
                return asked
            turns.threads -= 1
            if turns.left:
                worker.leave()
            else:
                turns.idle.append(worker)
            return None

    def _do(self, process: PluginProcess, asked: Asked) -> None:
        if process.ended.is_set():
            return
        if not asked.is_wanted():
            self._answer(process, asked, ok=False, packed=codec.pack(_reason(_WITHDRAWN)))
            return
        try:
            with serving(process.identity):
                ok, packed = self._outcome(process, asked)
        except PayloadError as error:
            process.violated(str(error))
            return
        self._answer(process, asked, ok=ok, packed=packed)

    def _answer(self, process: PluginProcess, asked: Asked, *, ok: bool, packed: bytes) -> None:
        """Answer once there is room: several large values at a time are no fault of its."""
        until = time.monotonic() + _ROOM_SECONDS
        while not process.channel.has_room(len(packed)):
            if process.ended.wait(_PAUSE_SECONDS) or time.monotonic() > until:
                break
        process.answer(asked.number, ok=ok, payload=packed)

    def _outcome(self, process: PluginProcess, asked: Asked) -> tuple[bool, bytes]:
        """Return whether it was done, with the packed value or reason.

        Raises:
            PayloadError: what it asks with breaks the protocol.
        """
        if not self._own.has(asked.service):
            return self._done(process, asked.service, *_arguments(asked.payload))
        try:
            return True, self._own.do(process, asked)
        except RefusalError as error:
            if error.__cause__ is not None:
                _complain(process, f"{process.identity}: {error}")
            return False, codec.pack(error.told())

    def _done(
        self, process: PluginProcess, name: str, arguments: list[Any], keywords: dict[str, Any]
    ) -> tuple[bool, bytes]:
        ok, value = self._called(process, name, arguments, keywords)
        try:
            return ok, codec.pack(value)
        except PayloadError as error:
            _complain(process, f'The service "{name}" returned what cannot be carried: {error}')
            return False, codec.pack(_reason("its value cannot be carried"))

    def _called(
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

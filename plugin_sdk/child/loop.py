"""Answers the host's messages, one at a time, until it says stop or is gone."""

from __future__ import annotations

from time import monotonic_ns

from plugin_sdk.child.faults import EXCEPTION, MEMORY, Faults, head, raised_by_the_call
from plugin_sdk.child.io import flush_output
from plugin_sdk.errors import DeadlinePassed
from plugin_sdk.events import Event
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import MAX_NAME_BYTES
from plugin_sdk.wire.messages import (
    Call,
    Deliver,
    Failure,
    Handled,
    Result,
    Stop,
    Stopped,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

    from plugin_sdk.child.interface import Operation
    from plugin_sdk.child.io import ChildChannel
    from plugin_sdk.child.loader import LoadedPlugin
    from plugin_sdk.child.record import Recorder
    from plugin_sdk.wire.message import Message
else:
    import _signal as signal  # the half in C: the other half imports enum, which is slow

# Codes of `Failure`, beside those of `faults`.
DEADLINE_PASSED = "deadline-passed"
INTERRUPTED = "interrupted"
NO_SUCH_OPERATION = "no-such-operation"
BAD_ARGUMENTS = "bad-arguments"
NOT_SERIALIZABLE = "not-serializable"
MESSAGE_TOO_LARGE = "message-too-large"

# Failures of handlers that are told for one event.
_MAX_HANDLER_ERRORS = 8

_MAX_LISTED_OPERATIONS = 20

_NOTHING = object()


class Loop:
    """Runs one plugin's operations and handlers.

    Args:
        channel: where messages come from and answers go.
        plugin: what was loaded.
        faults: describes what the plugin raises.
        recorder: knows what a trial used; None where it is none.
    """

    def __init__(
        self,
        channel: ChildChannel,
        plugin: LoadedPlugin,
        faults: Faults,
        recorder: Recorder | None = None,
    ) -> None:
        self._channel = channel
        self._operations = plugin.interface.operations
        self._handlers = plugin.interface.handlers
        self._cleanup = plugin.hooks.get("cleanup")
        self._faults = faults
        self._recorder = recorder
        self._deadline_ns = 0
        signal.signal(signal.SIGUSR2, lambda _number, _frame: self._late())

    def _late(self) -> None:
        """The host says that the operation's deadline has passed. Trust the clock, not the signal.

        It may come when the operation has just ended, and the next one must not pay for it.
        """
        if 0 < self._deadline_ns <= monotonic_ns():
            if self._channel.sending:
                self._channel.postpone(self._late)
                return
            self._deadline_ns = 0
            text = "the operation's deadline has passed"
            raise DeadlinePassed(text)

    def run(self) -> None:
        """Serve until `Stop` is answered or the host closes its end.

        Raises:
            RemoteProtocolError: the host broke the protocol.
            OSError: the host is gone while an answer is sent.
        """
        while (message := self._channel.receive()) is not None:
            self._faults.take_reserve()
            if isinstance(message, Call):
                answer: Message = self._call(message)
            elif isinstance(message, Deliver):
                answer = self._deliver(message)
            elif isinstance(message, Stop):
                answer = self._stop()
            else:
                continue  # nothing else reaches a running plugin; the connection sees to it
            # A finished call must not be kept alive by its message until the next one comes.
            message = None
            flush_output()
            self._channel.send(answer)
            if isinstance(answer, Stopped):
                return

    def _call(self, call: Call) -> Message:
        if call.deadline_ns and monotonic_ns() > call.deadline_ns:
            return _failure(call, DEADLINE_PASSED, "the deadline had passed before the call ran")
        operation = self._operations.get(call.operation)
        if operation is None:
            return _failure(call, NO_SUCH_OPERATION, self._unknown(call.operation))
        arguments = _NOTHING
        try:
            arguments = unpack(call.payload)
        except PayloadError as error:
            return _failure(call, BAD_ARGUMENTS, f"the arguments cannot be read: {error}")
        except MemoryError as error:
            return self._raised(call, error)
        call.payload = b""
        if not _is_arguments(arguments):
            return _failure(call, BAD_ARGUMENTS, "the payload of a call is [list, dict]")
        try:
            try:
                return self._run(call, operation, arguments)
            finally:
                self._deadline_ns = 0
        except DeadlinePassed as error:
            # It came while the answer was being made; it cannot come again.
            return self._raised(call, error)

    def _run(self, call: Call, operation: Operation, arguments: Any) -> Message:
        value = _NOTHING
        try:
            self._deadline_ns = call.deadline_ns
            value = operation(*arguments[0], **arguments[1])
            self._deadline_ns = 0  # what is done is done: it may take its time to be sent
            arguments.clear()
            return Result(call.id, payload=pack(value))
        except PayloadTooLargeError as error:
            if value is not _NOTHING:
                text = f"the result of {call.operation} cannot be sent: {error}"
                return _failure(call, MESSAGE_TOO_LARGE, text)
            return self._raised(call, error)
        except PayloadError as error:
            if value is not _NOTHING:
                text = f"the result of {call.operation} cannot be sent: {error}"
                return _failure(call, NOT_SERIALIZABLE, text)
            return self._raised(call, error)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in an operation ends nothing
            # What is held here may be what used up the memory.
            value = None
            arguments.clear()
            return self._raised(call, error, operation)

    def _raised(
        self, call: Call, error: BaseException, operation: Operation | None = None
    ) -> Message:
        code, details = self._faults.describe(error)
        if code == MEMORY and not details["place"] and operation is not None:
            # There was no memory for a traceback either.
            details["place"] = self._faults.place_of(operation)
        if code == EXCEPTION and isinstance(error, TypeError) and raised_by_the_call(error):
            code = BAD_ARGUMENTS
        elif isinstance(error, DeadlinePassed):
            code = INTERRUPTED
        return Failure(call.id, code, payload=pack(details))

    def _unknown(self, name: str) -> str:
        """Say which operations there are, those that look like ``name`` first."""
        wanted = name.lower().replace("_", "")

        def distance(offered: str) -> tuple[bool, str]:
            plain = offered.lower().replace("_", "")
            near = plain in wanted or wanted in plain or set(plain) == set(wanted)
            return not near, offered

        names = sorted(self._operations, key=distance)
        listed = ", ".join(names[:_MAX_LISTED_OPERATIONS])
        if len(names) > _MAX_LISTED_OPERATIONS:
            listed += f" and {len(names) - _MAX_LISTED_OPERATIONS} more"
        return f'there is no operation "{name}"; the plugin offers: {listed}'

    def _deliver(self, deliver: Deliver) -> Message:
        """Run every handler of the event; one that fails does not stop the others."""
        errors: list[dict[str, Any]] = []
        try:
            event = _event(deliver, unpack(deliver.payload))
        except (PayloadError, MemoryError) as error:
            errors.append(self._faults.describe(error)[1])
        else:
            for handler in self._handlers.get(deliver.event_type, ()):
                try:
                    handler(event)
                except BaseException as error:  # noqa: BLE001 - as in _run
                    if len(errors) < _MAX_HANDLER_ERRORS:
                        errors.append({"handler": _name(handler), **self._told(error)})
        return Handled(deliver.id, not errors, payload=pack({"errors": errors}))

    def _told(self, error: BaseException) -> dict[str, Any]:
        code, details = self._faults.describe(error)
        return {"code": code, **details}

    def _stop(self) -> Message:
        """Run ``cleanup()``; a plugin that has none is clean."""
        problem: dict[str, Any] | None = None
        if self._cleanup is not None:
            try:
                answer = self._cleanup()
                if answer is not True:
                    shown = (
                        "False" if answer is False else f"a value of type {type(answer).__name__}"
                    )
                    text = f"cleanup() returned {shown}; it returns True when all is cleaned up"
                    problem = {"message": text}
            except BaseException as error:  # noqa: BLE001 - as in _run
                problem = self._told(error)
        told: dict[str, Any] = {"ok": problem is None, "error": problem}
        if self._recorder is not None:
            told["observed"] = self._recorder.report()
        return Stopped(payload=pack(told))


def _is_arguments(value: Any) -> bool:
    match value:
        case [list(), dict()]:
            return True
        case _:
            return False


def _event(deliver: Deliver, payload: Any) -> Event:
    if not isinstance(payload, dict):
        text = "the payload of an event is a dict"
        raise PayloadError(text)
    return Event(
        deliver.event_type,
        payload.get("data"),
        payload.get("timestamp", 0.0),
        payload.get("source", "host"),
        payload.get("id", 0),
    )


def _failure(call: Call, code: str, message: str) -> Message:
    details = {"type": "", "message": message, "traceback": "", "place": ""}
    return Failure(call.id, code, payload=pack(details))


def _name(function: Operation) -> str:
    name = getattr(function, "__qualname__", "")
    return head(name, MAX_NAME_BYTES) if isinstance(name, str) else ""

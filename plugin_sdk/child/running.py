"""Runs one operation, or one event's handlers, and says what became of it."""

from __future__ import annotations

from time import monotonic_ns

from plugin_sdk.child.batches import PLAIN, are_calls, batch_of
from plugin_sdk.child.calls import current
from plugin_sdk.child.faults import EXCEPTION, MEMORY, Faults, head, raised_by_the_call
from plugin_sdk.child.io import flush_output
from plugin_sdk.child.streams import place_feeds, send_items, send_items_of
from plugin_sdk.errors import Cancelled, DeadlinePassed
from plugin_sdk.events import Event
from plugin_sdk.wire.codec import pack, pack_in_parts, unpack
from plugin_sdk.wire.errors import LocalProtocolError, PayloadError, PayloadTooLargeError
from plugin_sdk.wire.events import BROKEN, unpack_events
from plugin_sdk.wire.limits import MAX_NAME_BYTES
from plugin_sdk.wire.messages import (
    Call,
    Deliver,
    DeliverMany,
    Failure,
    Handled,
    HandledSome,
    Result,
    Stopped,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from typing import Any

    from plugin_sdk.child.calls import CallState
    from plugin_sdk.child.interface import Operation
    from plugin_sdk.child.io import ChildChannel
    from plugin_sdk.child.loader import LoadedPlugin
    from plugin_sdk.child.record import Recorder
    from plugin_sdk.wire.message import Message

    Await = Callable[[CallState | None, Coroutine[Any, Any, Any]], Any]

# Codes of `Failure`, beside those of `faults`.
DEADLINE_PASSED = "deadline-passed"
INTERRUPTED = "interrupted"
CANCELLED = "cancelled"
NO_SUCH_OPERATION = "no-such-operation"
BAD_ARGUMENTS = "bad-arguments"
NOT_SERIALIZABLE = "not-serializable"
MESSAGE_TOO_LARGE = "message-too-large"

# Failures of handlers that are told for one event.
_MAX_HANDLER_ERRORS = 8

_MAX_LISTED_OPERATIONS = 20

_UNTOLD_NS = 2_000_000
"""So long the host is not told that events were handled, where more of them are there."""

_NO_ERRORS = pack({"errors": []})

_NOTHING = object()


class Prepared:
    """A call that can be run: its operation, and its arguments in place."""

    __slots__ = ("arguments", "call", "keywords", "operation", "state")

    def __init__(
        self, call: Call, state: CallState, operation: Operation, arguments: Any, keywords: Any
    ) -> None:
        self.call = call
        self.state = state
        self.operation = operation
        self.arguments = arguments
        self.keywords = keywords

    def forget(self) -> None:
        """Let go of the arguments: they may be what used up the memory."""
        self.arguments, self.keywords = [], {}


class Runner:
    """What a plugin's operations, handlers and ``cleanup()`` are run by.

    Args:
        channel: where streams come from and go to.
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

    # -- calls ------------------------------------------------------------------------------

    def prepare(self, call: Call) -> Prepared | Message:
        """Return what to run, or the failure of a call that cannot be."""
        state = self._channel.calls[call.id]
        if (refused := self.refused(call, state)) is not None:
            return refused
        operation = self._operations.get(call.operation)
        if operation is None:
            return _failure(call, NO_SUCH_OPERATION, self._unknown(call.operation))
        try:
            value = unpack(call.payload)
        except PayloadError as error:
            return _failure(call, BAD_ARGUMENTS, f"the arguments cannot be read: {error}")
        except MemoryError as error:
            return self.raised(call, state, error)
        call.payload = b""
        if type(value) is list and len(value) == 2:  # noqa: PLR2004 - what most calls have
            arguments, keywords = value
            if type(arguments) is list and type(keywords) is dict:
                return Prepared(call, state, operation, arguments, keywords)
        return self._prepared(call, state, operation, value)

    def _prepared(
        self, call: Call, state: CallState, operation: Operation, value: Any
    ) -> Prepared | Message:
        match value:
            case [list() as arguments, dict() as keywords, list() as feeds]:
                pass
            case [list() as calls, dict(), list(), True] if are_calls(calls):
                describe = self._describing(state, operation)
                return Prepared(call, state, batch_of(operation, describe), [calls], {})
            case _:
                return _failure(call, BAD_ARGUMENTS, "the payload of a call is [list, dict]")
        if feeds:
            try:
                place_feeds(self._channel, state, arguments, keywords, feeds)
            except LocalProtocolError as error:
                return _failure(call, BAD_ARGUMENTS, str(error))
        return Prepared(call, state, operation, arguments, keywords)

    def _describing(
        self, state: CallState, operation: Operation
    ) -> Callable[[BaseException], dict[str, Any]]:
        def describe(error: BaseException) -> dict[str, Any]:
            code, details = self._described(state, error, operation)
            return {"code": code, **details}

        return describe

    def refused(self, call: Call, state: CallState) -> Message | None:
        """Return the failure of a call that is not to be run any more, or None."""
        if state.cancelled and not state.late:
            return _failure(call, CANCELLED, "the call was cancelled before it ran")
        if state.is_late(monotonic_ns()):
            return _failure(call, DEADLINE_PASSED, "the deadline had passed before the call ran")
        return None

    def run(self, prepared: Prepared, wait_for: Await) -> Message:
        """Run an operation to its end, in the calling thread.

        Args:
            prepared: by `prepare`.
            wait_for: runs a coroutine that the operation returned.
        """
        state = prepared.state
        token = current.set(state)
        try:
            return self._run(prepared, wait_for)
        except (DeadlinePassed, Cancelled) as error:
            # It came while the answer was being made; it cannot come again.
            state.active = False
            return self.raised(prepared.call, state, error)
        finally:
            current.reset(token)

    def _run(self, prepared: Prepared, wait_for: Await) -> Message:
        call, state, value = prepared.call, prepared.state, _NOTHING
        try:
            state.active = True
            if state.cancelled and not state.interrupted:
                state.interrupted = True  # it was said when nothing could be raised yet
                raise state.reason()
            value = prepared.operation(*prepared.arguments, **prepared.keywords)
            value = self._finished(state, value, wait_for)
            state.active = False  # what is done is done: it may take its time to be sent
            prepared.forget()
            return self.result(call, value)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in an operation ends nothing
            state.active = False
            # What is held here may be what used up the memory.
            value = None
            prepared.forget()
            return self.raised(call, state, error, prepared.operation)

    def _finished(self, state: CallState, value: Any, wait_for: Await) -> Any:
        """See what an operation returned to its end: a stream is sent, a coroutine waited for."""
        if type(value) in PLAIN:
            return value
        if _has(value, "__await__"):
            value = wait_for(state, value)
        if _has(value, "__anext__"):
            return wait_for(state, send_items_of(self._channel, state, value))
        if _has(value, "__next__"):
            return send_items(self._channel, state, value)
        return value

    def coroutine(self, prepared: Prepared) -> Coroutine[Any, Any, Any]:
        """Return what an ``async def`` does, for a loop beside others."""

        async def run() -> Any:
            value = prepared.operation(*prepared.arguments, **prepared.keywords)
            if _has(value, "__await__"):
                value = await value
            if _has(value, "__anext__"):
                await send_items_of(self._channel, prepared.state, value)
                return None
            return value

        return run()

    def result(self, call: Call, value: Any) -> Message:
        """Return the answer that carries a value, or says why it cannot be carried."""
        try:
            # Where several run at a time, it may be sent when another has changed it.
            packed = pack(value) if self._channel.shared else pack_in_parts(value)
            return Result(call.id, payload=packed)
        except PayloadTooLargeError as error:
            code, problem = MESSAGE_TOO_LARGE, error
        except PayloadError as error:
            code, problem = NOT_SERIALIZABLE, error  # type: ignore[assignment]  # its base
        return _failure(call, code, f"the result of {call.operation} cannot be sent: {problem}")

    def raised(
        self,
        call: Call,
        state: CallState,
        error: BaseException,
        operation: Operation | None = None,
    ) -> Message:
        """Return the answer that says what was raised."""
        code, details = self._described(state, error, operation)
        return Failure(call.id, code, payload=pack(details))

    def _described(
        self, state: CallState, error: BaseException, operation: Operation | None
    ) -> tuple[str, dict[str, Any]]:
        code, details = self._faults.describe(error)
        if code == MEMORY and not details["place"] and operation is not None:
            # There was no memory for a traceback either.
            details["place"] = self._faults.place_of(operation)
        if code == EXCEPTION and isinstance(error, TypeError) and raised_by_the_call(error):
            code = BAD_ARGUMENTS
        elif isinstance(error, PayloadTooLargeError):
            code = MESSAGE_TOO_LARGE  # of an item that it yielded
        elif isinstance(error, PayloadError):
            code = NOT_SERIALIZABLE
        elif isinstance(error, DeadlinePassed | Cancelled) or _is_cancelled_error(error, state):
            late = isinstance(error, DeadlinePassed) or state.is_late(monotonic_ns())
            code = INTERRUPTED if late else CANCELLED
        return code, details

    def failed(self, call: Call, message: str) -> Message:
        """Return the failure of a call for a reason of our own."""
        return _failure(call, EXCEPTION, message)

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

    # -- the rest ---------------------------------------------------------------------------

    def deliver(self, deliver: Deliver | DeliverMany, wait_for: Await) -> Message:
        """Run every handler of each event; one that fails does not stop the others.

        What became of many is said together, unless something failed, or it takes its time: the
        host's clocks are for one event.
        """
        event_type, handlers = deliver.event_type, self._handlers.get(deliver.event_type, ())
        errors: list[dict[str, Any]] = []
        new = Event.__new__
        untold, until_ns = 0, monotonic_ns() + _UNTOLD_NS
        try:
            for data, timestamp, source, number in _events(deliver):
                if untold and (errors or monotonic_ns() > until_ns):
                    self._tell_handled(deliver.id, untold, errors)
                    untold, errors, until_ns = 0, [], monotonic_ns() + _UNTOLD_NS
                untold += 1
                event = new(Event)  # without a frame for its __init__: a tenth of all there is
                event.type, event.data = event_type, data
                event.timestamp, event.source, event.id = timestamp, source, number
                for handler in handlers:
                    try:
                        value = handler(event)
                        if value is not None and _has(value, "__await__"):
                            wait_for(None, value)
                    except BaseException as error:  # noqa: BLE001 - as in run
                        if len(errors) < _MAX_HANDLER_ERRORS:
                            errors.append({"handler": _name(handler), **self._told(error)})
        except (PayloadError, MemoryError, *BROKEN) as error:
            errors = [self._faults.describe(error)[1]]
        payload = pack({"errors": errors}) if errors else _NO_ERRORS
        return Handled(deliver.id, not errors, payload=payload)

    def _tell_handled(self, number: int, events: int, errors: list[dict[str, Any]]) -> None:
        flush_output()
        payload = pack({"errors": errors}) if errors else b""
        self._channel.send(HandledSome(number, events, not errors, payload=payload))

    def _told(self, error: BaseException) -> dict[str, Any]:
        code, details = self._faults.describe(error)
        return {"code": code, **details}

    def stop(self) -> Message:
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
            except BaseException as error:  # noqa: BLE001 - as in run
                problem = self._told(error)
        told: dict[str, Any] = {"ok": problem is None, "error": problem}
        if self._recorder is not None:
            told["observed"] = self._recorder.report()
        return Stopped(payload=pack(told))


def _has(value: Any, method: str) -> bool:
    """Tell whether a value's class has a method: a mock or a proxy has whatever it is asked for."""
    return hasattr(type(value), method)


def _is_cancelled_error(error: BaseException, state: CallState) -> bool:
    """Tell whether it is asyncio's, and brought about by the host: asyncio may not be there."""
    asked = state.cancelled or state.is_late(monotonic_ns())
    return asked and any(kind.__name__ == "CancelledError" for kind in type(error).__mro__)


def _events(deliver: Deliver | DeliverMany) -> Iterable[Sequence[Any]]:
    """Return data, timestamp, source and id of each event, and nothing that a later version adds.

    Raises:
        PayloadError: the host's payload has none.
    """
    if isinstance(deliver, DeliverMany):
        return unpack_events(deliver.payload, deliver.events)
    payload = unpack(deliver.payload)
    if not isinstance(payload, dict):
        text = "the payload of an event is a dict"
        raise PayloadError(text)
    get = payload.get
    return ((get("data"), get("timestamp", 0.0), get("source", "host"), get("id", 0)),)


def _failure(call: Call, code: str, message: str) -> Message:
    details = {"type": "", "message": message, "traceback": "", "place": ""}
    return Failure(call.id, code, payload=pack(details))


def _name(function: Operation) -> str:
    name = getattr(function, "__qualname__", "")
    return head(name, MAX_NAME_BYTES) if isinstance(name, str) else ""

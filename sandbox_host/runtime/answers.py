"""Turns what a plugin answered into a value or a typed error. Its text is shown, never obeyed."""

from __future__ import annotations

from typing import Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.messages import Failure, Message, Result
from sandbox_host.errors import (
    BudgetExceededError,
    DeadlineExceededError,
    MessageTooLargeError,
    NoSuchOperationError,
    NotSerializableError,
    OperationError,
    PluginError,
)
from sandbox_host.model import Limits

_MAX_MESSAGE: Final = 2_000
_MAX_TRACEBACK: Final = 16_000
_MAX_PLACE: Final = 300


class BadAnswerError(Exception):
    """The payload is not what the protocol says: the plugin is to be ended."""


def clean(value: object, limit: int, *, keep: str = "") -> str:
    r"""Return text from a plugin as it may be shown: bounded, control characters escaped.

    A terminal obeys escape sequences and a log believes line breaks; ``keep`` names characters
    that pass all the same, such as "\\n" in a traceback.
    """
    text = value if isinstance(value, str) else ""
    if len(text) > limit:
        text = "…" + text[-limit:]
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def value_of(plugin: str, operation: str, answer: Message) -> Any:
    """Return the value of an answered call.

    Raises:
        PluginError: the operation failed; the class says how.
        BadAnswerError: the answer breaks the protocol.
    """
    try:
        payload = codec.unpack(answer.payload)
    except PayloadTooLargeError as error:
        text = f"The result of {plugin}.{operation} is too large for the host: {error}."
        remedy = "Return fewer elements, or bytes instead of lists of numbers."
        raise MessageTooLargeError(text, plugin=plugin, remedy=remedy) from None
    except PayloadError as error:
        raise BadAnswerError(str(error)) from None
    if isinstance(answer, Result):
        return payload
    if not isinstance(answer, Failure) or not isinstance(payload, dict):
        text = f"{type(answer).__name__} is no answer to a call"
        raise BadAnswerError(text)
    raise failure(plugin, operation, answer.code, payload)


def failure(plugin: str, operation: str, code: str, told: dict[str, Any]) -> PluginError:
    """Return the error for a failure that the plugin reported with ``code``."""
    message = clean(told.get("message"), _MAX_MESSAGE)
    what = f"{plugin}.{operation}"
    simple = {
        "no-such-operation": (NoSuchOperationError, f"{plugin}: {message}."),
        "not-serializable": (NotSerializableError, f"{message}."),
        "message-too-large": (MessageTooLargeError, f"{message}."),
    }
    if code in simple:
        kind, text = simple[code]
        return kind(text, plugin=plugin)
    place = clean(told.get("place"), _MAX_PLACE)
    type_name = clean(told.get("type"), 200)
    at = f" at {place}" if place else ""
    return OperationError(
        f"{what} raised {type_name or 'an error'}{at}: {message}",
        plugin=plugin,
        type_name=type_name,
        traceback_text=clean(told.get("traceback"), _MAX_TRACEBACK, keep="\n\t"),
    )


def excess_of(
    plugin: str, operation: str, code: str, told: dict[str, Any], limits: Limits, used: float | None
) -> BudgetExceededError | None:
    """Return the budget that a reported failure is about, or None if it is about none.

    Args:
        plugin: the plugin's identity.
        operation: what was called.
        code: the failure's code.
        told: the failure's payload.
        limits: the budgets in force.
        used: what the host itself saw of the resource, or None.
    """
    place = clean(told.get("place"), _MAX_PLACE)
    at = f" at {place}" if place else ""
    what = f"{plugin}.{operation}"
    if code == "descriptors":
        return BudgetExceededError(
            f"{what} ran out of file descriptors{at}: {limits.descriptors} may be open.",
            plugin=plugin,
            budget="descriptors",
            limit=limits.descriptors,
            used=used,
            unit="descriptors",
            place=place,
            ended=False,
            remedy='Close what is no longer needed, or raise "limits": {"descriptors": …}.',
        )
    if code == "memory":
        return BudgetExceededError(
            f"{what} ran out of memory{at}: the budget is {limits.memory_bytes} bytes.",
            plugin=plugin,
            budget="memory",
            limit=limits.memory_bytes,
            used=used,
            unit="bytes",
            place=place,
            ended=False,
            remedy='Work in smaller pieces, or raise "limits": {"memory": …}.',
        )
    return None


def too_late(
    plugin: str, operation: str, allowed: float, used: float, *, ended: bool, place: str, why: str
) -> DeadlineExceededError:
    """Return the error of a call that missed its deadline."""
    at = f" at {place}" if place else ""
    end = "its plugin was ended" if ended else "the plugin goes on"
    return DeadlineExceededError(
        f"{plugin}.{operation} {why}{at} and missed its deadline of {allowed:.3g} s; {end}.",
        plugin=plugin,
        budget="wall_time",
        limit=allowed,
        used=used,
        unit="seconds",
        place=place,
        ended=ended,
    )

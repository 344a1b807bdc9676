"""What passes over a control socket: one request, then answers until the last one.

A connection is for one request: ``{"operation": ..., "arguments": {...}}``. Answers are objects
with one key: ``item`` (of a stream, any number), ``alive`` (nothing yet, and still at work), and,
last, ``result`` or ``error``. An error has its code, message, remedy, exit code and, where there is
one, the plugin it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sandbox_host.errors import ControlError, PluginError, RemoteError, SandboxHostError
from sandbox_host.reading import BadValueError, check_keys, read_object, read_text, read_whole

ALIVE_SECONDS: Final = 2.0
"""At most so long says a service nothing while it works on a request."""

ANSWER_SECONDS: Final = 15.0
"""So long a client waits for the next word: some ten times as long as it takes."""

_MAX_NAME: Final = 64
_MAX_TEXT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants.

    Attributes:
        operation: a name in `operations`.
        arguments: by name; that operation reads them strictly.
    """

    operation: str
    arguments: Mapping[str, Any]


def request_of(value: object) -> Request:
    """Return the request that a client sent.

    Raises:
        ControlError: it is none.
    """
    try:
        table = read_object(value, "")
        check_keys(table, "", ("operation", "arguments"), ("operation", "arguments"))
        operation = read_text(table["operation"], "operation", limit=_MAX_NAME)
        return Request(operation, read_object(table["arguments"], "arguments"))
    except BadValueError as error:
        text = f"The request is not understood: {error}."
        raise ControlError(text, remedy="Are service and command of one version?") from None


def error_document(error: SandboxHostError, exit_code: int) -> dict[str, Any]:
    """Return an error as it crosses the socket."""
    return {
        "code": error.code,
        "message": error.message[:_MAX_TEXT],
        "remedy": error.remedy[:_MAX_TEXT],
        "exit_code": int(exit_code),
        "plugin": error.plugin if isinstance(error, PluginError) else "",
    }


def error_of(value: object) -> ControlError:
    """Return the error that a service answered with, to be raised."""
    keys = ("code", "message", "remedy", "exit_code", "plugin")
    try:
        told = read_object(value, "error")
        check_keys(told, "error", keys, keys)
        code, message, remedy, plugin = (
            read_long(told[key], key) for key in ("code", "message", "remedy", "plugin")
        )
        exit_code = read_whole(told["exit_code"], "exit_code", 0, 255)
    except BadValueError as error:
        return ControlError(f"The service's error is not understood: {error}.")
    return RemoteError(message, code=code, exit_code=exit_code, plugin=plugin, remedy=remedy)


def read_long(value: object, path: str) -> str:
    """Return `value` if it is text; it may have several lines, and is escaped where it is shown.

    Raises:
        BadValueError: it is none, or too long.
    """
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise BadValueError(path, f"expected text of at most {_MAX_TEXT} characters")
    return value

"""A command's end of the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugin_sdk.wire.errors import PayloadError
from sandbox_host.errors import ControlError, UsageError
from sandbox_host.service import frames
from sandbox_host.service.place import connect
from sandbox_host.service.protocol import ANSWER_SECONDS, error_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator, Iterator
    from pathlib import Path

_STUCK = "It says nothing for {:g} s: look at its log, or restart it."


def ask(state_dir: Path, operation: str, /, **arguments: Any) -> Any:
    """Return what the service with this state directory answers.

    Args:
        state_dir: of the service.
        operation: a name in `operations`.
        arguments: of the operation.

    Raises:
        RemoteError: the service refused, or failed.
        ControlError: there is no service, or it cannot be understood.
        UsageError: the arguments cannot be sent.
    """
    *_, last = _answers(state_dir, operation, arguments)
    return last["result"]


def stream(state_dir: Path, operation: str, /, **arguments: Any) -> Generator[Any, None, None]:
    """Yield the items of a stream, until the service ends it or the iterator is closed.

    It is asked for when the first item is.

    Raises:
        RemoteError, ControlError, UsageError: as `ask`.
    """
    for answer in _answers(state_dir, operation, arguments):
        if "item" in answer:
            yield answer["item"]


def _answers(
    state_dir: Path, operation: str, arguments: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield items, and last the result."""
    with connect(state_dir) as connection:
        try:
            request = {"operation": operation, "arguments": arguments}
            frames.send(connection, request, frames.REQUEST, ANSWER_SECONDS)
        except PayloadError as error:
            text = f"That cannot be sent to the service: {error}."
            raise UsageError(text, remedy="Send less, or something simpler.") from None
        except frames.FrameError:
            pass  # it turned us away, and said why
        while True:
            answer = _next(connection)
            if "error" in answer:
                raise error_of(answer["error"])
            if "alive" not in answer:
                yield answer
            if "result" in answer:
                return


def _next(connection: socket.socket) -> dict[str, Any]:
    try:
        answer = frames.receive(connection, frames.ANSWER, ANSWER_SECONDS)
    except frames.Closed:
        text = "The service ended, or hung up, before it had answered."
        raise ControlError(text, remedy="`sandbox-host status` tells which.") from None
    except frames.FrameError as error:
        text = f"The service's answer did not come: {error}."
        raise ControlError(text, remedy=_STUCK.format(ANSWER_SECONDS)) from None
    if not isinstance(answer, dict) or len(answer) != 1:
        text = "The service's answer is not understood."
        raise ControlError(text, remedy="Are service and command of one version?")
    return answer

"""What is said at a lock-down: the order goes to the child, and its report comes back."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.messages import Confined, Failed
from plugin_sdk.wire.versions import (
    NO_COMMON_VERSION,
    OURS,
    common_version,
    mismatch,
    read_versions,
)
from sandbox_host.errors import AttestationError, ConfinementError

if TYPE_CHECKING:
    from plugin_sdk.wire.message import Message
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.linux.process import LinuxChild

_LAST_WORDS_BYTES: Final = 4_096


def exchange(child: LinuxChild, until: float) -> Message | None:
    """Write what is queued and return the first answer; None at end of stream or deadline."""
    data = child.connection.data_to_send()
    poller = select.poll()
    poller.register(child.receive_fd, select.POLLIN)
    poller.register(child.send_fd, select.POLLOUT if data else 0)
    while (left := until - time.monotonic()) > 0:
        for end, _ in poller.poll(left * 1000):
            if end == child.send_fd:
                try:
                    data = data[os.write(end, data) :]
                except BrokenPipeError:
                    return None
                poller.modify(end, select.POLLOUT if data else 0)
            elif chunk := os.read(end, READ_BYTES):
                child.connection.receive_data(chunk)
                if messages := child.connection.events_received():
                    return messages[0]
            else:
                return None
    return None


def report_of(plan: SandboxPlan, child: LinuxChild, answer: Message | None) -> dict[str, Any]:
    """Return what a child read back after its lock-down.

    Raises:
        AttestationError: it answered with nonsense.
        ConfinementError: it could not apply a layer, or did not answer.
    """
    try:
        if isinstance(answer, Confined):
            _check_versions(plan, (answer.oldest, answer.newest))
            report: dict[str, Any] = codec.unpack(answer.payload)
            return report
        if isinstance(answer, Failed):
            error = codec.unpack(answer.payload)
            if answer.code == NO_COMMON_VERSION:
                _check_versions(plan, read_versions(error.get("versions")))
            text = f"{plan.identity} was not started: {error.get('message', 'no reason given')}."
            remedy = "Run `sandbox-host doctor` to see what this machine offers."
            raise ConfinementError(text, layer=answer.code, remedy=remedy)
    except (PayloadError, RemoteProtocolError, AttributeError) as error:
        text = f"The child of {plan.identity} answered its lock-down with nonsense: {error}."
        raise AttestationError(text) from error
    text = (
        f"The child of {plan.identity} did not report its lock-down"
        f"{_last_words(child)}{_held(child)}. "
        "It was killed before it imported anything."
    )
    raise ConfinementError(text, layer="process")


def _check_versions(plan: SandboxPlan, theirs: tuple[int, int] | None) -> None:
    if theirs is None or common_version(OURS, theirs) is not None:
        return
    text = f"{plan.identity} was not started: {mismatch(OURS, theirs)}."
    remedy = "Use the host and the plugin's runtime of one release."
    raise ConfinementError(text, layer=NO_COMMON_VERSION, remedy=remedy)


def _held(child: LinuxChild) -> str:
    at_limit = child.group is not None and child.group.at_memory_limit()
    return "; its control group has no memory left for it" if at_limit else ""


def _last_words(child: LinuxChild) -> str:
    """Return what the trusted child said on its standard error, for the operator."""
    try:
        words = os.read(child.log_fds[1], _LAST_WORDS_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"; it said: {words}" if words else ""

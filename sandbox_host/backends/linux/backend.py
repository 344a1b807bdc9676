"""Linux, in order: spawn, compile, confine, attest. Nothing here is a mechanism."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, RemoteProtocolError
from plugin_sdk.wire.limits import PROTOCOL_VERSION, READ_BYTES
from plugin_sdk.wire.messages import Confine, Confined, Failed, Message
from sandbox_host.backends.linux import probe
from sandbox_host.backends.linux.attest import attest
from sandbox_host.backends.linux.compile import compile_plan, environment
from sandbox_host.backends.linux.process import LinuxChild, spawn
from sandbox_host.errors import AttestationError, ConfinementError
from sandbox_host.model import LayerReport, LayerStatus, Receipt

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Child, Places

_DYING_SECONDS: Final = 2.0
_LAST_WORDS_BYTES: Final = 4_096


class LinuxBackend:
    """Confinement on Linux."""

    name = "linux"

    def __init__(self) -> None:
        self._machine = probe.probe()

    def offers(self) -> tuple[LayerReport, ...]:
        """Return what this machine offers, layer by layer."""
        return probe.offers(self._machine)

    def start(self, plan: SandboxPlan, places: Places, timeout: float) -> tuple[Child, Receipt]:
        """Start a confined, attested child that has imported nothing of the plugin.

        Raises:
            AttestationError: what is in force is not what was planned; the child was killed.
            ConfinementError: a layer could not be applied, or the child did not come up in
                ``timeout`` seconds; it was killed.
        """
        try:
            child = spawn(places)
        except OSError as error:
            text = f"The process for {plan.identity} could not be started: {error}."
            raise ConfinementError(text, layer="process") from error
        try:
            compiled = compile_plan(plan, places, self._machine, child.pid, child.keep)
            child.connection.send(Confine(PROTOCOL_VERSION, payload=codec.pack(compiled)))
            answer = _exchange(child, time.monotonic() + timeout)
            report = _report(plan, child, answer)
            missing = tuple(r for r in self.offers() if r.status is not LayerStatus.ACTIVE)
            receipt = attest(plan, child.pid, compiled, environment(places), report, missing)
        except BaseException:
            child.kill()
            child.wait(_DYING_SECONDS)
            child.close()
            raise
        return child, receipt


def _exchange(child: LinuxChild, until: float) -> Message | None:
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


def _report(plan: SandboxPlan, child: LinuxChild, answer: Message | None) -> dict[str, Any]:
    try:
        if isinstance(answer, Confined) and answer.version == PROTOCOL_VERSION:
            report: dict[str, Any] = codec.unpack(answer.payload)
            return report
        if isinstance(answer, Failed):
            error = codec.unpack(answer.payload)
            text = f"{plan.identity} was not started: {error.get('message', 'no reason given')}."
            remedy = "Run `sandbox-host doctor` to see what this machine offers."
            raise ConfinementError(text, layer=answer.code, remedy=remedy)
    except (PayloadError, RemoteProtocolError, AttributeError) as error:
        text = f"The child of {plan.identity} answered its lock-down with nonsense: {error}."
        raise AttestationError(text) from error
    text = (
        f"The child of {plan.identity} did not report its lock-down{_last_words(child)}. "
        "It was killed before it imported anything."
    )
    raise ConfinementError(text, layer="process")


def _last_words(child: LinuxChild) -> str:
    """Return what the trusted child said on its standard error, for the operator."""
    try:
        words = os.read(child.log_fds[1], _LAST_WORDS_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"; it said: {words}" if words else ""

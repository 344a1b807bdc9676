"""A backend without processes: the child is a script in a thread, over the same kind of pipes.

It never imports a plugin. What a real child could only be made to do with luck (to answer out of
order, to crash at a certain byte, to report any resource use) a script does by saying so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Call,
    Confine,
    Confined,
    Deliver,
    DeliverMany,
    Failure,
    Handled,
    Load,
    Ready,
    Result,
    Stop,
    Stopped,
)
from plugin_sdk.wire.versions import OURS
from sandbox_host.backends.base import Exit, Sample
from sandbox_host.errors import ConfinementError
from sandbox_host.guarantees import standing
from sandbox_host.model import Enforced, Layer, LayerReport, LayerStatus, Receipt

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Places

SIGKILL = 9


class PeerEndedError(Exception):
    """The host killed this peer, or it ended itself: the script is over."""


class Peer:
    """The plugin's end of the pipes, for a script.

    Attributes:
        cpu, resident, threads, descriptors, held: what the host is told when it looks; held at
            the memory limit.
        dump: what is written to the trace pipe when the host asks for stacks.
        interrupted: set when the host asked the operation to end.
        fault: raised by the next look at the process: a fault of the host's own.
    """

    def __init__(self, connection: Connection, identity: str) -> None:
        self.identity = identity
        self.cpu = 0.0
        self.resident = 1 << 20
        self.threads = 1
        self.descriptors = 6
        self.held = False
        self.dump = b""
        self.interrupted = threading.Event()
        self.fault: Exception | None = None
        self.exit: Exit | None = None
        self._connection = connection
        self._received: list[Message] = []
        self._lock = threading.Lock()
        (self.in_fd, self.host_send), (self.host_receive, self.out_fd) = os.pipe(), os.pipe()
        (self.host_out, self.out1), (self.host_err, self.err) = os.pipe(), os.pipe()
        (self.host_trace, self.trace), (self.host_exit, self.alive) = os.pipe(), os.pipe()
        self._stop_read, self._stop_write = os.pipe()
        self._own = [self.in_fd, self.out_fd, self.out1, self.err, self.trace, self.alive]

    def receive(self) -> Message | None:
        """Return the next message of the host, or None at the end of the stream.

        Raises:
            PeerEndedError: it was killed.
        """
        while not self._received:
            readable, _, _ = select.select([self.in_fd, self._stop_read], [], [], 20)
            if not readable or self._stop_read in readable:
                raise PeerEndedError
            data = os.read(self.in_fd, READ_BYTES)
            if not data:
                return None
            self._connection.receive_data(data)
            self._received = self._connection.events_received()
        return self._received.pop(0)

    def send(self, message: Message) -> None:
        """Send a message that the protocol allows now."""
        self._connection.send(message)
        self.write(self._connection.data_to_send())

    def write(self, data: bytes, descriptor: int | None = None) -> None:
        """Write any bytes, to the protocol unless another descriptor of the peer is named."""
        end = self.out_fd if descriptor is None else descriptor
        os.set_blocking(end, False)
        while data:
            _, writable, _ = select.select([], [end], [], 0.05)
            if self.exit is not None:
                raise PeerEndedError
            if writable:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(end, data) :]

    def sleep(self) -> None:
        """Do nothing until the host kills it.

        Raises:
            PeerEndedError: always, in the end.
        """
        select.select([self._stop_read], [], [], 20)
        raise PeerEndedError

    def finish(self, code: int | None = None, signal: int | None = None) -> None:
        """End, in the given way; the first way counts."""
        with self._lock:
            if self.exit is not None:
                return
            self.exit = Exit(code, signal, self.cpu, self.resident)
            os.write(self._stop_write, b"x")

    def close(self) -> None:
        """Close the peer's ends; the one that stands for its life last."""
        for end in self._own:
            os.close(end)
        for end in (self._stop_read, self._stop_write):
            os.close(end)


Script = Callable[[Peer], object]


class FakeChild:
    """The host's end of a `Peer`; see `sandbox_host.backends.base.Child`."""

    def __init__(self, peer: Peer, connection: Connection, pid: int, thread: Any) -> None:
        self.pid = pid
        self.connection = connection
        self.peer = peer
        self.receive_fd, self.send_fd = peer.host_receive, peer.host_send
        self.log_fds = (peer.host_out, peer.host_err)
        self.desk = self.clock = None
        self.trace_fd, self.exit_fd = peer.host_trace, peer.host_exit
        self._thread = thread
        self._closed = False
        self._reaped = False
        for end in (self.receive_fd, self.send_fd, *self.log_fds, self.trace_fd):
            os.set_blocking(end, False)

    def give_way(self, on: bool) -> None:
        self.gives_way = on

    def cpu_seconds(self) -> float:
        """Return what the script says."""
        return self.peer.cpu

    def sample(self) -> Sample | None:
        """Return what the script says, or raise what it says."""
        peer = self.peer
        if peer.exit is not None:
            return None
        if peer.fault is not None:
            raise peer.fault
        used = (peer.resident, peer.resident, peer.cpu, peer.threads, peer.descriptors)
        return Sample(*used, at_memory_limit=peer.held)

    def unlinked_bytes(self, device: int) -> int:
        """Return nothing."""
        del device
        return 0

    def suspend(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing runs."""

    def ask_for_stacks(self) -> None:
        """Write the peer's dump where the host looks for it."""
        with contextlib.suppress(OSError):  # it may be ending at this moment
            if self.peer.dump and self.peer.exit is None:
                os.write(self.peer.trace, self.peer.dump)

    def interrupt(self) -> None:
        """Tell the script."""
        self.peer.interrupted.set()

    def kill(self) -> None:
        """End the peer as SIGKILL would."""
        self.peer.finish(signal=SIGKILL)

    def wait(self, timeout: float) -> Exit | None:
        """Return how the peer ended."""
        self._thread.join(max(0.0, timeout))
        return None if self._thread.is_alive() else self.peer.exit

    def close(self) -> None:
        """Close the host's ends."""
        if self._closed:
            return
        self._closed = True
        for end in (self.receive_fd, self.send_fd, *self.log_fds, self.trace_fd, self.exit_fd):
            os.close(end)


class FakeBackend:
    """Starts peers that run ``script``; see `sandbox_host.backends.base.Backend`.

    Args:
        script: what every child does, from `Load` on; it may look at ``peer.identity``.
        missing: layers that this machine pretends to lack.
        disabled: layers that the operator switched off, as a backend learns from its options.
        unapplied: layers that are offered, and that are not in force all the same.
        refuses: the child cannot be confined.

    Attributes:
        children: all that were started, in order.
        closed: how often `close` was called.
    """

    name = "fake"

    def __init__(
        self,
        script: Script,
        *,
        missing: tuple[Layer, ...] = (),
        disabled: tuple[Layer, ...] = (),
        unapplied: tuple[Layer, ...] = (),
        refuses: bool = False,
    ) -> None:
        self._script = script
        self._missing = missing
        self._disabled = disabled
        self._unapplied = unapplied
        self.closed = 0
        self._refuses = refuses
        self._pids = itertools.count(1 << 22)  # above the kernel's largest
        self.children: list[FakeChild] = []

    def offers(self) -> tuple[LayerReport, ...]:
        """Return every layer as active but the missing and the disabled ones."""
        status = {
            **dict.fromkeys(self._missing, LayerStatus.UNAVAILABLE),
            **dict.fromkeys(self._disabled, LayerStatus.DISABLED),
        }
        return tuple(
            LayerReport(layer, status.get(layer, LayerStatus.ACTIVE), "pretended")
            for layer in Layer
            if layer is not Layer.WATCHDOG
        )

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def start(self, plan: SandboxPlan, places: Places, timeout: float) -> tuple[FakeChild, Receipt]:
        """Start the script in a thread, after a handshake in memory."""
        if self._refuses or timeout <= 0:
            text = f"The child of {plan.identity} did not report its lock-down."
            raise ConfinementError(text, layer="process")
        host, plugin = Connection(HOST), Connection(PLUGIN)
        host.send(Confine(*OURS, payload=pack({})))
        plugin.receive_data(host.data_to_send())
        plugin.events_received()
        plugin.send(Confined(*OURS, payload=pack({})))
        host.receive_data(plugin.data_to_send())
        host.events_received()
        peer = Peer(plugin, plan.identity)
        thread = threading.Thread(target=self._run, args=(peer,), name="fake-child")
        child = FakeChild(peer, host, next(self._pids), thread)
        self.children.append(child)
        thread.start()
        return child, self._receipt(plan, child.pid)

    def _receipt(self, plan: SandboxPlan, pid: int) -> Receipt:
        # What is offered and not applied was switched off, by the plan or behind its back.
        off = {*Layer} - {*plan.layers} | {*self._unapplied}
        reports = tuple(
            replace(offer, status=LayerStatus.DISABLED)
            if offer.layer in off and offer.status is LayerStatus.ACTIVE
            else offer
            for offer in self.offers()
        )
        active = [r.layer for r in reports if r.status is LayerStatus.ACTIVE]
        return Receipt(
            plan.identity,
            pid,
            reports,
            standing(active),
            (Enforced("descriptors", str(plan.limits.descriptors), "pretended"),),
            (Enforced("native_code", "no", "pretended"),),
        )

    def _run(self, peer: Peer) -> None:
        try:
            self._script(peer)
        except (PeerEndedError, BrokenPipeError):
            pass
        finally:
            peer.finish(code=0)
            peer.close()


# -- scripts --------------------------------------------------------------------------------------


def ready(*operations: str, handles: tuple[str, ...] = (), **more: Any) -> Ready:
    """Return the message of a plugin that has loaded; ``more`` are keys of its payload."""
    payload = {
        "metadata": {},
        "operations": [{"name": name, "kind": "operation"} for name in operations],
        "handles": list(handles),
        "kind": None,
        "warnings": [],
        **more,
    }
    return Ready(payload=pack(payload))


def become_ready(peer: Peer, *operations: str, **more: Any) -> None:
    """Take `Load` and answer that all is well.

    Raises:
        PeerEndedError: the host closed its end instead.
    """
    message = peer.receive()
    if message is None:
        raise PeerEndedError
    assert isinstance(message, Load)
    peer.send(ready(*operations, **more))


def next_call(peer: Peer) -> Call:
    """Take the next message, which must be a call."""
    message = peer.receive()
    assert isinstance(message, Call)
    return message


def serve(peer: Peer) -> None:
    """Answer calls with their first argument, and stop when told to: an ordinary plugin."""
    while (message := peer.receive()) is not None:
        if isinstance(message, Call):
            args, _ = unpack(message.payload)
            peer.send(Result(message.id, payload=pack(args[0] if args else None)))
        elif isinstance(message, Deliver | DeliverMany):
            peer.send(Handled(message.id, True, payload=pack({"errors": []})))
        elif isinstance(message, Stop):
            peer.send(Stopped(payload=pack({"ok": True, "error": None})))
            return


def ordinary(peer: Peer) -> None:
    """A plugin with the operation ``echo`` that does nothing wrong."""
    become_ready(peer, "echo")
    serve(peer)


def failure(call: Call, code: str, **told: Any) -> Failure:
    """Return the message of an operation that failed."""
    details = {"type": "", "message": "", "traceback": "", "place": "", **told}
    return Failure(call.id, code, payload=pack(details))

"""The child's end of the two protocol pipes: one blocking reader, any number of writers."""

from __future__ import annotations

import os
import sys
from _thread import RLock
from time import monotonic_ns

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.messages import PLUGIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from plugin_sdk.wire.messages import Message

# How long to poll before blocking, in nanoseconds. A wake-up on another CPU costs about 30 µs, so
# two processes that block on each other take 80 µs a round trip and 5 µs when the reader polls.
# Yielding between the polls keeps it harmless where CPUs are scarce.
POLL_NS = 50_000

_yield_cpu = getattr(os, "sched_yield", lambda: None)


def flush_output() -> None:
    """Bring what the plugin printed to the log before the answer that it led to."""
    _flush(sys.stdout)
    _flush(sys.stderr)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except BaseException:  # noqa: BLE001 - the plugin may have put anything in its place
        return


class ChildChannel:
    """Messages over two descriptors.

    Args:
        in_fd: read end of the pipe from the host. It is made non-blocking, and blocking again for
            the time of a wait; the host's end of the pipe is not affected.
        out_fd: write end of the pipe to the host, blocking.
    """

    def __init__(self, in_fd: int, out_fd: int) -> None:
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._connection = Connection(PLUGIN)
        self._received: list[Message] = []
        # Guards the connection, which threads of the plugin share when they publish. Reentrant:
        # a signal handler or finalizer of the plugin may publish in the middle of a send.
        self._lock = RLock()
        self._writing = False
        os.set_blocking(in_fd, False)

    @property
    def sending(self) -> bool:
        """The calling thread is inside `send`: an exception raised now would cut a frame."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - as threading does
        return owned

    def receive(self) -> Message | None:
        """Return the next message, waiting for it; None when the host closed its end.

        Raises:
            RemoteProtocolError: the host broke the protocol.
        """
        while not self._received:
            data = self._read()
            if not data:
                return None
            with self._lock:
                try:
                    self._connection.receive_data(data)
                except RemoteProtocolError:
                    # What came before the fault does not matter: this process is about to end.
                    self._received.clear()
                    raise
                self._received = self._connection.events_received()
                self._received.reverse()
        return self._received.pop()

    def send(self, message: Message) -> None:
        """Send a message whole, from any thread.

        Raises:
            LocalProtocolError: the session does not allow it now.
            OSError: the host is gone.
        """
        with self._lock:
            self._connection.send(message)
            if self._writing:
                return  # re-entered: the outer call writes it after its own frame
            self._writing = True
            try:
                while data := self._connection.data_to_send():
                    self._write(data)
            finally:
                self._writing = False

    def _read(self) -> bytes:
        """Poll for a moment, then block."""
        until = monotonic_ns() + POLL_NS
        while True:
            try:
                return os.read(self._in_fd, READ_BYTES)
            except BlockingIOError:
                if monotonic_ns() > until:
                    break
            _yield_cpu()
        os.set_blocking(self._in_fd, True)
        try:
            return os.read(self._in_fd, READ_BYTES)
        finally:
            os.set_blocking(self._in_fd, False)

    def _write(self, data: bytes) -> None:
        written = os.write(self._out_fd, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(self._out_fd, rest) :]

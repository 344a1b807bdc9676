"""The host's end of a child's pipes, and packages to load, for tests of `plugin_sdk.child`."""

from __future__ import annotations

import os
import select
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plugin_sdk.child.loader import LoadOrder
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.message import HOST, Message
from plugin_sdk.wire.messages import Call, Deliver, DeliverMany

PATIENCE_MS = 20_000

HOOKS = """
def init_plugin():
    return True

def get_metadata():
    return {"name": "sample"}
"""


class HostEnd:
    """A host in a few lines: sends, and waits for what comes back."""

    def __init__(self, receive_fd: int, send_fd: int) -> None:
        self.connection = Connection(HOST)
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        self._received: list[Message] = []
        self._last_id = 0

    def send(self, message: Message) -> None:
        """Send one message."""
        self.connection.send(message)
        os.write(self.send_fd, self.connection.data_to_send())

    def receive(self) -> Message | None:
        """Return the next message, or None at the end of the stream."""
        poller = select.poll()
        poller.register(self.receive_fd, select.POLLIN)
        while not self._received:
            assert poller.poll(PATIENCE_MS), "the child did not answer"
            data = os.read(self.receive_fd, READ_BYTES)
            if not data:
                self.connection.receive_eof()
                return None
            self.connection.receive_data(data)
            self._received = self.connection.events_received()
        return self._received.pop(0)

    def call(self, operation: str, *args: Any, **kwargs: Any) -> tuple[Message, Any]:
        """Call an operation; return the answer and its unpacked payload."""
        return self.call_raw(operation, pack([list(args), kwargs]))

    def call_raw(self, operation: str, payload: bytes, deadline_ns: int = 0) -> tuple[Message, Any]:
        """The same, with a payload that need not be one."""
        self._last_id += 1
        self.send(Call(self._last_id, operation, deadline_ns, payload=payload))
        answer = self.receive()
        assert answer is not None
        return answer, unpack(answer.payload)

    def deliver(self, event_type: str, payload: bytes) -> None:
        """Deliver an event."""
        self._last_id += 1
        self.send(Deliver(self._last_id, event_type, payload=payload))

    def deliver_many(self, event_type: str, payload: bytes, events: int) -> None:
        """Deliver events in one message."""
        self._last_id += 1
        self.send(DeliverMany(self._last_id, event_type, events, payload=payload))


@contextmanager
def pipes(count: int = 2) -> Iterator[list[tuple[int, int]]]:
    """Yield pipes as ``(read end, write end)``; close what is still open of them afterwards."""
    ends = [os.pipe() for _ in range(count)]
    owned = [os.fstat(end).st_ino for pair in ends for end in pair]
    try:
        yield ends
    finally:
        for end, inode in zip([end for pair in ends for end in pair], owned, strict=True):
            try:
                if os.fstat(end).st_ino == inode:
                    os.close(end)
            except OSError:
                continue


def write_package(directory: Path, files: Mapping[str, str], identity: str = "sample") -> Path:
    """Write a plugin's package below ``directory`` and return its path."""
    package = directory / identity
    package.mkdir()
    for name, source in files.items():
        path = package / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
    return package


def order_for(package: Path, **changes: Any) -> LoadOrder:
    """Return the order to load a package."""
    return LoadOrder(order_payload(package, **changes))


def order_payload(package: Path, **changes: Any) -> dict[str, Any]:
    """Return the payload of the message that asks for a package to be loaded."""
    payload: dict[str, Any] = {
        "identity": package.name,
        "package_dir": str(package),
        "sys_path": [],
        "config": {},
        "data_dir": str(package.parent),
        "scratch_dir": str(package.parent),
        "events": [],
        "publish": [],
    }
    return payload | changes

"""A `Channel` over pipes, with the plugin's end in the test's hands."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.limits import READ_BYTES
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import Call, Confine, Confined, Load, Ready
from plugin_sdk.wire.versions import OURS
from sandbox_host.budget.rate import MessageRate
from sandbox_host.ipc.calls import Pending
from sandbox_host.ipc.channel import Channel
from sandbox_host.model import Limits


class Counting(MessageRate):
    """The pace of every plugin, and how much it was told of."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.counted = 0

    def take(self, count: int, size: int, now: float) -> None:
        self.counted += count
        super().take(count, size, now)


class Line:
    """A channel to a plugin that is ready, and what the channel reported.

    Attributes:
        channel: what is tested.
        plugin: the protocol at the plugin's end.
        pace: counts what answers nothing.
        messages, parts, answered, broken, watched: what its callbacks got.
    """

    def __init__(self, max_unsent_bytes: int = 1 << 20) -> None:
        host, self.plugin = _ready_pair()
        self.to_plugin, self._send_fd = os.pipe()
        self._receive_fd, self.from_plugin = os.pipe()
        for end in (self._send_fd, self._receive_fd, self.to_plugin):
            os.set_blocking(end, False)
        self.pace = Counting()
        self.messages: list[Message] = []
        self.parts: list[tuple[Pending, Message]] = []
        self.answered: list[Pending] = []
        self.broken: list[Exception | None] = []
        self.watched: list[bool] = []
        self._numbers = iter(range(1, 1 << 30))
        self.channel = Channel(
            host,
            self._receive_fd,
            self._send_fd,
            max_unsent_bytes=max_unsent_bytes,
            pace=self.pace,
            on_message=self.messages.append,
            on_part=lambda pending, message: self.parts.append((pending, message)),
            on_room=lambda: None,
            on_answered=lambda pending, _: self.answered.append(pending),
            on_broken=self.broken.append,
            rearm=self.watched.append,
        )

    def call(self, payload: bytes = b"\xc0") -> Pending:
        """Send a call."""
        number = next(self._numbers)
        pending = Pending(number, "echo", time.monotonic() + 60, time.monotonic())
        assert self.channel.send(Call(number, "echo", 0, payload=payload), pending)
        return pending

    def receive(self) -> list[Message]:
        """Return what arrived at the plugin's end by now."""
        while select.select([self.to_plugin], [], [], 0)[0]:
            data = os.read(self.to_plugin, READ_BYTES)
            if not data:
                break
            self.plugin.receive_data(data)
        return self.plugin.events_received()

    def answer(self, message: Message) -> None:
        """Send from the plugin's end."""
        self.plugin.send(message)
        os.write(self.from_plugin, self.plugin.data_to_send())

    def hang_up(self) -> None:
        """Close the plugin's end."""
        if self.from_plugin >= 0:
            os.close(self.from_plugin)
            self.from_plugin = -1

    def close(self) -> None:
        """Close everything."""
        self.hang_up()
        for end in (self.to_plugin, self._send_fd, self._receive_fd):
            os.close(end)


def _ready_pair() -> tuple[Connection, Connection]:
    host, plugin = Connection(HOST), Connection(PLUGIN)
    steps: list[tuple[Connection, Connection, Message]] = [
        (host, plugin, Confine(*OURS)),
        (plugin, host, Confined(*OURS)),
        (host, plugin, Load()),
        (plugin, host, Ready()),
    ]
    for sender, receiver, message in steps:
        sender.send(message)
        receiver.receive_data(sender.data_to_send())
        receiver.events_received()
    return host, plugin


@contextmanager
def line(**options: Any) -> Iterator[Line]:
    """Yield a line that is closed afterwards."""
    made = Line(**options)
    try:
        yield made
    finally:
        made.close()


def in_thread(function: Any, *arguments: Any) -> threading.Thread:
    """Run a function in a thread, started."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread

"""Both sides of a call in one thread: nobody waits, so that what it costs can be counted."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from plugin_sdk.child.faults import Faults
from plugin_sdk.child.io import ChildChannel
from plugin_sdk.child.loop import Loop
from plugin_sdk.child.running import Runner
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.state import RUNNING
from sandbox_host import BlockingPlugin
from sandbox_host.backends.linux.process import LinuxChild
from sandbox_host.budget.ledger import Ledger
from sandbox_host.budget.rate import MessageRate
from sandbox_host.model import Limits
from sandbox_host.runtime.conversation import Conversation
from sandbox_host.runtime.watch import Watch

_IDENTITY = "echo"


class _Party:
    """A plugin's process that is ready, and of which nothing else is asked."""

    takes_calls = True
    operations = (_IDENTITY,)
    held_seconds = 0.0

    def check_ready(self) -> None:
        pass

    def rearm(self, _for_room: bool) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def unexpected(*_: object) -> None:
            message = f"{name} is no part of the path of a call"
            raise AssertionError(message)

        return unexpected


class _OneAtATime(ChildChannel):
    """Its loop ends after each message."""

    def __init__(self, in_fd: int, out_fd: int) -> None:
        super().__init__(in_fd, out_fd)
        self.due = 0

    def receive(self, poll_ns: int = 0) -> Message | None:
        if not self.due:
            return None
        self.due -= 1
        return super().receive(poll_ns)


class BothSides:
    """A host's plugin and the plugin's loop, with the real code between them."""

    def __init__(self, down: tuple[int, int], up: tuple[int, int], pidfd: int) -> None:
        limits, ledger = Limits(), Ledger()
        manifest = SimpleNamespace(concurrency=1, version="1.0.0")
        plan: Any = SimpleNamespace(
            identity=_IDENTITY, limits=limits, manifest=manifest, permissions=None
        )
        child = LinuxChild(os.getpid(), pidfd, up[0], down[1], (-1, -1), -1, -1)
        party: Any = _Party()
        self.talk = Conversation(
            plan,
            child,
            party,
            ledger=ledger,
            watch=Watch(child, limits, ledger, 0.02),
            rate=MessageRate(limits),
            max_outstanding=1_000,
        )
        child.connection.state = RUNNING
        process: Any = SimpleNamespace(
            plan=plan, talk=self.talk, channel=self.talk.channel, identity=_IDENTITY
        )
        self.plugin = BlockingPlugin(process)
        interface = SimpleNamespace(operations={"echo": lambda value: value}, handlers={})
        loaded: Any = SimpleNamespace(interface=interface, hooks={})
        self._channel = _OneAtATime(down[0], up[1])
        self._channel._connection.state = RUNNING
        faults = Faults(str(Path("/nowhere")))
        self._loop = Loop(self._channel, Runner(self._channel, loaded, faults), faults)

    def call(self, value: Any) -> Any:
        """Return what ``echo(value)`` returns."""
        _, pending = self.plugin._begin("echo", (value,), {}, None, None)
        self._channel.due = 1
        self._loop.run()
        self.talk.channel.wait(pending)
        return self.talk.result(pending)


@contextmanager
def both_sides() -> Iterator[BothSides]:
    """Yield both sides, joined by pipes."""
    down, up, pidfd = os.pipe(), os.pipe(), os.pidfd_open(os.getpid())
    for end in (down[1], up[0]):
        os.set_blocking(end, False)
    handler = signal.getsignal(signal.SIGUSR2)
    try:
        yield BothSides(down, up, pidfd)
    finally:
        signal.signal(signal.SIGUSR2, handler)
        for end in (*down, *up, pidfd):
            os.close(end)


def functions_called(work: Callable[[], object]) -> int:
    """Return how many functions of Python and C were called for ``work``."""
    count = 0

    def tick(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def reads_and_writes(work: Callable[[], object]) -> tuple[int, int]:
    """Return how many system calls that read and that write this thread made for ``work``."""
    before = _io_counters()
    idle = _io_counters()
    work()
    after = _io_counters()
    return tuple(  # type: ignore[return-value]  # there are two
        a - i - (i - b) for b, i, a in zip(before, idle, after, strict=True)
    )


def _io_counters() -> tuple[int, int]:
    with open("/proc/thread-self/io", "rb", buffering=0) as file:
        fields = dict(line.split(b": ") for line in file.read().splitlines())
    return int(fields[b"syscr"]), int(fields[b"syscw"])


def blocks_kept(work: Callable[[], object]) -> int:
    """Return how many blocks of memory more are allocated after ``work``."""
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    gc.collect()
    return sys.getallocatedblocks() - before

"""Has an event loop read a plugin's pipe itself while its tasks wait for answers.

The keeper would do, at the price of two changes of thread for an answer. A loop that cannot watch
descriptors, or whose turn it is not, leaves it to the keeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_host.ipc.calls import Pending
    from sandbox_host.ipc.channel import Channel


class LoopReader:
    """One loop at one channel, for as long as some of its tasks wait.

    It watches a copy of the descriptor: the plugin's own may be closed meanwhile, by another
    thread, and its number be used again, without the loop's selector knowing.

    Attributes:
        loop: the event loop.
        watches: it tells of what comes.
    """

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._descriptor = os.dup(channel.receive_fd)
        self._waiting = 0
        self.loop = loop
        self.watches = False

    def enter(self) -> None:
        """One task more waits."""
        self._waiting += 1
        if not self.watches:
            try:
                self.loop.add_reader(self._descriptor, self._readable)
                self.watches = True
            except (NotImplementedError, OSError, ValueError):
                self._channel.attend()

    def leave(self) -> None:
        """One less; the last one has it closed."""
        self._waiting -= 1
        if not self._waiting:
            self._channel.reader = None
            self._stop()
            os.close(self._descriptor)
            if not self._channel.idle:
                self._channel.attend()  # others wait, who relied on this loop

    def _readable(self) -> None:
        """Read; what cannot be read here would be told of again at once, and is the keeper's."""
        if not self._channel.pump():
            self._stop()
            self._channel.attend()

    def _stop(self) -> None:
        if self.watches:
            self.watches = False
            if not self.loop.is_closed():
                self.loop.remove_reader(self._descriptor)


@contextlib.contextmanager
def reading(channel: Channel) -> Iterator[None]:
    """See to it that the channel is read while a task of the running loop waits."""
    loop = asyncio.get_running_loop()
    if channel.reader is None:
        with contextlib.suppress(OSError):  # out of descriptors, or the plugin has just gone
            channel.reader = LoopReader(channel, loop)
    reader = channel.reader
    if not isinstance(reader, LoopReader) or reader.loop is not loop:
        channel.attend()
        yield
        return
    reader.enter()
    try:
        yield
    finally:
        reader.leave()


async def finished(pending: Pending, channel: Channel) -> None:
    """Wait for a call, whatever becomes of it."""
    if pending.done():
        return
    loop = asyncio.get_running_loop()
    thread = threading.get_ident()
    future: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not future.done():  # it is, when the caller's task was cancelled
            future.set_result(None)

    def tell(_: Pending) -> None:
        if threading.get_ident() == thread:
            resolve()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(resolve)

    pending.on_done(tell)
    with reading(channel):
        await future

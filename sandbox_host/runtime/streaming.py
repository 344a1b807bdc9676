"""What a call yields, as both faces of the host show it: an iterator, and an asynchronous one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import RECEIVED
from sandbox_host.errors import MessageTooLargeError, UsageError
from sandbox_host.runtime import answers, offload
from sandbox_host.runtime.loop_reader import reading

if TYPE_CHECKING:
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.ipc.flows import Inflow
    from sandbox_host.runtime.process import PluginProcess


class StreamView:
    """A stream that a plugin yields, as far as looking at it goes.

    Attributes:
        value: what its generator returned, once it has come to its end; None before.
    """

    def __init__(self, process: PluginProcess, pending: Pending) -> None:
        self._process = process
        self._pending = pending
        self._yielded = False
        self._over = False
        self.value: Any = None
        # One that is forgotten in the middle is left like one that is closed; not from here, where
        # any lock may be held (gc).
        weakref.finalize(self, process.forgotten, pending).atexit = False

    @property
    def _inflow(self) -> Inflow:
        assert self._pending.inflow is not None  # noqa: S101 - it was begun as a stream
        return self._pending.inflow

    @property
    def progress(self) -> tuple[int, int]:
        """How much is done, and of how much (0: not known), by the plugin's own word."""
        return self._pending.progress

    def _ready(self) -> bool:
        return len(self._inflow) > 0

    def _expect(self) -> None:
        """Let the plugin's time for the next item run from now on."""
        self._process.talk.await_item(self._pending, self._process.plan.limits.wall_seconds)

    def _take(self) -> tuple[bool, bytes]:
        """Return whether there is an item, and its packed value."""
        payload = self._inflow.take()
        if payload == b"" and not self._yielded:
            self._yielded = True  # a stream without items says so, once
            payload = self._inflow.take()
        if payload is None:
            return False, b""
        self._yielded = True
        self._process.talk.rest(self._pending)
        return True, payload

    def _item(self, payload: bytes) -> Any:
        try:
            return codec.unpack(payload, RECEIVED)
        except PayloadTooLargeError as error:
            plugin = self._process.identity
            text = f"An item of {plugin}.{self._pending.operation} is too large: {error}."
            raise MessageTooLargeError(text, plugin=plugin) from None
        except PayloadError as error:
            self._process.violated(str(error))
            raise self._process.unanswered(self._pending) from None

    def _finish(self) -> None:
        """Take the end: what was returned, or what became of it.

        Raises:
            PluginError: it was not the end that its generator meant.
        """
        self._over = True
        self._inflow.close()
        self.value = self._process.talk.result(self._pending)
        if not self._yielded and self.value is not None:
            raise answers.no_stream(self._process.identity, self._pending, yields=False)

    def _leave(self) -> None:
        """Have the producer ended: nobody reads any more."""
        self._over = True
        self._inflow.close()
        self._process.talk.cancel(self._pending)


class BlockingStream(StreamView):
    """What a call yields, for ``for``. Leaving it early ends the producer.

    Use it in a ``with`` block, or `close` it, if it may not be read to its end.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Return the next item, waiting for it as long as the plugin's wall time budget lets it.

        Raises:
            StopIteration: there is none.
            PluginError: the operation failed, was too late, or its plugin has ended.
        """
        if self._over:
            raise StopIteration
        if not self._ready():
            self._expect()
            self._process.channel.wait(self._pending, self._ready)
        while not self._pending.done() or self._ready():
            there, payload = self._take()
            if there:
                return self._item(payload)
            self._expect()
            self._process.channel.wait(self._pending, self._ready)
        self._finish()
        raise StopIteration

    def close(self) -> None:
        """Read no more of it."""
        if not self._over:
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stream(StreamView):
    """What a call yields, for ``async for``. Leaving it early ends the producer.

    Use it in an ``async with`` block, or `aclose` it, if it may not be read to its end.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next item; see `BlockingStream`.

        Raises:
            StopAsyncIteration: there is none.
            PluginError: the operation failed, was too late, or its plugin has ended.
        """
        if self._over:
            raise StopAsyncIteration
        if not self._ready():
            self._expect()
            self._process.channel.poll_briefly(self._pending, self._ready)
            await self._come()
        while not self._pending.done() or self._ready():
            there, payload = self._take()
            if there:
                if len(payload) > codec.QUICK_BYTES and not codec.is_quick(payload):
                    # A hostile value takes long to decode; the loop must go on meanwhile.
                    return await offload.start(lambda: self._item(payload))  # noqa: B023 - awaited here
                return self._item(payload)
            self._expect()
            await self._come()
        self._finish()
        raise StopAsyncIteration

    async def _come(self) -> None:
        loop = asyncio.get_running_loop()
        thread, news = threading.get_ident(), asyncio.Event()

        def wake() -> None:
            if threading.get_ident() == thread:
                news.set()
                return
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(news.set)

        if self._inflow.wake is not None:
            text = "Another task reads this stream already."
            raise UsageError(text, remedy="Read it in one, and hand out what it gets.")
        self._inflow.wake = wake
        try:
            with reading(self._process.channel):
                while not (self._ready() or self._pending.done()):
                    news.clear()
                    if not (self._ready() or self._pending.done()):
                        await news.wait()
        finally:
            self._inflow.wake = None

    async def aclose(self) -> None:
        """Read no more of it."""
        if not self._over:
            self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

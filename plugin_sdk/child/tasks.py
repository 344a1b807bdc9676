"""Operations that are ``async def``: an event loop for them, imported only where there are any."""

from __future__ import annotations

import asyncio
import contextvars

from plugin_sdk.child.calls import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from typing import Any

    from plugin_sdk.child.calls import CallState
    from plugin_sdk.child.io import ChildChannel


async def wait(channel: ChildChannel, ready: Callable[[], bool]) -> None:
    """Wait until ``ready`` is true, or the host is gone, while other tasks go on."""
    loop = asyncio.get_running_loop()
    while not (ready() or channel.gone):
        news: asyncio.Future[None] = loop.create_future()

        def resolve(news: asyncio.Future[None] = news) -> None:
            if not news.done():
                news.set_result(None)

        def wake(resolve: Callable[[], None] = resolve) -> None:
            loop.call_soon_threadsafe(resolve)

        channel.wake_on_news(wake)
        try:
            if not ready():
                await news
        finally:
            channel.wake_no_more(wake)


class Tasks:
    """Coroutines of operations, in one event loop that lives as long as the plugin.

    Args:
        channel: where the host's messages come from.
    """

    def __init__(self, channel: ChildChannel) -> None:
        self._channel = channel
        self._loop = asyncio.new_event_loop()
        self._by_call: dict[CallState, asyncio.Task[Any]] = {}
        self._waited_for: dict[CallState, Future[Any]] = {}

    def run(self, call: CallState | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the calling thread, which reads the host's messages meanwhile."""
        loop = self._loop
        task = loop.create_task(coroutine)
        if call is not None:
            self._by_call[call] = task
        loop.add_reader(self._channel.fileno(), self._look)
        try:
            return loop.run_until_complete(task)
        finally:
            loop.remove_reader(self._channel.fileno())
            if call is not None:
                self._by_call.pop(call, None)
            if not task.done():
                # An exception of a signal's was raised in the loop itself, not in the task.
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    def _look(self) -> None:
        self._channel.look()
        if self._channel.gone:
            self._loop.remove_reader(self._channel.fileno())
            for task in self._by_call.values():
                task.cancel()

    def serve(self) -> None:
        """Run the loop in the calling thread, for `start` from others, for ever."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def result(self, call: CallState | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine beside others, from another thread, and wait for what it returns."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if call is None:
            return future.result()
        self._waited_for[call] = future
        try:
            if call.cancelled:
                future.cancel()
            return future.result()
        finally:
            future.cancel()  # where an exception was raised in this thread
            del self._waited_for[call]

    def start(
        self, call: CallState, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any], None]
    ) -> None:
        """Run a coroutine beside others, from another thread; ``done`` takes its finished task."""

        def begin() -> None:
            current.set(call)
            task = self._loop.create_task(coroutine)
            self._by_call[call] = task
            if call.cancelled:
                task.cancel()
            task.add_done_callback(finish)

        def finish(task: asyncio.Task[Any]) -> None:
            self._by_call.pop(call, None)
            done(task)

        self._loop.call_soon_threadsafe(begin, context=contextvars.copy_context())

    def cancel(self, call: CallState) -> bool:
        """Cancel the task of a call where it awaits; False if it has none, or its own step runs.

        Then an exception can be raised in it at once, which a task that never awaits would
        otherwise not meet. Only where the loop runs in the calling thread.
        """
        task = self._by_call.get(call)
        if task is None:
            return False
        try:
            running = asyncio.current_task(self._loop)
        except RuntimeError:
            running = None
        if running is task:
            return False
        self._loop.call_soon_threadsafe(task.cancel)
        return True

    def cancel_soon(self, call: CallState) -> None:
        """Cancel the task of a call where it awaits next, from another thread than the loop's."""
        task = self._by_call.get(call)
        if task is not None:
            self._loop.call_soon_threadsafe(task.cancel)
        elif (future := self._waited_for.get(call)) is not None:
            future.cancel()

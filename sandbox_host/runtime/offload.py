"""Runs what blocks beside an event loop, each in a thread of its own.

Not in the loop's default executor: its few threads are everybody's, and a handful of plugins that
are slow to answer would keep the other plugins' results waiting for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run ``function`` in a new thread and return a future of its result.

    Cancelling the future does not end the thread; what it returns is then dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T itself may be None

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, and raised there
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(resolve, result, failed)

    threading.Thread(target=run, name="sandbox-host-worker").start()
    return future


def blocking(
    function: Callable[..., Coroutine[Any, Any, T]], loop: asyncio.AbstractEventLoop
) -> Callable[..., T]:
    """Return a function for other threads that runs a coroutine function in a loop, and waits."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> T:
        return asyncio.run_coroutine_threadsafe(function(*arguments, **keywords), loop).result()

    return call

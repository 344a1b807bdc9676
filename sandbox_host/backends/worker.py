"""A thread that does one thing after the other, for as long as its owner wants.

Not an executor's: those threads end, and take nothing more, when the program's main thread ends,
although other threads may go on for hours (`threading` documents that those that are no daemons
do). What such a thread has started would end with it, see prctl(2) on ``PR_SET_PDEATHSIG``.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One daemon thread, started when there is something to do. Thread-safe.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have ``function`` called after everything that was submitted before."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and raised there
                future.set_exception(error)

        with self._lock:
            self._waiting.put(call)
            if self._thread is None:
                work = self._waiting
                thread = threading.Thread(
                    target=self._run, args=(work,), name=self._name, daemon=True
                )
                thread.start()
                self._thread = thread
        return future

    @staticmethod
    def _run(waiting: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while (call := waiting.get()) is not None:
            call()

    def shutdown(self) -> None:
        """End the thread when all is done that was submitted before, and wait for that."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._waiting.put(None)
        if thread is not None:
            thread.join()

    def leave(self) -> None:
        """End the thread after what it does now; what waits is not done. Does not block."""
        with self._lock:
            self._waiting, waiting = queue.SimpleQueue(), self._waiting
            thread, self._thread = self._thread, None
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        if thread is not None:
            waiting.put(None)


def each(function: Callable[[Any], object], items: list[Any], most: int) -> None:
    """Call ``function`` with each item, in at most ``most`` threads of their own, and wait."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def call_next() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            function(item)

    threads = [threading.Thread(target=call_next) for _ in range(min(most, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

"""Works on several calls at a time, and answers each when it is done.

The main thread reads; operations run in threads, and those that are ``async def`` in one event
loop. Events are handled in a thread of their own, one after the other.
"""

from __future__ import annotations

import ctypes
from _queue import SimpleQueue
from _thread import get_ident, start_new_thread
from collections import deque
from time import sleep

from plugin_sdk.child.interface import is_async
from plugin_sdk.child.io import flush_output
from plugin_sdk.child.running import Prepared, Runner
from plugin_sdk.errors import Cancelled, DeadlinePassed
from plugin_sdk.wire.messages import Call, Deliver, DeliverMany, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from plugin_sdk.child.calls import CallState
    from plugin_sdk.child.faults import Faults
    from plugin_sdk.child.io import ChildChannel
    from plugin_sdk.child.tasks import Tasks
    from plugin_sdk.wire.message import Message

_PAUSE_SECONDS = 0.005

# Loops and calls look for an exception that another thread has raised: so many are enough.
_LOOKS = 100

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)


class ConcurrentLoop:
    """Serves one plugin. Made and run in the main thread.

    Args:
        channel: where messages come from and answers go.
        runner: runs what is asked for.
        faults: is given its reserve of memory back before each message.
        concurrency: how many calls are worked on at a time.
    """

    def __init__(
        self, channel: ChildChannel, runner: Runner, faults: Faults, concurrency: int
    ) -> None:
        self._channel = channel
        self._runner = runner
        self._faults = faults
        self._concurrency = concurrency
        self._lock = channel.guard()
        self._waiting: deque[Prepared] = deque()
        self._working = 0
        self._delivering = 0
        self._jobs: SimpleQueue[Prepared] = SimpleQueue()
        self._idle_threads = 0
        self._deliveries: SimpleQueue[Deliver | DeliverMany] = SimpleQueue()
        self._handles_events = False
        self._tasks: Tasks | None = None
        channel.on_cancel = self._cancel
        channel.shared = True

    def run(self) -> None:
        """Serve until `Stop` is answered or the host closes its end.

        Raises:
            RemoteProtocolError: the host broke the protocol.
            OSError: the host is gone while an answer is sent.
        """
        while (message := self._channel.receive()) is not None:
            self._faults.take_reserve()
            if isinstance(message, Call):
                prepared = self._runner.prepare(message)
                if isinstance(prepared, Prepared):
                    self._begin(prepared)
                else:
                    self._channel.send(prepared)
            elif isinstance(message, (Deliver, DeliverMany)):
                self._deliver(message)
            elif isinstance(message, Stop):
                while self._working or self._delivering:
                    self._channel.look()
                    sleep(_PAUSE_SECONDS)
                self._answer(self._runner.stop())
                return

    def _answer(self, answer: Message) -> None:
        flush_output()
        self._channel.send(answer)

    # -- calls ------------------------------------------------------------------------------

    def _begin(self, prepared: Prepared) -> None:
        with self._lock:
            if self._working >= self._concurrency:
                self._waiting.append(prepared)
                return
            self._working += 1
        self._start(prepared)

    def _start(self, prepared: Prepared) -> None:
        if is_async(prepared.operation):
            self._start_task(prepared)
            return
        with self._lock:
            enough = self._idle_threads > self._jobs.qsize()
            self._jobs.put(prepared)
        if not enough:
            try:
                start_new_thread(self._work, ())
            except RuntimeError as error:
                if self._idle_threads == self._working == 0:
                    self._done(self._runner.failed(prepared.call, str(error)))

    def _done(self, answer: Message) -> None:
        """Send an answer, and begin what has waited for it."""
        self._answer(answer)
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._working -= following is None
        if following is not None:
            self._start(following)

    # -- in threads -------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle_threads += 1
            prepared = self._jobs.get()
            with self._lock:
                self._idle_threads -= 1
            prepared.state.thread = get_ident()
            # It may have waited here for its turn.
            answer = self._runner.refused(prepared.call, prepared.state) or self._settled(prepared)
            prepared = None  # type: ignore[assignment]  # or it lives until the next one comes
            try:
                self._done(answer)
            except OSError:
                return  # the host is gone
            answer = None  # type: ignore[assignment]  # as above

    def _settled(self, prepared: Prepared) -> Message:
        """Run an operation; when this returns, nothing is raised in this thread any more."""
        answer: Message | None = None
        while True:
            try:
                if answer is None:
                    answer = self._runner.run(prepared, self._await)
                with self._lock:
                    prepared.state.thread = 0
                for _ in range(_LOOKS):
                    pass
                return answer
            except (Cancelled, DeadlinePassed) as error:
                # Raised when the operation had just ended, or its answer was being made.
                prepared.state.active = False
                if answer is None:
                    answer = self._runner.raised(prepared.call, prepared.state, error)

    def _await(self, call: CallState | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run what a plain function returned, or a handler's, beside the other coroutines."""
        return self._loop_of_tasks().result(call, coroutine)

    # -- in the event loop ------------------------------------------------------------------

    def _start_task(self, prepared: Prepared) -> None:
        tasks, state = self._loop_of_tasks(), prepared.state
        state.active = True

        def done(task: Any) -> None:
            state.active = False
            try:
                answer = self._runner.result(prepared.call, task.result())
            except BaseException as error:  # noqa: BLE001 - as of an operation in a thread
                answer = self._runner.raised(prepared.call, state, error, prepared.operation)
            try:
                self._done(answer)
            except OSError:
                return  # the host is gone

        tasks.start(state, self._runner.coroutine(prepared), done)

    def _loop_of_tasks(self) -> Tasks:
        with self._lock:
            if self._tasks is None:
                from plugin_sdk.child.tasks import Tasks

                self._tasks = Tasks(self._channel)
                start_new_thread(self._tasks.serve, ())
            return self._tasks

    # -- what ends an operation -------------------------------------------------------------

    def _cancel(self, call: CallState) -> None:
        # With the lock held, the thread neither sends nor takes anything that would be lost.
        with self._lock:
            if call.interrupted or not call.active:
                return
            call.interrupted = True
            if self._tasks is not None:
                self._tasks.cancel_soon(call)
            if call.thread:
                _raise_in(call.thread, call.reason())

    # -- events -----------------------------------------------------------------------------

    def _deliver(self, deliver: Deliver | DeliverMany) -> None:
        with self._lock:
            self._delivering += 1
        self._deliveries.put(deliver)
        if not self._handles_events:
            self._handles_events = True
            start_new_thread(self._handle_events, ())

    def _handle_events(self) -> None:
        while True:
            answer = self._runner.deliver(self._deliveries.get(), self._await)
            try:
                self._answer(answer)
            except OSError:
                return  # the host is gone
            with self._lock:
                self._delivering -= 1

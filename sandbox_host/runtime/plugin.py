"""One plugin, as an asyncio application has it: its calls, its streams, its health."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from sandbox_host.errors import PluginEndedError
from sandbox_host.ipc.calls import Pending
from sandbox_host.runtime import offload
from sandbox_host.runtime.batches import AHEAD, batches_of, settled
from sandbox_host.runtime.feeding import let_go
from sandbox_host.runtime.handle import PluginView, StartedCall
from sandbox_host.runtime.healthcheck import ask, judge_health
from sandbox_host.runtime.loop_reader import finished
from sandbox_host.runtime.streaming import Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sandbox_host.health.verdict import Verdict
    from sandbox_host.model import Metered, OperationLimits
    from sandbox_host.runtime.pool import Pool
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.slot import Slot


class Plugin(PluginView):
    """A loaded plugin of an asyncio application."""

    async def call(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run an operation in the plugin and return what it returned.

        Args:
            operation: its name; `operations` lists them.
            *args: its positional arguments: None, bool, int, float, str, bytes, list, dict.
            deadline: seconds; never more than the plugin's wall time budget, which is the default.
            limits: tighter budgets than the plugin's own, for this call.
            **kwargs: its keyword arguments.

        Raises:
            OperationError: the operation raised.
            BudgetExceededError: it used more than it may; `DeadlineExceededError` if of time.
            PluginEndedError: the plugin ended before it answered, or had ended.
            BackpressureError: too much is outstanding.
            PluginError: an argument or result cannot be carried, or there is no such operation.
        """
        process, pending = await self._answered(operation, args, kwargs, deadline, limits)
        if process.talk.takes_long(pending):
            # A hostile value takes long to decode; the loop must go on meanwhile.
            return await offload.start(lambda: process.talk.result(pending))
        return process.talk.result(pending)

    def stream(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Stream:
        """Run an operation that yields, and return an asynchronous iterator of what it yields.

        Neither side holds more than a window of it (64 items, 1 MiB), however slow the other is.
        Each item may take as long as the plugin's wall time budget, from when it is waited for.

        Args:
            operation: its name: a generator, or an asynchronous one.
            *args: as of `call`; iterators are passed on as streams, also to `call`.
            deadline: seconds for all of it; None for no bound but those on each item.
            limits: tighter budgets than the plugin's own; CPU time is that of the whole stream.
            **kwargs: its keyword arguments.

        Raises:
            PluginError: it cannot be begun. What becomes of it later is raised where it is read.
        """
        return Stream(*self._begin(operation, args, kwargs, deadline, limits, streams=True))

    async def call_many(
        self,
        operation: str,
        calls: Iterable[Any],
        *,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        return_errors: bool = False,
    ) -> list[Any]:
        """Run an operation many times, a few hundred in a message, and return the values in order.

        Each message counts as one call: to deadline and budgets, and in what usage tells. What is
        called does not yield, and takes no streams.

        Args:
            operation: its name.
            calls: for each call its arguments, as a tuple or list, or its keywords, as a dict.
            deadline: seconds, for each message; as of `call`.
            limits: tighter budgets than the plugin's own, for each message.
            return_errors: return a failed call's error in its place; else the first is raised when
                all have run, with its number in a note.

        Raises:
            UsageError: a call is neither a tuple nor a list nor a dict.
            PluginError: a call failed, as of `call`, or a message did as a whole.
        """
        outcomes: list[Any] = []
        sent: deque[tuple[PluginProcess, Pending, int]] = deque()
        waiting = deque(batches_of(calls))
        try:
            while waiting or sent:
                while waiting and len(sent) < AHEAD:
                    batch = waiting.popleft()
                    begun = await self._sent(operation, batch, {}, deadline, limits, many=True)
                    sent.append((*begun, len(batch)))
                process, pending, count = sent[0]
                process.channel.poll_briefly(pending)
                await finished(pending, process.channel)
                if process.talk.takes_long(pending):
                    take = partial(process.talk.outcomes, pending, count)
                    outcomes += await offload.start(take)
                else:
                    outcomes += process.talk.outcomes(pending, count)
                sent.popleft()
        finally:
            for process, pending, _ in sent:
                process.talk.cancel(pending)  # this task was cancelled, or a message failed
        return settled(outcomes, return_errors=return_errors)

    def start(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Call:
        """Begin an operation, and return what can be awaited, looked at, or cancelled."""
        process, pending = self._begin(operation, args, kwargs, deadline, limits)
        process.channel.attend()
        return Call(process, pending)

    async def metered(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Metered:
        """Run an operation as `call` does, and return its value with what it cost.

        The error of an operation that fails carries its cost as ``error.usage``.

        Raises:
            PluginError: as `call`.
        """
        process, pending = await self._answered(operation, args, kwargs, deadline, limits)
        if process.talk.takes_long(pending):
            return await offload.start(lambda: process.talk.metered(pending))
        return process.talk.metered(pending)

    async def _answered(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
    ) -> tuple[PluginProcess, Pending]:
        process, pending = await self._sent(operation, arguments, keywords, deadline, limits)
        process.channel.poll_briefly(pending)
        if not pending.done():
            await answered(process, pending)
        return process, pending

    async def _sent(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
        *,
        many: bool = False,
    ) -> tuple[PluginProcess, Pending]:
        """Send a call, when there is a process for it; its deadline counts from now on."""
        slot, until = self._slot, 0.0
        while True:
            if slot.empty:
                until = until or self._patience(deadline)
                await occupied(slot, until)
                deadline = max(0.0, until - time.monotonic())
            tried = slot.process
            try:
                return self._try(operation, arguments, keywords, deadline, limits, many=many)
            except PluginEndedError:
                # It was not sent. A new version may have taken the place at this moment.
                gone = slot.process is tried and not slot.empty
                if gone or (until and time.monotonic() >= until):
                    let_go(arguments, keywords)
                    raise

    async def health(self) -> Verdict:
        """Ask the plugin how it is, add what the host sees, and return the verdict."""
        process = self._process
        asked = ask(process)
        if isinstance(asked, Pending):
            await finished(asked, process.channel)
        return judge_health(process, asked)


class Call(StartedCall):
    """A call that was begun. Await it for what the operation returned."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        if not self._pending.done():
            await answered(self._process, self._pending)
        if self._process.talk.takes_long(self._pending):
            return await offload.start(lambda: self._process.talk.result(self._pending))
        return self._process.talk.result(self._pending)


async def answered(process: PluginProcess, pending: Pending) -> None:
    """Wait for a call; who is cancelled meanwhile cancels it."""
    try:
        await finished(pending, process.channel)
    except asyncio.CancelledError:
        process.talk.cancel(pending)
        raise


async def occupied(slot: Slot | Pool, until: float) -> None:
    """Wait until a process stands in a place, or none will, or this monotonic time has come."""
    loop = asyncio.get_running_loop()
    while slot.empty and (left := until - time.monotonic()) > 0:
        news = asyncio.Event()

        def wake(news: asyncio.Event = news) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(news.set)

        slot.on_change(wake)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), left)

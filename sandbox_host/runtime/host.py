"""The host for asyncio: ``async with SandboxHost(HostConfig(...)) as host``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Self

from sandbox_host.config import HostConfig
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import Cause
from sandbox_host.runtime import offload
from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.core import HostCore
from sandbox_host.runtime.handle import PluginView
from sandbox_host.runtime.healthcheck import ask, judge_health

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection
    from types import TracebackType

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.backends.base import Backend
    from sandbox_host.broker.queues import Subscription
    from sandbox_host.health.verdict import Verdict
    from sandbox_host.model import Event, Metered, OperationLimits, Usage
    from sandbox_host.runtime.data import DataDirectory, RemovedData
    from sandbox_host.runtime.process import PluginProcess


class SandboxHost:
    """Runs plugins for an asyncio application.

    Loading and unloading run in worker threads; a call is sent and, if its answer comes within
    some 50 µs, taken without leaving the event loop.

    Args:
        config: the operator's decisions; `HostConfig()` has strict defaults.
        backend: another than this system's, for the host's own tests.

    Raises:
        ConfinementError: on entering, if this system has no backend.
        ConfigError: on entering, if a directory cannot be used.
    """

    def __init__(self, config: HostConfig | None = None, *, backend: Backend | None = None) -> None:
        self._core = HostCore(config or HostConfig(), backend)

    @staticmethod
    def blocking(
        config: HostConfig | None = None, *, backend: Backend | None = None
    ) -> BlockingHost:
        """Return the same host for scripts and threads: ``with SandboxHost.blocking(...)``."""
        return BlockingHost(config, backend=backend)

    async def __aenter__(self) -> Self:
        await offload.start(self._core.open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await offload.start(self._core.close)

    def offer(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a function to plugins as a service: ``context().ask(name, ...)`` calls it.

        Only a plugin that requests it under ``permissions.services``, and is granted it, may ask.
        Arguments are checked strictly against the function's annotations. A plain function runs
        in a thread of the plugin's that asks, a coroutine function in this event loop. What it
        raises is logged; only the text of a `ServiceError` is told to the plugin.

        Args:
            name: such as ``prices.latest``; for as long as the host lives.
            function: with an annotation for each parameter.

        Raises:
            UsageError: the name is malformed or taken, or a parameter has no annotation.
        """
        if inspect.iscoroutinefunction(function):
            function = offload.blocking(function, asyncio.get_running_loop())
        self._core.offer(name, function)

    async def load(
        self, path: str | os.PathLike[str], *, downgrades: Collection[Downgrade] = ()
    ) -> Plugin:
        """Verify, admit, confine, attest and start the plugin in a directory.

        Args:
            path: where it is, or its archive.
            downgrades: the operator's word for versions that are older than one admitted before.

        Raises:
            RefusedError: it was not admitted; nothing of it was executed.
            TrustStoreError: the trust store cannot be used; nothing was executed.
            HistoryError: what was admitted before cannot be used; nothing was executed.
            ConfinementError: a layer of confinement is missing; nothing was executed.
            AttestationError: it was not confined as planned; nothing was executed.
            PluginError: it was admitted, and did not become ready.
        """
        loading = offload.start(lambda: self._core.load(path, downgrades))
        try:
            return Plugin(await asyncio.shield(loading))
        except asyncio.CancelledError:
            # The thread goes on, and what it loads has nobody: it is unloaded again.
            loading.add_done_callback(self._unload_unwanted)
            raise

    def _unload_unwanted(self, loading: asyncio.Future[PluginProcess]) -> None:
        if not loading.cancelled() and loading.exception() is None:
            process = loading.result()
            process.end(Ending(Cause.UNLOADED, f"The load of {process.identity} was cancelled."))

    async def unload(self, name: str) -> None:
        """Let the plugin finish what it has, clean up and leave.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        await offload.start(lambda: self._core.unload(name))

    def plugin(self, name: str) -> Plugin:
        """Return a loaded plugin.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        return Plugin(self._core.get(name))

    @property
    def plugins(self) -> dict[str, Plugin]:
        """All loaded plugins by name, those that failed included."""
        return {process.identity: Plugin(process) for process in self._core.plugins()}

    def usage(self) -> dict[str, Usage]:
        """Return what each loaded plugin has cost so far, those that failed included."""
        return {process.identity: process.usage() for process in self._core.plugins()}

    async def data(self) -> tuple[DataDirectory, ...]:
        """Measure the data directories of all plugins, loaded or not, by identity.

        Raises:
            ConfigError: the state directory cannot be used any more.
        """
        return await offload.start(self._core.data.measure)

    async def remove_data(self, name: str) -> RemovedData:
        """Remove the data directory of a plugin that no host has loaded, whatever it holds.

        What cannot be removed is in the result, and tried again when the next host starts.

        Raises:
            UsageError: no plugin can have that name.
            PluginNotFoundError: it has no data directory.
            DataInUseError: this host, or another with the same state directory, has it loaded.
            ConfigError: what stands there is no directory, or cannot be moved away.
            JournalError: it cannot be written down; nothing was removed.
        """
        return await offload.start(lambda: self._core.data.remove(name))

    async def publish(self, event_type: str, data: Any = None) -> Event:
        """Publish an event of the application's; handlers run in their plugins, later.

        Raises:
            UsageError: the type is malformed, or the data cannot be carried.
        """
        return self._core.publish(event_type, data)

    def subscribe(self, *types: str) -> EventStream:
        """Return an asynchronous iterator over events of these types (all, if none is named).

        It gets what is published from this call on, not only from the first iteration on.

        Raises:
            UsageError: a type is malformed.
        """
        return EventStream(self._core.subscribe(types))


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
        pending = await self._answered(operation, args, kwargs, deadline, limits)
        if self._process.talk.is_bulky(pending):
            # A hostile value takes long to decode; the loop must go on meanwhile.
            return await offload.start(lambda: self._process.talk.result(pending))
        return self._process.talk.result(pending)

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
        pending = await self._answered(operation, args, kwargs, deadline, limits)
        if self._process.talk.is_bulky(pending):
            return await offload.start(lambda: self._process.talk.metered(pending))
        return self._process.talk.metered(pending)

    async def _answered(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
    ) -> Pending:
        pending = self._begin(operation, arguments, keywords, deadline, limits)
        self._process.channel.poll_briefly(pending)
        if not pending.done():
            await _finished(pending)
        return pending

    async def health(self) -> Verdict:
        """Ask the plugin how it is, add what the host sees, and return the verdict."""
        asked = ask(self._process)
        if isinstance(asked, Pending):
            await _finished(asked)
        return judge_health(self._process, asked)


async def _finished(pending: Pending) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not future.done():  # it is, when the caller's task was cancelled
            future.set_result(None)

    def tell(_: Pending) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(resolve)

    pending.on_done(tell)
    await future


class EventStream:
    """Events, for ``async for``. Bounded: when it is read too slowly, the oldest are dropped."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._woken = False
        subscription.on_change(self._wake)

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody read them."""
        return self._subscription.dropped

    def _wake(self) -> None:
        # One wake is on its way until it has been answered, however many events come meanwhile.
        if self._loop is None or self._woken:
            return
        self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._changed.set)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._woken = False
            if (event := self._subscription.take()) is not None:
                await asyncio.sleep(0)  # a flood of events must not keep the loop to itself
                return event
            if self._subscription.closed:
                raise StopAsyncIteration
            await self._changed.wait()

    async def aclose(self) -> None:
        """End it."""
        self._subscription.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

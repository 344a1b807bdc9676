"""The host for scripts and threads: ``with SandboxHost.blocking(HostConfig(...)) as host``."""

from __future__ import annotations

import inspect
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from sandbox_host.admission.instances import Instance
from sandbox_host.config import HostConfig
from sandbox_host.errors import PluginEndedError, UsageError
from sandbox_host.ipc.calls import Pending
from sandbox_host.runtime.batches import AHEAD, batches_of, settled
from sandbox_host.runtime.chains import BlockingChain
from sandbox_host.runtime.core import HostCore
from sandbox_host.runtime.event_streams import BlockingEvents
from sandbox_host.runtime.events import Reading
from sandbox_host.runtime.feeding import let_go
from sandbox_host.runtime.finding import ASKING_SECONDS, Search, Wanted, fitting
from sandbox_host.runtime.group import LoadedAll
from sandbox_host.runtime.handle import PluginView, StartedCall
from sandbox_host.runtime.healthcheck import ask, judge_health
from sandbox_host.runtime.streaming import BlockingStream

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable
    from types import TracebackType

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.backends.base import Backend
    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.health.record import PluginHealth
    from sandbox_host.health.verdict import Verdict
    from sandbox_host.model import Event, Metered, OperationLimits, Usage
    from sandbox_host.runtime.data import DataDirectory, RemovedData
    from sandbox_host.runtime.group import Loaded
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.recorded import Record
    from sandbox_host.runtime.rehearsal import Rehearsal
    from sandbox_host.runtime.replicas import BlockingReplicas
    from sandbox_host.supervision.lifecycle import PluginLife
    from sandbox_host.supervision.restart import RestartPolicy


class BlockingHost:
    """`SandboxHost` without asyncio; every method may be called from any thread."""

    def __init__(self, config: HostConfig | None = None, *, backend: Backend | None = None) -> None:
        self._core = HostCore(config or HostConfig(), backend)

    def __enter__(self) -> Self:
        self._core.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._core.close()

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
        instance: Instance | str | None = None,
    ) -> BlockingPlugin:
        """Verify, admit, confine, attest and start a plugin; see `SandboxHost.load`."""
        which = Instance.of(instance)
        return BlockingPlugin(
            self._core.slot(self._core.load(path, downgrades, record, restart, which))
        )

    def load_replicas(
        self,
        path: str | os.PathLike[str],
        count: int,
        *,
        downgrades: Collection[Downgrade] = (),
        restart: RestartPolicy | None = None,
    ) -> BlockingReplicas:
        """Load several processes of one plugin; see `SandboxHost.load_replicas`."""
        # Here, because they are made of these handles.
        from sandbox_host.runtime.replicas import BlockingReplicas, load_replicas

        pool = load_replicas(self._core, path, count, downgrades, restart)
        return BlockingReplicas(self._core, pool, tuple(map(BlockingPlugin, pool.slots)))

    def load_all(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
    ) -> LoadedAll[BlockingPlugin]:
        """Load several plugins in the order of what they need; see `SandboxHost.load_all`."""
        return self._handed_out(self._core.load_all(paths, downgrades, record, restart))

    def _handed_out(self, loaded: Loaded) -> LoadedAll[BlockingPlugin]:
        started = loaded.started.values()
        plugins = {p.identity: BlockingPlugin(self._core.slot(p)) for p in started}
        return LoadedAll(plugins, loaded.failed)

    def unload(self, name: str, *, dependants: bool = False) -> tuple[str, ...]:
        """Let the plugin finish what it has, clean up and leave; see `SandboxHost.unload`."""
        return self._core.unload(name, dependants=dependants)

    def lacking(self, name: str) -> tuple[str, ...]:
        """Return what a plugin needs and does not have now; see `SandboxHost.lacking`."""
        return self._core.dependencies.lacking(self._core.get(name).plan.manifest)

    def reload(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        *,
        downgrades: Collection[Downgrade] = (),
        probe: Callable[[BlockingPlugin], object] | None = None,
        rehearsal: Rehearsal | None = None,
    ) -> BlockingPlugin:
        """Have another version take a running plugin's place; see `SandboxHost.reload`."""
        ask = None if probe is None else lambda process: probe(BlockingPlugin(process))
        return BlockingPlugin(
            self._core.slot(self._core.reload(name, path, downgrades, ask, rehearsal))
        )

    def lives(self) -> tuple[PluginLife, ...]:
        """Return where each plugin stands; see `SandboxHost.lives`."""
        return self._core.known_lives()

    def quarantined(self, name: str) -> str:
        """Return why a plugin is not started again any more; see `SandboxHost.quarantined`."""
        return self._core.quarantined(name)

    def release(self, name: str) -> None:
        """Start a plugin in quarantine again; see `SandboxHost.release`."""
        self._core.release(name)

    def plugin(self, name: str) -> BlockingPlugin:
        """Return a loaded plugin; see `SandboxHost.plugin`."""
        return BlockingPlugin(self._core.slot(self._core.get(name)))

    @property
    def plugins(self) -> dict[str, BlockingPlugin]:
        """All loaded plugins by name, those that failed included."""
        return {
            process.identity: BlockingPlugin(self._core.slot(process))
            for process in self._core.plugins()
        }

    def find(
        self,
        capability: str,
        *,
        kind: str | None = None,
        operation: str | None = None,
        exclude: Collection[str] = (),
    ) -> BlockingPlugin:
        """Return the first healthy plugin with a capability; see `SandboxHost.find`."""
        search = Search(Wanted.of(capability, kind, operation, exclude), self._core.loaded())
        for process in search.due:
            if (asked := search.ask(process)) is not None:
                process.channel.wait(asked, until=time.monotonic() + ASKING_SECONDS)
            if search.accepts(process):
                return BlockingPlugin(self._core.slot(process))
        return BlockingPlugin(self._core.slot(search.otherwise()))

    def find_all(
        self, capability: str, *, kind: str | None = None, operation: str | None = None
    ) -> tuple[BlockingPlugin, ...]:
        """Return all plugins that `find` would ask; see `SandboxHost.find_all`."""
        wanted = Wanted.of(capability, kind, operation)
        return tuple(
            BlockingPlugin(self._core.slot(p)) for p in fitting(wanted, self._core.loaded())
        )

    def chain(self, *stages: str) -> BlockingChain:
        """Put operations one behind the other; see `SandboxHost.chain`."""
        return BlockingChain(self._core.pools.stage, stages)

    def health(self, name: str) -> PluginHealth:
        """Return how a plugin was doing when it was last looked at; see `SandboxHost.health`."""
        return self._core.health(name)

    def usage(self) -> dict[str, Usage]:
        """Return what each loaded plugin has cost so far; see `SandboxHost.usage`."""
        return {process.identity: process.usage() for process in self._core.plugins()}

    def data(self) -> tuple[DataDirectory, ...]:
        """Measure the data directories of all plugins; see `SandboxHost.data`."""
        return self._core.data.measure()

    def remove_data(self, name: str) -> RemovedData:
        """Remove the data directory of a plugin; see `SandboxHost.remove_data`."""
        return self._core.data.remove(name)

    def offer(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a function to plugins as a service; see `SandboxHost.offer`.

        Raises:
            UsageError: as there, and for a coroutine function: here is no loop to run it.
        """
        if inspect.iscoroutinefunction(function):
            text = f'The service "{name}" is a coroutine function, and this host has no loop.'
            raise UsageError(text, remedy="Offer a plain function, or use the host for asyncio.")
        self._core.offer(name, function)

    def publish(self, event_type: str, data: Any = None) -> Event:
        """Publish an event of the application's; see `SandboxHost.publish`."""
        publication = self._core.events.begin(event_type, data)
        publication.wait()
        return publication.told(data)

    def subscribe(
        self,
        *types: str,
        policy: str = "drop_oldest",
        queue: int | None = None,
        deadline: float = 0.0,
        replay: int = 0,
        durable: str | None = None,
        redeliver_after: float | None = None,
    ) -> BlockingEvents:
        """Return an iterator over events of these types; see `SandboxHost.subscribe`."""
        reading = Reading(policy, queue, deadline, replay, durable, redeliver_after)
        return BlockingEvents(self._core.events.subscribe(types, reading))

    def subscriptions(self) -> tuple[SubscriptionInfo, ...]:
        """Return who gets events, with counters; see `SandboxHost.subscriptions`."""
        return self._core.subscriptions()

    def drop_durable(self, name: str) -> int:
        """Give up a durable subscription; see `SandboxHost.drop_durable`."""
        return self._core.events.drop(name)


class BlockingPlugin(PluginView):
    """A loaded plugin of a blocking application."""

    def call(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run an operation in the plugin and return what it returned; see `Plugin.call`."""
        process, pending = self._sent(operation, args, kwargs, deadline, limits)
        process.channel.wait(pending)
        return process.talk.result(pending)

    def _sent(
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
                slot.wait(until)
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

    def stream(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> BlockingStream:
        """Run an operation that yields, and return an iterator of it; see `Plugin.stream`."""
        return BlockingStream(*self._begin(operation, args, kwargs, deadline, limits, streams=True))

    def call_many(
        self,
        operation: str,
        calls: Iterable[Any],
        *,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        return_errors: bool = False,
    ) -> list[Any]:
        """Run an operation many times, and return the values in order; see `Plugin.call_many`."""
        outcomes: list[Any] = []
        sent: deque[tuple[PluginProcess, Pending, int]] = deque()
        waiting = deque(batches_of(calls))
        try:
            while waiting or sent:
                while waiting and len(sent) < AHEAD:
                    batch = waiting.popleft()
                    begun = self._sent(operation, batch, {}, deadline, limits, many=True)
                    sent.append((*begun, len(batch)))
                process, pending, count = sent[0]
                process.channel.wait(pending)
                outcomes += process.talk.outcomes(pending, count)
                sent.popleft()
        finally:
            for process, pending, _ in sent:
                process.talk.cancel(pending)  # a message failed as a whole
        return settled(outcomes, return_errors=return_errors)

    def start(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> BlockingCall:
        """Begin an operation, and return what can be waited for, or cancelled."""
        process, pending = self._begin(operation, args, kwargs, deadline, limits)
        process.channel.attend()
        return BlockingCall(process, pending)

    def _check_feeds(self, feeds: list[Any]) -> None:
        if any(isinstance(feed, AsyncIterator) for feed in feeds):
            text = "An asynchronous iterator was passed to a call, and this host has no loop."
            raise UsageError(text, remedy="Pass a plain one, or use the host for asyncio.")

    def metered(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Metered:
        """Run an operation and return its value with what it cost; see `Plugin.metered`."""
        process, pending = self._sent(operation, args, kwargs, deadline, limits)
        process.channel.wait(pending)
        return process.talk.metered(pending)

    def health(self) -> Verdict:
        """Ask the plugin how it is, add what the host sees, and return the verdict."""
        process = self._process
        asked = ask(process)
        if isinstance(asked, Pending):
            process.channel.wait(asked)
        return judge_health(process, asked)


class BlockingCall(StartedCall):
    """A call that was begun."""

    def result(self, timeout: float | None = None) -> Any:
        """Return what the operation returned, waiting for it.

        Args:
            timeout: seconds to wait; None for as long as the call's own deadline lets it.

        Raises:
            TimeoutError: it has not ended by then, and goes on.
            CallCancelledError: it was cancelled.
            PluginError: as `BlockingPlugin.call`.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        self._process.channel.wait(self._pending, until=until)
        if not self._pending.done():
            text = f"{self._pending.operation} has not ended within {timeout:g} s."
            raise TimeoutError(text)
        return self._process.talk.result(self._pending)

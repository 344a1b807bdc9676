"""The host for asyncio: ``async with SandboxHost(HostConfig(...)) as host``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Self

from sandbox_host.admission.instances import Instance
from sandbox_host.config import HostConfig
from sandbox_host.model import Cause
from sandbox_host.runtime import offload
from sandbox_host.runtime.blocking import BlockingHost, BlockingPlugin
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.chains import Chain
from sandbox_host.runtime.core import HostCore
from sandbox_host.runtime.event_streams import EventStream, settle
from sandbox_host.runtime.events import Reading
from sandbox_host.runtime.finding import ASKING_SECONDS, Search, Wanted, fitting
from sandbox_host.runtime.group import LoadedAll
from sandbox_host.runtime.loop_reader import finished
from sandbox_host.runtime.plugin import Call, Plugin
from sandbox_host.runtime.replicas import Replicas, load_replicas, unload_unwanted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable
    from types import TracebackType

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.backends.base import Backend
    from sandbox_host.broker.policies import SubscriptionInfo
    from sandbox_host.health.record import PluginHealth
    from sandbox_host.model import Event, Usage
    from sandbox_host.runtime.data import DataDirectory, RemovedData
    from sandbox_host.runtime.group import Loaded
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.recorded import Record
    from sandbox_host.runtime.rehearsal import Rehearsal
    from sandbox_host.supervision.lifecycle import PluginLife
    from sandbox_host.supervision.restart import RestartPolicy


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
        self,
        path: str | os.PathLike[str],
        *,
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
        instance: Instance | str | None = None,
    ) -> Plugin:
        """Verify, admit, confine, attest and start the plugin in a directory.

        Args:
            path: where it is, or its archive.
            downgrades: the operator's word for versions that are older than one admitted before.
            record: a file that is not there yet, or a directory, or `RecordingOptions`: what is
                said to the plugin and by it is kept there, for ``sandbox-host replay``.
            restart: when to start it again where its process ends by itself: what the directory
                holds then, verified anew. Its handles stay good, and calls wait for it within
                their deadlines. None leaves it failed.
            instance: name, or `Instance`, of one of several instances of the plugin: ``tenant_a``
                has the identity ``weather_model@tenant_a``, with a data directory, a store, a log
                and budgets of its own, and nothing of another one's.

        Raises:
            RecordingError: the recording cannot be made; nothing was executed.
            RefusedError: it was not admitted; nothing of it was executed.
            TrustStoreError: the trust store cannot be used; nothing was executed.
            HistoryError: what was admitted before cannot be used; nothing was executed.
            ConfinementError: a layer of confinement is missing; nothing was executed.
            AttestationError: it was not confined as planned; nothing was executed.
            DependencyError: a plugin that it needs is loaded in another version, or has ended;
                nothing was executed. That one is not loaded at all is only told: `lacking`.
            PluginError: it was admitted, and did not become ready.
        """
        which = Instance.of(instance)
        loading = offload.start(lambda: self._core.load(path, downgrades, record, restart, which))
        try:
            return Plugin(self._core.slot(await asyncio.shield(loading)))
        except asyncio.CancelledError:
            # The thread goes on, and what it loads has nobody: it is unloaded again.
            loading.add_done_callback(self._unload_unwanted)
            raise

    async def load_replicas(
        self,
        path: str | os.PathLike[str],
        count: int,
        *,
        downgrades: Collection[Downgrade] = (),
        restart: RestartPolicy | None = None,
    ) -> Replicas:
        """Load several processes of one stateless plugin, behind one handle.

        Each is an instance, ``model@r1``, ``model@r2`` and so on; a call goes to the one that has
        the least to do. With ``restart`` one that ends is started again while the others serve.

        Args:
            path: where the plugin is, or its archive.
            count: so many, at most 64.
            downgrades: as of `load`.
            restart: as of `load`.

        Raises:
            UsageError: the count is out of range, or the plugin handles events or has
                ``export_state()``: it has a state, and calls would miss it by chance.
            SandboxHostError: as of `load`; none is loaded then.
        """
        core = self._core
        loading = offload.start(lambda: load_replicas(core, path, count, downgrades, restart))
        try:
            pool = await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(lambda done: unload_unwanted(core, done))
            raise
        return Replicas(core, pool, tuple(map(Plugin, pool.slots)))

    async def load_all(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        downgrades: Collection[Downgrade] = (),
        record: Record | None = None,
        restart: RestartPolicy | None = None,
    ) -> LoadedAll[Plugin]:
        """Load several plugins in the order of what they need, and in parallel where they may.

        All are verified first; who needs another starts when that is ready. What fails keeps back
        only those that need it. Unlike `load` it starts none that lacks anything.

        Args:
            paths: where they are; what they need is among them, or loaded already.
            downgrades: as of `load`.
            record: likewise; a directory for several plugins.
            restart: likewise.

        Returns:
            What runs, and for each path that does not the error that `load` would raise, such as
            a `DependencyError` with the whole chain.

        Raises:
            UsageError: the host is not open.
        """
        wanted = True
        loading = offload.start(
            lambda: self._core.load_all(
                paths, downgrades, record, restart, heed=lambda _path, _outcome: wanted
            )
        )
        try:
            loaded = await asyncio.shield(loading)
        except asyncio.CancelledError:
            wanted = False  # no more begin
            loading.add_done_callback(self._unload_all_unwanted)
            raise
        started = loaded.started.values()
        return LoadedAll({p.identity: Plugin(self._core.slot(p)) for p in started}, loaded.failed)

    @staticmethod
    def _unload_all_unwanted(loading: asyncio.Future[Loaded]) -> None:
        if not loading.cancelled() and loading.exception() is None:
            for process in loading.result().started.values():
                text = f"The load of {process.identity} was cancelled."
                process.end(Ending(Cause.UNLOADED, text))

    def _unload_unwanted(self, loading: asyncio.Future[PluginProcess]) -> None:
        if not loading.cancelled() and loading.exception() is None:
            process = loading.result()
            process.end(Ending(Cause.UNLOADED, f"The load of {process.identity} was cancelled."))

    async def unload(self, name: str, *, dependants: bool = False) -> tuple[str, ...]:
        """Let the plugin finish what it has, clean up and leave.

        Args:
            name: the plugin's, in whichever spelling.
            dependants: unload those that need it as well, before it.

        Returns:
            The names of those that were unloaded, in that order.

        Raises:
            PluginNotFoundError: none of that name is loaded.
            NeededError: others that are loaded need it; all stay.
        """
        return await offload.start(lambda: self._core.unload(name, dependants=dependants))

    def lacking(self, name: str) -> tuple[str, ...]:
        """Return what a loaded plugin needs and does not have now, in a sentence each.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        return self._core.dependencies.lacking(self._core.get(name).plan.manifest)

    async def reload(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        *,
        downgrades: Collection[Downgrade] = (),
        probe: Callable[[BlockingPlugin], object] | None = None,
        rehearsal: Rehearsal | None = None,
    ) -> Plugin:
        """Have another version take the place of a running plugin, without losing a call.

        It is verified, admitted and started beside the old one, which serves meanwhile; it is asked
        how it is. Then it takes calls and events, and the old one ends when it has answered what it
        was asked before, for which it has its wall time budget. Handles stay good. For a moment
        both have the plugin's data directory.

        Args:
            name: of a plugin that runs.
            path: directory or archive of the new version; None for where the old one came from.
            downgrades: as of `load`.
            probe: called with the new version, in a thread, before it takes the place; a
                `PluginError` that it raises keeps the old one.
            rehearsal: what was recorded of the old one, and the new one has to do as well, in a
                sandbox of its own.

        Returns:
            The plugin, once the old version is gone.

        Raises:
            ReloadError: the new version is unhealthy, does not do what was recorded, the probe
                failed, or it would not do for plugins that need it; the old one serves on.
            RecordingError: the recording cannot be used; the old one serves on.
            DependencyError: it needs something that is not loaded; the old one serves on.
            RefusedError: it was not admitted, or is held; the old one serves on, as with every
                other error of `load`.
            PluginNotFoundError: none of that name is loaded.
            PluginEndedError: it does not run.
        """
        ask = None if probe is None else lambda process: probe(BlockingPlugin(process))
        loading = offload.start(lambda: self._core.reload(name, path, downgrades, ask, rehearsal))
        return Plugin(self._core.slot(await asyncio.shield(loading)))

    def lives(self) -> tuple[PluginLife, ...]:
        """Return where each plugin stands, those included that wait, or do not run, by name.

        What is loaded is among them, and what was refused or has ended since the host opened, up
        to 1,024 of those. Each change is an event, ``plugin_state``, and a line in the journal.

        Raises:
            UsageError: the host is not open.
        """
        return self._core.known_lives()

    def quarantined(self, name: str) -> str:
        """Return why a plugin that was loaded with ``restart`` is not started again any more.

        Returns:
            One line; "" where it runs, or is started again.
        """
        return self._core.quarantined(name)

    def release(self, name: str) -> None:
        """Start a plugin in quarantine again, now, and forget how often it has ended.

        Raises:
            PluginNotFoundError: none of that name is in quarantine.
        """
        self._core.release(name)

    def plugin(self, name: str) -> Plugin:
        """Return a loaded plugin.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        return Plugin(self._core.slot(self._core.get(name)))

    @property
    def plugins(self) -> dict[str, Plugin]:
        """All loaded plugins by name, those that failed included."""
        return {
            process.identity: Plugin(self._core.slot(process)) for process in self._core.plugins()
        }

    async def find(
        self,
        capability: str,
        *,
        kind: str | None = None,
        operation: str | None = None,
        exclude: Collection[str] = (),
    ) -> Plugin:
        """Return the first healthy plugin with a capability, in load order.

        Each is asked how it is, one after the other, until one is not unhealthy; one that is busy
        and does not answer is taken where there is no other.

        Args:
            capability: as in plugin.json: ``ai_model``.
            kind: "Model", "DataSource" or "Pipeline". None for the one that the capability names:
                ``ai_model``, ``data_source``, ``pipeline`` or ``data_pipeline``; else for any.
            operation: one that it must have.
            exclude: names of plugins that are not wanted, such as one that has just failed.

        Raises:
            NoSuchCapabilityError: there is none, or none that can be used; it says why of each.
            KindMismatchError: those that have the capability are of another kind.
            UsageError: an argument is malformed.
        """
        search = Search(Wanted.of(capability, kind, operation, exclude), self._core.loaded())
        for process in search.due:
            if (asked := search.ask(process)) is not None:
                process.channel.poll_briefly(asked)
                with contextlib.suppress(TimeoutError):
                    waiting = finished(asked, process.channel)
                    await asyncio.wait_for(waiting, ASKING_SECONDS)
            if search.accepts(process):
                return Plugin(self._core.slot(process))
        return Plugin(self._core.slot(search.otherwise()))

    def find_all(
        self, capability: str, *, kind: str | None = None, operation: str | None = None
    ) -> tuple[Plugin, ...]:
        """Return all plugins that `find` would ask, in load order, without asking them."""
        wanted = Wanted.of(capability, kind, operation)
        return tuple(Plugin(self._core.slot(p)) for p in fitting(wanted, self._core.loaded()))

    def chain(self, *stages: str) -> Chain:
        """Put operations one behind the other: each reads as a stream what the one before yields.

        ``host.chain("source.read", "features.process", "model.predict")`` begins nothing; its
        `Chain.stream` and `Chain.call` do, and take the arguments of the first stage.

        Args:
            *stages: a plugin and an operation each; at most 16. The stream is the first
                positional argument of every stage but the first.

        Raises:
            UsageError: a stage is malformed, or there are too many.
        """
        return Chain(self._core.pools.stage, stages, Call)

    def health(self, name: str) -> PluginHealth:
        """Return how a plugin was doing when it was last looked at, and since when that holds.

        Asks nobody; `Plugin.health` asks the plugin itself. One that has ended is unhealthy.

        Raises:
            PluginNotFoundError: none of that name is loaded.
        """
        return self._core.health(name)

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

        It returns when subscribers with the policy "block" have room or have had their time, and
        when the event is on the disk for every durable subscription that wants it.

        Raises:
            UsageError: the type is malformed, or the data cannot be carried.
            EventStoreFullError: a durable subscription can take no more; nobody gets the event.
            EventStoreError: it was not written down, or not in time; others may have it.
        """
        publication = self._core.events.begin(event_type, data)
        if not publication.settled:
            await settle(publication)
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
    ) -> EventStream:
        """Return an asynchronous iterator over events of these types (all, if none is named).

        It gets what is published from this call on, not only from the first iteration on.

        Args:
            *types: event types, and patterns of them: ``weather.*``.
            policy: what happens to an event when ``queue`` others wait: "drop_oldest",
                "drop_newest", "disconnect", or "block": it waits for room up to the deadline, and
                so does the application's `publish`.
            queue: events that may wait for this reader; None is ``event_queue``.
            deadline: seconds, for "block".
            replay: how many of the last events of these types it gets first, if so many are kept.
            durable: name of a durable subscription. Its events wait on the disk, over restarts of
                the host, until they are acknowledged with ``event.ack()``, and come at least once.
            redeliver_after: seconds (30, if not given) after which a durable event comes again
                that was not acknowledged.

        Raises:
            UsageError: an argument is malformed or does not go with another, or the durable
                subscription is being read already.
            EventStoreError: the store of durable events cannot be used.
        """
        reading = Reading(policy, queue, deadline, replay, durable, redeliver_after)
        return EventStream(self._core.events.subscribe(types, reading))

    def subscriptions(self) -> tuple[SubscriptionInfo, ...]:
        """Return who gets events, and how many each has got and has not: plugins first, by name."""
        return self._core.subscriptions()

    async def drop_durable(self, name: str) -> int:
        """Give up a durable subscription; return how many events waited for it.

        Raises:
            UsageError: there is none of that name.
            EventStoreError: the store of durable events cannot be used.
        """
        return await offload.start(lambda: self._core.events.drop(name))

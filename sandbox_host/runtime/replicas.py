"""Several processes of one stateless plugin behind one handle.

Each replica is an instance of the plugin (`admission.instances`) with a data directory, budgets
and a life of its own: ``model@r1``, ``model@r2``. A call goes to the one that has the least to do;
who has ended gets none until it runs again, and what it had not been sent goes to another. What is
begun on one stays there: its stream, its cancellation, its end. A plugin that answers by what it
was told before would answer by chance, which is why what shows that it has a state is refused.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from sandbox_host.admission.instances import Instance
from sandbox_host.backends.worker import each
from sandbox_host.errors import (
    PluginEndedError,
    ReloadError,
    SandboxHostError,
    UsageError,
)
from sandbox_host.instance_terms import MAX_REPLICAS
from sandbox_host.model import Cause
from sandbox_host.runtime import offload
from sandbox_host.runtime.blocking import BlockingCall, BlockingPlugin
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.feeding import let_go
from sandbox_host.runtime.plugin import Call, Plugin, occupied
from sandbox_host.runtime.pool import Pool
from sandbox_host.runtime.reloading import EXPORT
from sandbox_host.runtime.streaming import BlockingStream, Stream

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Collection, Sequence

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import OperationLimits, Usage
    from sandbox_host.runtime.core import HostCore
    from sandbox_host.runtime.handle import PluginView
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.slot import Slot
    from sandbox_host.supervision.restart import RestartPolicy

_AT_A_TIME: Final = 8

P = TypeVar("P", bound="PluginView")


class _Replicas(Generic[P]):
    """What both faces have.

    Args:
        core: the host.
        pool: the replicas' places.
        plugins: handles of them, in the same order.

    Attributes:
        plugins: the same: each can be looked at by itself.
    """

    def __init__(self, core: HostCore, pool: Pool, plugins: tuple[P, ...]) -> None:
        self._core = core
        self._pool = pool
        self.plugins = plugins

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(one.name for one in self.plugins)}>"

    @property
    def ready(self) -> int:
        """How many take calls now."""
        return self._pool.ready

    def usage(self) -> dict[str, Usage]:
        """Return what each has cost so far, by its identity."""
        return {one.name: one.usage() for one in self.plugins}

    def _sending(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
    ) -> _Sending:
        return _Sending(self._pool, self.plugins, operation, arguments, keywords, deadline, limits)

    def _begun(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
        *,
        streams: bool = False,
    ) -> tuple[PluginProcess, Pending]:
        """Begin a call with one that takes calls now, and wait for nobody."""
        sending = self._sending(operation, arguments, keywords, deadline, limits)
        begun = sending.begin(streams=streams)
        return begun if begun is not None else sending.give_up()

    def _unload_all(self) -> None:
        self._core.pools.remove(self._pool)
        _unload(self._core, [one.name for one in self.plugins])

    def _reload_all(
        self, path: str | os.PathLike[str] | None, downgrades: Collection[Downgrade]
    ) -> None:
        for done, one in enumerate(self.plugins):
            try:
                # A state would be in one replica and not in another, as in `load_replicas`.
                self._core.reload(one.name, path, downgrades, check_stateless)
            except SandboxHostError as error:
                if not done:
                    raise
                text = f"{done} of {len(self.plugins)} replicas serve the new version: {one.name}"
                raise ReloadError(
                    f"{text} did not take it: {error.message}", plugin=one.name
                ) from error


class _Sending:
    """A call that is to be begun with one of several: whoever has ended has not taken it.

    Attributes:
        until: monotonic time until when the call may wait for one that takes it.
    """

    def __init__(
        self,
        pool: Pool,
        plugins: Sequence[PluginView],
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        deadline: float | None,
        limits: OperationLimits | None,
    ) -> None:
        self._pool = pool
        self._plugins = plugins
        self._operation = operation
        self._arguments, self._keywords = arguments, keywords
        self._deadline = deadline
        self._limits = limits
        self._tried: set[PluginProcess] = set()
        self._refusal: PluginEndedError | None = None
        self.until = 0.0

    def begin(self, *, streams: bool = False) -> tuple[PluginProcess, Pending] | None:
        """Begin it with the first that takes it; None where none takes calls now."""
        if self.until:
            self._deadline = max(0.0, self.until - time.monotonic())
        for number in self._pool.ranked():
            plugin, process = self._plugins[number], self._pool.slots[number].process
            if process in self._tried:
                continue
            self._tried.add(process)
            try:
                return plugin._try(  # noqa: SLF001 - these are made of those
                    self._operation,
                    self._arguments,
                    self._keywords,
                    self._deadline,
                    self._limits,
                    streams=streams,
                )
            except PluginEndedError as error:
                self._refusal = error  # it was not sent, and another may take it
        return None

    def waits(self) -> bool:
        """Tell whether one that was not tried is there, or may come in time."""
        if any(self._pool.slots[n].process not in self._tried for n in self._pool.ranked()):
            return True
        self.until = self.until or self._plugins[0]._patience(self._deadline)  # noqa: SLF001
        self._tried.clear()  # who hands over now may take calls again
        return self._pool.empty and time.monotonic() < self.until

    def give_up(self) -> NoReturn:
        """Raise why nobody took it.

        Raises:
            PluginEndedError: none runs.
        """
        let_go(self._arguments, self._keywords)
        if self._refusal is not None:
            raise self._refusal
        raise self._pool.choose().process.life.refusal()


class BlockingReplicas(_Replicas[BlockingPlugin]):
    """Replicas of a plugin; methods may be called from any thread."""

    def call(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call an operation of the replica that has the least to do; see `BlockingPlugin.call`.

        Raises:
            PluginEndedError: the replica that it was sent to ended before it answered, or none
                runs; one that ends before it was sent is left to another.
        """
        sending = self._sending(operation, args, kwargs, deadline, limits)
        while (begun := sending.begin()) is None:
            if not sending.waits():
                sending.give_up()
            self._pool.wait(sending.until)
        process, pending = begun
        process.channel.wait(pending)
        return process.talk.result(pending)

    def start(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> BlockingCall:
        """Begin a call of the replica that has the least to do; see `BlockingPlugin.start`."""
        process, pending = self._begun(operation, args, kwargs, deadline, limits)
        process.channel.attend()
        return BlockingCall(process, pending)

    def stream(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> BlockingStream:
        """Read what an operation of one replica yields; see `BlockingPlugin.stream`."""
        return BlockingStream(*self._begun(operation, args, kwargs, deadline, limits, streams=True))

    def reload(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        downgrades: Collection[Downgrade] = (),
    ) -> None:
        """Have another version take their places, one after the other.

        Raises:
            SandboxHostError: as of `SandboxHost.reload`, where the first did not take it: all
                serve as before.
            UsageError: the new version has a state that calls would miss; the same.
            ReloadError: a later one did not; the message says how many serve the new version.
        """
        self._reload_all(path, downgrades)

    def unload(self) -> None:
        """Let all finish what they have, clean up and leave."""
        self._unload_all()


class Replicas(_Replicas[Plugin]):
    """Replicas of a plugin, for asyncio; see `BlockingReplicas`."""

    async def call(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call an operation of the replica with the least to do; as `BlockingReplicas.call`."""
        sending = self._sending(operation, args, kwargs, deadline, limits)
        while (begun := sending.begin()) is None:
            if not sending.waits():
                sending.give_up()
            await occupied(self._pool, sending.until)
        process, pending = begun
        process.channel.poll_briefly(pending)
        return await Call(process, pending)

    def start(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Call:
        """Begin a call of the replica that has the least to do; see `Plugin.start`."""
        process, pending = self._begun(operation, args, kwargs, deadline, limits)
        process.channel.attend()
        return Call(process, pending)

    def stream(
        self,
        operation: str,
        /,
        *args: Any,
        deadline: float | None = None,
        limits: OperationLimits | None = None,
        **kwargs: Any,
    ) -> Stream:
        """Read what an operation of one replica yields; see `Plugin.stream`."""
        return Stream(*self._begun(operation, args, kwargs, deadline, limits, streams=True))

    async def reload(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        downgrades: Collection[Downgrade] = (),
    ) -> None:
        """Have another version take their places; see `BlockingReplicas.reload`."""
        await offload.start(lambda: self._reload_all(path, downgrades))

    async def unload(self) -> None:
        """Let all finish what they have, clean up and leave."""
        await offload.start(self._unload_all)


def load_replicas(
    core: HostCore,
    path: str | os.PathLike[str],
    count: int,
    downgrades: Collection[Downgrade],
    restart: RestartPolicy | None,
) -> Pool:
    """Load so many instances of a plugin; all, or none.

    Raises:
        UsageError: the count is out of range, or the plugin has a state that calls would miss.
        SandboxHostError: as of `SandboxHost.load`.
    """
    if not 1 <= count <= MAX_REPLICAS:
        text = f"{count} replicas are not from 1 to {MAX_REPLICAS}."
        raise UsageError(
            text, remedy="Each is a process: more of them than processors help little."
        )
    slots: list[Slot] = []

    def load(number: int) -> None:
        process = core.load(path, downgrades, None, restart, Instance(f"r{number}"))
        slots.append(core.slot(process))
        check_stateless(process)

    try:
        load(1)  # alone: what is wrong with the plugin is found once
        failed: list[Exception] = []

        def load_or_tell(number: int) -> None:
            try:
                load(number)
            except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
                failed.append(error)

        each(load_or_tell, list(range(2, count + 1)), _AT_A_TIME)
        if failed:
            raise failed[0]
    except BaseException:
        _unload(core, [slot.identity for slot in slots])
        raise
    pool = Pool(sorted(slots, key=lambda slot: int(slot.identity.rpartition("r")[2])))
    core.pools.add(pool)
    return pool


def unload_unwanted(core: HostCore, loading: asyncio.Future[Pool]) -> None:
    """Unload what a load whose caller was cancelled has loaded all the same; does not wait."""
    if not loading.cancelled() and loading.exception() is None:
        pool = loading.result()
        core.pools.remove(pool)
        for slot in pool.slots:
            slot.process.end(Ending(Cause.UNLOADED, f"The load of {slot.identity} was cancelled."))


def check_stateless(process: PluginProcess) -> None:
    """Refuse what would be in one replica and not in another.

    Raises:
        UsageError: it handles events, or has a state.
    """
    if process.handles:
        what = f"handles events ({', '.join(sorted(process.handles)[:3])}): each replica would"
    elif EXPORT in process.operations:
        what = f"has {EXPORT}(), and so a state: each replica would have its own"
    else:
        return
    text = f"{process.plan.manifest.identity} cannot have replicas: it {what}."
    raise UsageError(text, remedy="Load it once, or as instances that are called by their names.")


def _unload(core: HostCore, names: list[str]) -> None:
    def unload(name: str) -> None:
        with contextlib.suppress(SandboxHostError):  # it is gone, or told by its state
            core.unload(name)

    each(unload, names, _AT_A_TIME)

"""Several processes of one stateless plugin behind one handle.

Each replica is an instance of the plugin (`admission.instances`) with a data directory, budgets
and a life of its own: ``model@r1``, ``model@r2``. A call goes to the one that has the least to do;
who has ended gets none until it runs again. What is begun on one stays there: its stream, its
cancellation, its end. A plugin that answers by what it was told before would answer by chance,
which is why what shows that it has a state is refused.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sandbox_host.admission.instances import Instance
from sandbox_host.backends.worker import each
from sandbox_host.errors import PluginError, ReloadError, SandboxHostError, UsageError
from sandbox_host.model import State
from sandbox_host.runtime import offload
from sandbox_host.runtime.blocking import BlockingPlugin
from sandbox_host.runtime.plugin import Plugin
from sandbox_host.runtime.reloading import EXPORT

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

    from sandbox_host.admission.history import Downgrade
    from sandbox_host.model import Usage
    from sandbox_host.runtime.blocking import BlockingCall
    from sandbox_host.runtime.core import HostCore
    from sandbox_host.runtime.handle import PluginView
    from sandbox_host.runtime.plugin import Call
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.slot import Slot
    from sandbox_host.runtime.streaming import BlockingStream, Stream
    from sandbox_host.supervision.restart import RestartPolicy

MAX_REPLICAS: Final = 64

_AT_A_TIME: Final = 8

P = TypeVar("P", bound="PluginView")


def least_busy(outstanding: Sequence[int | None], turn: int) -> int:
    """Return which replica takes the next call.

    Args:
        outstanding: how much each has to answer; None for one that takes no calls now.
        turn: counts up; among equals each is next in its turn. Where none takes calls, it is the
            turn alone that decides: whoever is asked says why, or has the call wait.
    """
    count = len(outstanding)
    loads = [
        (load, (place - turn) % count, place)
        for place, load in enumerate(outstanding)
        if load is not None
    ]
    return min(loads)[2] if loads else turn % count


class _Replicas(Generic[P]):
    """What both faces have.

    Args:
        core: the host.
        plugins: handles of the replicas.

    Attributes:
        plugins: the same: each can be looked at by itself.
    """

    def __init__(self, core: HostCore, plugins: tuple[P, ...]) -> None:
        self._core = core
        self.plugins = plugins
        self._turns = itertools.count()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(one.name for one in self.plugins)}>"

    @property
    def ready(self) -> int:
        """How many take calls now."""
        return sum(_load(one) is not None for one in self.plugins)

    def usage(self) -> dict[str, Usage]:
        """Return what each has cost so far, by its identity."""
        return {one.name: one.usage() for one in self.plugins}

    def _next(self) -> P:
        loads = [_load(one) for one in self.plugins]
        return self.plugins[least_busy(loads, next(self._turns))]

    def _unload_all(self) -> None:
        _unload(self._core, [one.name for one in self.plugins])

    def _reload_all(
        self, path: str | os.PathLike[str] | None, downgrades: Collection[Downgrade]
    ) -> None:
        for done, one in enumerate(self.plugins):
            try:
                self._core.reload(one.name, path, downgrades)
            except SandboxHostError as error:
                if not done:
                    raise
                text = f"{done} of {len(self.plugins)} replicas serve the new version: {one.name}"
                raise ReloadError(
                    f"{text} did not take it: {error.message}", plugin=one.name
                ) from error


class BlockingReplicas(_Replicas[BlockingPlugin]):
    """Replicas of a plugin; methods may be called from any thread."""

    def call(
        self, operation: str, /, *arguments: Any, deadline: float | None = None, **keywords: Any
    ) -> Any:
        """Call an operation of the replica that has the least to do; see `BlockingPlugin.call`."""
        return self._next().call(operation, *arguments, deadline=deadline, **keywords)

    def start(
        self, operation: str, /, *arguments: Any, deadline: float | None = None, **keywords: Any
    ) -> BlockingCall:
        """Begin a call of the replica that has the least to do; see `BlockingPlugin.start`."""
        return self._next().start(operation, *arguments, deadline=deadline, **keywords)

    def stream(
        self, operation: str, /, *arguments: Any, deadline: float | None = None, **keywords: Any
    ) -> BlockingStream:
        """Read what an operation of one replica yields; see `BlockingPlugin.stream`."""
        return self._next().stream(operation, *arguments, deadline=deadline, **keywords)

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
            ReloadError: a later one did not; the message says how many serve the new version.
        """
        self._reload_all(path, downgrades)

    def unload(self) -> None:
        """Let all finish what they have, clean up and leave."""
        self._unload_all()


class Replicas(_Replicas[Plugin]):
    """Replicas of a plugin, for asyncio; see `BlockingReplicas`."""

    async def call(
        self, operation: str, /, *arguments: Any, deadline: float | None = None, **keywords: Any
    ) -> Any:
        """Call an operation of the replica that has the least to do; see `Plugin.call`."""
        return await self._next().call(operation, *arguments, deadline=deadline, **keywords)

    def start(
        self, operation: str, /, *arguments: Any, deadline: float | None = None, **keywords: Any
    ) -> Call:
        """Begin a call of the replica that has the least to do; see `Plugin.start`."""
        return self._next().start(operation, *arguments, deadline=deadline, **keywords)

    def stream(
        self, operation: str, /, *arguments: Any, deadline: float | None = None, **keywords: Any
    ) -> Stream:
        """Read what an operation of one replica yields; see `Plugin.stream`."""
        return self._next().stream(operation, *arguments, deadline=deadline, **keywords)

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
) -> list[Slot]:
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
        _check_stateless(process)

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
    return sorted(slots, key=lambda slot: int(slot.identity.rpartition("r")[2]))


def _check_stateless(process: PluginProcess) -> None:
    """Refuse what would be in one replica and not in another."""
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
        with contextlib.suppress(PluginError):  # it is gone already, or is told by its state
            core.unload(name)

    each(unload, names, _AT_A_TIME)


def _load(plugin: PluginView) -> int | None:
    """Return how much a replica has to answer; None where it takes no calls now."""
    slot = plugin._slot  # noqa: SLF001 - one of ours
    process = slot.process
    if process.state is not State.READY or slot.empty:
        return None
    return len(process.channel.unanswered)

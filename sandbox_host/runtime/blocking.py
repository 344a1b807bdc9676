"""The host for scripts and threads: ``with SandboxHost.blocking(HostConfig(...)) as host``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

from sandbox_host.config import HostConfig
from sandbox_host.errors import UsageError
from sandbox_host.ipc.calls import Pending
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
        self, path: str | os.PathLike[str], *, downgrades: Collection[Downgrade] = ()
    ) -> BlockingPlugin:
        """Verify, admit, confine, attest and start a plugin; see `SandboxHost.load`."""
        return BlockingPlugin(self._core.load(path, downgrades))

    def unload(self, name: str) -> None:
        """Let the plugin finish what it has, clean up and leave; see `SandboxHost.unload`."""
        self._core.unload(name)

    def plugin(self, name: str) -> BlockingPlugin:
        """Return a loaded plugin; see `SandboxHost.plugin`."""
        return BlockingPlugin(self._core.get(name))

    @property
    def plugins(self) -> dict[str, BlockingPlugin]:
        """All loaded plugins by name, those that failed included."""
        return {process.identity: BlockingPlugin(process) for process in self._core.plugins()}

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
        return self._core.publish(event_type, data)

    def subscribe(self, *types: str) -> BlockingEvents:
        """Return an iterator over events of these types; see `SandboxHost.subscribe`."""
        return BlockingEvents(self._core.subscribe(types))


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
        pending = self._begin(operation, args, kwargs, deadline, limits)
        self._process.channel.wait(pending)
        return self._process.talk.result(pending)

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
        pending = self._begin(operation, args, kwargs, deadline, limits)
        self._process.channel.wait(pending)
        return self._process.talk.metered(pending)

    def health(self) -> Verdict:
        """Ask the plugin how it is, add what the host sees, and return the verdict."""
        asked = ask(self._process)
        if isinstance(asked, Pending):
            self._process.channel.wait(asked)
        return judge_health(self._process, asked)


class BlockingEvents:
    """Events, for ``for``. Bounded: when it is read too slowly, the oldest are dropped."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody read them."""
        return self._subscription.dropped

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None at the timeout (seconds), or when it was closed."""
        return self._subscription.wait(timeout)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._subscription.wait(None)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End it."""
        self._subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""What is measured: plugins of ours, signed, verified, fully confined, with budgets and usage on.

Nothing is switched off for the measurement: every call has its deadline, is checked against the
limits and counted, and every layer of confinement that the machine has is in force.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from frame import NotThereError
from peer import Peer, awaited_trips, distinct
from signed import Publisher  # beside this file: it finds the rest

from sandbox_host import BlockingHost, BlockingPlugin, HostConfig, Plugin, SandboxHost
from sandbox_host.model import LayerStatus

OURS, OURS_ASYNC = "sandbox-host", "sandbox-host, asyncio"

ECHO = """
@operation
def echo(value):
    return value

@operation
def each(values):
    for value in values:
        yield value
"""


class Ground:
    """Where plugins of one measurement are written, signed and loaded.

    Args:
        directory: gets everything.
        decided: fields of every host's configuration.
    """

    def __init__(self, directory: Path, **decided: Any) -> None:
        self._directory = directory
        self._decided = decided
        self._hosts = 0
        self.trust_store = directory / "trust.toml"
        self.publisher = Publisher(directory / "plugins", self.trust_store)

    def config(self, **decided: Any) -> HostConfig:
        """Return the configuration of a host with a state directory of its own.

        Raises:
            NotThereError: this version of the host does not know one of the fields.
        """
        decided = {**self._decided, **decided}
        unknown = decided.keys() - HostConfig.model_fields.keys()
        if unknown:
            raise NotThereError(f"HostConfig has no field {', '.join(sorted(unknown))}")
        self._hosts += 1
        state = self._directory / f"state-{self._hosts}"
        return HostConfig(trust_store=self.trust_store, state_dir=state, **decided)


@contextmanager
def ground(**decided: Any) -> Iterator[Ground]:
    """Make a place for a measurement, and remove it.

    Args:
        **decided: fields of every host's configuration.
    """
    with tempfile.TemporaryDirectory() as directory:
        yield Ground(Path(directory), **decided)


def confinement(plugin: BlockingPlugin) -> str:
    """Say how many layers are in force, and which are not: what the figures hold for."""
    receipt = plugin.receipt
    missing = [r.layer for r in receipt.layers if r.status is not LayerStatus.ACTIVE]
    return f"{len(receipt.active)} layers in force; not there: {', '.join(missing) or 'none'}"


class OurPeer(Peer):
    """The blocking API; many calls go through `call_many`."""

    def __init__(self, plugin: BlockingPlugin) -> None:
        super().__init__(lambda payload: plugin.call("echo", payload))
        self.plugin = plugin

    def many(self, payload: bytes, calls: int, window: int) -> float:  # noqa: ARG002 - its own
        """See `Peer.many`."""
        arguments = [(value,) for value in distinct(payload, calls)]
        start = time.perf_counter()
        self.plugin.call_many("echo", arguments)
        return time.perf_counter() - start

    def pipelined(self, payload: bytes, calls: int, window: int) -> float:
        """Return the seconds of so many calls that were begun before they are waited for."""
        start = time.perf_counter()
        for _ in range(0, calls, window):
            begun = [self.plugin.start("echo", payload) for _ in range(window)]
            for call in begun:
                call.result()
        return time.perf_counter() - start

    def streamed(self, payload: bytes, calls: int) -> float:
        """Return the seconds of a stream of so many values, in and out."""
        values = distinct(payload, calls)
        start = time.perf_counter()
        for _ in self.plugin.stream("each", iter(values)):
            pass
        return time.perf_counter() - start


class OurAsyncPeer(Peer):
    """The asyncio API, awaited in a loop of its own that runs only in its turns."""

    def __init__(self, runner: asyncio.Runner, plugin: Plugin) -> None:
        super().__init__(lambda payload: runner.run(plugin.call("echo", payload)))
        self._runner, self._plugin = runner, plugin

    def trips(self, payload: bytes, calls: int) -> list[float]:
        """See `Peer.trips`."""
        return self._runner.run(awaited_trips(lambda: self._plugin.call("echo", payload), calls))

    def many(self, payload: bytes, calls: int, window: int) -> float:
        """See `Peer.many`."""

        async def gathered() -> float:
            start = time.perf_counter()
            for _ in range(0, calls, window):
                await asyncio.gather(*[self._plugin.call("echo", payload) for _ in range(window)])
            return time.perf_counter() - start

        return self._runner.run(gathered())


def our_peer(where: Ground, **keys: Any) -> Callable[[], AbstractContextManager[OurPeer]]:
    """Return what opens the blocking API with a plugin that echoes.

    Args:
        where: the plugin is written there.
        **keys: more of its plugin.json.
    """

    @contextmanager
    def opening() -> Iterator[OurPeer]:
        bundle = where.publisher.release("echo", ECHO, **keys)
        with SandboxHost.blocking(where.config()) as host:
            yield OurPeer(host.load(bundle))

    return opening


@contextmanager
def our_async_peer(where: Ground, bundle_of: str = "echo_async") -> Iterator[OurAsyncPeer]:
    """Open the asyncio API with a plugin that echoes."""
    bundle = where.publisher.release(bundle_of, ECHO)
    with asyncio.Runner() as runner, ExitStack() as stack:
        host = SandboxHost(where.config())
        runner.run(host.__aenter__())
        stack.callback(lambda: runner.run(host.__aexit__(None, None, None)))
        yield OurAsyncPeer(runner, runner.run(host.load(bundle)))


def handled(host: BlockingHost, plugins: list[BlockingPlugin], events: int) -> None:
    """Wait until each of these plugins has handled so many events, by its own count.

    Raises:
        NotThereError: events were dropped, so that they never will.
    """
    until = time.monotonic() + 60.0
    for plugin in plugins:
        while plugin.call("count") < events:
            lost = sum(info.dropped for info in host.subscriptions())
            if lost:
                raise NotThereError(f"{lost} events were dropped")
            if time.monotonic() > until:
                raise NotThereError("the events were not handled within a minute")
            time.sleep(0.0005)

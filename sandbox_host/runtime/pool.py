"""The places of one plugin's replicas: which takes the next call, and how plugins find them.

Who calls a plugin by its name, another plugin or a stage of a chain, reaches the plugin itself;
where only replicas of it are loaded, the one of those that has the least to do. An instance reaches
the instance of its own name first: tenants do not meet. A replica is no tenant, and has no such
neighbour.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING

from sandbox_host.errors import PluginNotFoundError
from sandbox_host.model import INSTANCE_MARK, State, identity_of, plugin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.runtime.slot import Slot


def ranked(outstanding: Sequence[int | None], turn: int) -> list[int]:
    """Return which replicas may take the next call, the one that is to take it first.

    Args:
        outstanding: how much each has to answer; None for one that takes no calls now.
        turn: counts up; among equals each is first in its turn.
    """
    count = len(outstanding)
    loads = [
        (load, (place - turn) % count, place)
        for place, load in enumerate(outstanding)
        if load is not None
    ]
    return [place for *_, place in sorted(loads)]


class Pool:
    """The places of all replicas of a plugin. Methods may be called from any thread.

    Attributes:
        plugin: the plugin's identity, without that of a replica.
        slots: the places, in order.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)
        self.plugin = plugin_of(self.slots[0].identity)[0]
        self._turns = itertools.count()

    def ranked(self) -> list[int]:
        """Return the numbers of those that take calls now, the least busy first."""
        return ranked([_load(slot) for slot in self.slots], next(self._turns))

    @property
    def ready(self) -> int:
        """How many take calls now."""
        return sum(_load(slot) is not None for slot in self.slots)

    @property
    def empty(self) -> bool:
        """None takes calls now, and one of them will."""
        return any(slot.empty for slot in self.slots) and not self.ready

    def choose(self) -> Slot:
        """Return the place for the next call: one that is to be taken, where none takes calls."""
        if numbers := self.ranked():
            return self.slots[numbers[0]]
        return next((slot for slot in self.slots if slot.empty), self.slots[0])

    def wait(self, until: float) -> None:
        """Block until one takes calls, or none will, or this monotonic time has come."""
        while self.empty and (left := until - time.monotonic()) > 0:
            news = threading.Event()
            self.on_change(news.set)
            news.wait(min(left, threading.TIMEOUT_MAX))

    def on_change(self, wake: Callable[[], object]) -> None:
        """Call this, from any thread, when something has changed; at once if it has."""
        waited = [slot for slot in self.slots if slot.empty]
        for slot in waited:
            slot.on_change(wake)
        if not waited:
            wake()


class Pools:
    """The pools of one host. Thread-safe: each step is one of a dict's.

    Args:
        find: returns the place of a loaded plugin by its identity.
    """

    def __init__(self, find: Callable[[str], Slot]) -> None:
        self._find = find
        self._pools: dict[str, Pool] = {}

    def add(self, pool: Pool) -> None:
        """Have it found by its plugin's name."""
        self._pools[pool.plugin] = pool

    def remove(self, pool: Pool) -> None:
        """Have it found no more."""
        if self._pools.get(pool.plugin) is pool:
            del self._pools[pool.plugin]

    def of(self, name: str) -> Pool | None:
        """Return the replicas of a plugin, loaded or not; None where there are none."""
        return self._pools.get(identity_of(name))

    def callee(self, name: str, caller: str = "") -> Slot:
        """Return the place that a call of a plugin goes to.

        Args:
            name: the plugin's.
            caller: identity of the plugin that calls; "" for the application.

        Raises:
            PluginNotFoundError: neither it nor replicas of it are loaded.
        """
        instance = plugin_of(caller)[1]
        if instance and not self._has(caller):
            neighbour = f"{name}{INSTANCE_MARK}{instance}"
            with contextlib.suppress(PluginNotFoundError):
                if not self._has(neighbour):
                    return self._find(neighbour)
        try:
            return self._find(name)
        except PluginNotFoundError:
            pool = self.of(name)
            if pool is None or not any(self._is_loaded(slot) for slot in pool.slots):
                raise
            return pool.choose()

    def stage(self, name: str) -> PluginProcess:
        """Return the process that a stage of a chain runs in; as `callee`."""
        return self.callee(name).process

    def _has(self, identity: str) -> bool:
        """Tell whether that is a replica."""
        pool = self._pools.get(plugin_of(identity)[0])
        return pool is not None and any(slot.identity == identity for slot in pool.slots)

    def _is_loaded(self, slot: Slot) -> bool:
        with contextlib.suppress(PluginNotFoundError):
            self._find(slot.identity)
            return True
        return False


def _load(slot: Slot) -> int | None:
    """Return how much a replica has to answer; None where it takes no calls now."""
    process = slot.process
    if process.state is not State.READY or slot.empty:
        return None
    return len(process.channel.unanswered)

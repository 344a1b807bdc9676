"""Which replica takes the next call, and whom a plugin reaches by a name."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.errors import PluginNotFoundError
from sandbox_host.model import State
from sandbox_host.runtime.pool import Pool, Pools, ranked
from sandbox_host.runtime.slot import Slot

LOADS = st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=9)


@given(LOADS, st.integers(0, 1 << 40))
def test_the_one_with_the_least_to_do_first(loads: list[int | None], turn: int) -> None:
    numbers = ranked(loads, turn)
    assert sorted(numbers) == [n for n, load in enumerate(loads) if load is not None]
    assert [loads[n] for n in numbers] == sorted(load for load in loads if load is not None)


@given(st.integers(1, 9), st.integers(0, 100), st.integers(0, 3))
def test_equals_take_turns(count: int, first: int, load: int) -> None:
    taken = Counter(ranked([load] * count, first + turn)[0] for turn in range(3 * count))
    assert set(taken.values()) == {3}


def slot(identity: str, load: int = 0, *, ended: bool = False) -> Slot:
    process: Any = SimpleNamespace(
        identity=identity,
        state=State.FAILED if ended else State.READY,
        life=SimpleNamespace(over=ended),
        channel=SimpleNamespace(unanswered=[None] * load),
    )
    return Slot(process)


def test_who_has_ended_takes_nothing() -> None:
    pool = Pool([slot("model@r1", ended=True), slot("model@r2", 2), slot("model@r3", 1)])
    assert (pool.plugin, pool.ready, pool.ranked()) == ("model", 2, [2, 1])
    assert pool.choose().identity == "model@r3"
    assert not pool.empty


def test_whoever_comes_first_ends_the_wait() -> None:
    pool = Pool([slot("model@r1"), slot("model@r2"), slot("model@r3", ended=True)])
    first, second, _ = pool.slots
    waited = threading.Event()

    def wait() -> None:
        pool.wait(time.monotonic() + 60.0)
        waited.set()

    with first.held():
        with second.held():
            assert pool.empty
            assert pool.choose() is first
            thread = threading.Thread(target=wait)
            thread.start()
            second.changed()  # it looks again, and goes on waiting
            assert not waited.is_set()
        assert waited.wait(30.0)
        thread.join()
    assert pool.ready == 2


def test_nobody_waits_for_nobody() -> None:
    pool = Pool([slot("model@r1", ended=True)])
    told = threading.Event()
    pool.wait(time.monotonic() + 60.0)
    pool.on_change(told.set)
    assert told.is_set()
    assert not pool.empty


class Loaded:
    """A host's plugins."""

    def __init__(self, *identities: str) -> None:
        self.slots = {one: slot(one) for one in identities}
        self.pools = Pools(self.find)

    def find(self, name: str) -> Slot:
        if name in self.slots:
            return self.slots[name]
        raise PluginNotFoundError(name, plugin=name)

    def replicas(self, plugin: str) -> Pool:
        pool = Pool([one for name, one in self.slots.items() if name.startswith(f"{plugin}@r")])
        self.pools.add(pool)
        return pool


@pytest.mark.parametrize(
    ("caller", "callee"),
    [
        ("", "source"),
        ("weather", "source"),
        ("weather@a", "source@a"),
        ("weather@b", "source"),
    ],
)
def test_tenants_do_not_meet(caller: str, callee: str) -> None:
    loaded = Loaded("source", "source@a", "source@c")
    assert loaded.pools.callee("source", caller).identity == callee


def test_replicas_are_found_by_their_plugins_name() -> None:
    loaded = Loaded("model@r1", "model@r2", "model@a", "weather@r1")
    pool = loaded.replicas("model")
    taken = [loaded.pools.callee("model", "weather@r1").identity for _ in range(4)]
    assert Counter(taken) == {"model@r1": 2, "model@r2": 2}  # no tenant called r1
    assert loaded.pools.callee("model", "weather@a").identity == "model@a"
    assert loaded.pools.stage("Model").identity in {"model@r1", "model@r2"}
    loaded.slots["model"] = slot("model")
    assert loaded.pools.callee("model").identity == "model"
    del loaded.slots["model"]
    loaded.pools.remove(pool)
    loaded.pools.remove(pool)
    with pytest.raises(PluginNotFoundError):
        loaded.pools.callee("model")


def test_a_replica_is_nobodys_tenant() -> None:
    loaded = Loaded("model@r1", "model@r2", "source@r1", "source@r2")
    loaded.replicas("model")
    loaded.replicas("source")
    taken = {loaded.pools.callee("source", "model@r1").identity for _ in range(2)}
    assert taken == {"source@r1", "source@r2"}


def test_replicas_that_were_unloaded_one_by_one_are_not_found() -> None:
    loaded = Loaded("model@r1")
    loaded.replicas("model")
    del loaded.slots["model@r1"]
    with pytest.raises(PluginNotFoundError):
        loaded.pools.callee("model")

"""Several processes of one plugin behind one handle: calls are spread, and survive one's end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, Permissions, RestartPolicy, SandboxHost, State
from sandbox_host.errors import (
    OperationError,
    PluginEndedError,
    PluginNotFoundError,
    ReloadError,
    StartError,
    UsageError,
)
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
ME = os.urandom(8).hex()  # a pid is the same one in each namespace

@operation
def who():
    return ME

@operation
def nap(seconds):
    time.sleep(seconds)
    return ME

@operation
def count(most):
    for number in range(most):
        yield (ME, number)
"""
RUNS = {State.STARTING, State.READY, State.DRAINING}
AT_ONCE = RestartPolicy(first_delay_seconds=0.0)


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        yield opened


def bundle(workshop: Workshop, more: str = "", **manifest: object) -> Path:
    return workshop.write(SOURCE + more, name="model", **manifest)


def test_calls_are_spread(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 3)
    assert [one.name for one in replicas.plugins] == ["model@r1", "model@r2", "model@r3"]
    assert replicas.ready == 3
    taken = Counter(replicas.call("who") for _ in range(9))
    assert sorted(taken.values()) == [3, 3, 3]
    # Whoever is at work gets no more while others have nothing to do.
    slow = replicas.start("nap", 5.0, deadline=20.0)
    busy = next(one for one in replicas.plugins if one._process.channel.outstanding())
    others = {one.call("who") for one in replicas.plugins if one is not busy}
    assert {replicas.call("who") for _ in range(8)} == others
    slow.cancel()
    with replicas.stream("count", 50) as stream:
        assert len({me for me, _ in stream}) == 1
    assert set(replicas.usage()) == set(host.plugins)
    replicas.unload()
    assert host.plugins == {}


def test_one_that_ends_is_missed_by_nobody(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 3, restart=AT_ONCE)
    over, lost = threading.Event(), []

    def calls() -> int:
        done = 0
        while not over.is_set():
            try:
                replicas.call("nap", 0.002, deadline=20.0)
            except PluginEndedError as error:  # one that it was at work on
                lost.append(error)
            done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(calls) for _ in range(4)]
        for one in replicas.plugins[:2]:
            os.kill(one.receipt.pid, signal.SIGKILL)
            assert eventually(lambda: replicas.ready < 3)
            assert eventually(lambda: replicas.ready == 3)
        over.set()
        assert all(one.result() for one in running)
    assert len(lost) <= 4 * 2  # a call of each caller for each kill, and none that came after


def test_what_one_does_not_take_is_anothers(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 2)
    first, second = replicas.plugins
    first._process.resting = True  # as one that ends: it was chosen, and takes no calls
    assert {replicas.call("who") for _ in range(4)} == {second.call("who")}
    assert replicas.start("who").result(20.0) == second.call("who")
    with replicas.stream("count", 2) as stream:
        assert [number for _, number in stream] == [0, 1]
    second._process.resting = True
    with pytest.raises(PluginEndedError):
        replicas.call("who")
    with pytest.raises(PluginEndedError):
        replicas.start("who")
    first._process.resting = second._process.resting = False
    assert replicas.call("who", deadline=20.0)


def test_calls_wait_for_whoever_comes_first(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 3)
    late, early, gone = (one._slot for one in replicas.plugins)
    os.kill(gone.process.receipt.pid, signal.SIGKILL)
    assert eventually(lambda: replicas.ready == 2)
    with late.held(), ThreadPoolExecutor(2) as pool:
        with early.held():
            calls = [pool.submit(replicas.call, "who", deadline=20.0) for _ in range(2)]
            with pytest.raises(PluginEndedError):
                replicas.call("who", deadline=0.01)
        assert {call.result() for call in calls} == {replicas.plugins[1].call("who")}


def test_other_plugins_and_chains_reach_them(workshop: Workshop) -> None:
    asks = "@operation\ndef ask():\n    return context().call('model.who')\n"
    permissions = {"calls": ["model.who"]}
    caller = workshop.write(asks, name="caller", permissions=permissions)
    grants = {"caller": Permissions(calls=("model.who",))}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        replicas = host.load_replicas(bundle(workshop, exports=["who"]), 2)
        plugin = host.load(caller)
        every = {one.call("who") for one in replicas.plugins}
        assert {plugin.call("ask") for _ in range(2)} == every
        assert {host.chain("model.who").call() for _ in range(2)} == every
        replicas.unload()
        with pytest.raises(OperationError, match="no plugin model is loaded"):
            plugin.call("ask")
        with pytest.raises(PluginNotFoundError):
            host.chain("model.who").call()


def test_one_that_crashes_at_its_start_leaves_none(host: BlockingHost, workshop: Workshop) -> None:
    crash = "if os.path.exists(os.path.join(context().data_dir, 'broken')):\n    os._exit(3)\n"
    path = bundle(workshop, crash)
    workshop.data_dir("model@r2").mkdir(mode=0o700, parents=True)
    (workshop.data_dir("model@r2") / "broken").touch()
    with pytest.raises(PluginEndedError, match="model@r2"):
        host.load_replicas(path, 3, restart=AT_ONCE)
    assert host.plugins == {}


def test_who_has_ended_for_good_gets_nothing(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 2)
    os.kill(replicas.plugins[0].receipt.pid, signal.SIGKILL)
    assert eventually(lambda: replicas.ready == 1)
    assert {replicas.call("who") for _ in range(4)} == {replicas.plugins[1].call("who")}
    os.kill(replicas.plugins[1].receipt.pid, signal.SIGKILL)
    assert eventually(lambda: replicas.ready == 0)
    with pytest.raises(PluginEndedError):
        replicas.call("who")


def test_a_new_version_one_after_the_other(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 2)
    replicas.reload(bundle(workshop, version="1.1.0"))
    assert {one.version for one in replicas.plugins} == {"1.1.0"}
    with pytest.raises((StartError, ReloadError)):
        replicas.reload(bundle(workshop, "raise RuntimeError('no')", version="1.2.0"))
    assert {one.version for one in replicas.plugins} == {"1.1.0"}
    assert replicas.ready == 2


def test_a_new_version_costs_no_call(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 2)
    over = threading.Event()

    def calls() -> int:
        done = 0
        while not over.is_set():
            replicas.call("nap", 0.001, deadline=20.0)
            done += 1
        return done

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(calls) for _ in range(3)]
        try:
            replicas.reload(bundle(workshop, version="1.1.0"))
        finally:
            over.set()
        assert all(one.result() for one in running)


@pytest.mark.parametrize(
    ("more", "manifest", "told"),
    [
        ("@on('user_action')\ndef act(event): pass\n", {"events": ["user_action"]}, "user_action"),
        ("def export_state(): return 1\ndef import_state(state): pass\n", {}, "export_state"),
    ],
    ids=["handles events", "has a state"],
)
def test_what_has_a_state_is_refused(
    host: BlockingHost, workshop: Workshop, more: str, manifest: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=f"cannot have replicas: .*{told}"):
        host.load_replicas(bundle(workshop, more, **manifest), 2)
    assert host.plugins == {}


@pytest.mark.parametrize("count", [0, -1, 65])
def test_so_many_at_most(host: BlockingHost, workshop: Workshop, count: int) -> None:
    with pytest.raises(UsageError, match="replicas are not from 1 to 64"):
        host.load_replicas(bundle(workshop), count)


def test_all_or_none(host: BlockingHost, workshop: Workshop) -> None:
    host.load(bundle(workshop), instance="r3")  # somebody has the third one's name
    with pytest.raises(Exception, match="model@r3 is loaded already"):
        host.load_replicas(bundle(workshop), 4)
    assert list(host.plugins) == ["model@r3"]


def test_with_asyncio(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            replicas = await host.load_replicas(bundle(workshop), 2)
            calls = [replicas.call("nap", 0.2, deadline=20.0) for _ in range(4)]
            assert sorted(Counter(await asyncio.gather(*calls)).values()) == [2, 2]
            await replicas.reload()
            assert replicas.ready == 2
            with pytest.raises(OperationError):
                await replicas.call("nap", "long")
            assert [number async for _, number in replicas.stream("count", 2)] == [0, 1]
            await replicas.unload()
            assert host.plugins == {}
            with pytest.raises(PluginEndedError):
                await replicas.call("who")
            loading = asyncio.ensure_future(host.load_replicas(bundle(workshop), 2))
            await asyncio.sleep(0)  # it has begun
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading

            def over() -> bool:
                return all(one.state not in RUNS for one in host.plugins.values())

            for _ in range(2_000):
                if len(host.plugins) == 2 and over():
                    break
                await asyncio.sleep(0.01)
            assert over()

    asyncio.run(run())


def test_a_new_version_with_a_state_is_not_taken(host: BlockingHost, workshop: Workshop) -> None:
    replicas = host.load_replicas(bundle(workshop), 2)
    more = "def export_state(): return 1\ndef import_state(state): pass\n"
    with pytest.raises(UsageError, match=r"cannot have replicas: .*export_state"):
        replicas.reload(bundle(workshop, more, version="1.1.0"))
    assert {one.version for one in replicas.plugins} == {"1.0.0"}
    assert replicas.ready == 2

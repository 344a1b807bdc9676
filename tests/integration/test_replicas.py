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

from sandbox_host import BlockingHost, RestartPolicy, SandboxHost
from sandbox_host.errors import PluginEndedError, ReloadError, StartError, UsageError
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
            await replicas.unload()
            assert host.plugins == {}

    asyncio.run(run())

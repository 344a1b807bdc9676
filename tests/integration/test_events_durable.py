"""Durable events: what a publisher was told is kept is kept, over restarts and crashes of hosts."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.errors import (
    EventStoreError,
    EventStoreFullError,
    EventStoreInUseError,
    OperationError,
    UsageError,
)
from sandbox_host.model import Permissions
from tests.support.host import Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

REPOSITORY = Path(__file__).parents[2]
PUBLISHER = """
@operation
def tell(*values):
    for value in values:
        context().publish("orders.new", value)

@operation
def tell_and_know(*values):
    return [context().publish("orders.new", value, acknowledged=True) for value in values]
"""


def load_publisher(workshop: Workshop, host: BlockingHost) -> Any:
    publish = {"permissions": {"publish": ["orders.new"]}, "events": ["orders.new"]}
    return workshop.loader(host)(PUBLISHER, name="publisher", **publish)


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_host_that_is_killed_loses_nothing_that_it_acknowledged(
    workshop: Workshop, count: int
) -> None:
    arguments = [str(workshop.trust_store), str(workshop.state_dir), str(count // 2)]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.support.durable_host", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=100,
    )
    assert killed.returncode == -signal.SIGKILL
    lines = killed.stdout.split()
    kept = {int(line[1:]) for line in lines if line[0] == "p"}
    acknowledged = {int(line[1:]) for line in lines if line[0] == "r"}
    assert len(kept) > count // 2 - 8
    assert acknowledged
    with SandboxHost.blocking(workshop.config()) as host:
        events = host.subscribe("orders.*", durable="billing")
        again = list(iter(lambda: events.get(timeout=0), None))
        for number in range(count // 2, count):  # the other half of them
            host.publish("orders.new", number + count)
        rest = [events.get(timeout=10) for _ in range(count // 2)]
    ids = [event.id for event in [*again, *rest] if event]
    assert ids == sorted(set(ids))
    data = {event.data for event in again}
    assert kept - acknowledged <= data
    assert [event.data for event in rest if event] == [*range(count + count // 2, 2 * count)]
    # Each publisher may have been killed between the disk and the pipe, and so may the reader.
    assert len(data - kept) <= 8


def test_what_a_plugin_is_told_is_kept_is_on_the_disk(workshop: Workshop) -> None:
    grants = {"publisher": Permissions(publish=("orders.*",))}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        publisher = load_publisher(workshop, host)
        assert len(publisher.call("tell_and_know", 0)) == 1  # where nobody keeps anything
        host.subscribe("orders.*", durable="billing").close()
        first, second = publisher.call("tell_and_know", 1, 2)
        with host.subscribe("orders.*", durable="billing") as kept:
            got = [kept.get(20), kept.get(20)]
        assert [(event.id, event.data) for event in got if event] == [(first, 1), (second, 2)]


def test_a_plugin_is_told_what_is_not_kept(workshop: Workshop) -> None:
    grants = {"publisher": Permissions(publish=("orders.*",))}
    with SandboxHost.blocking(workshop.config(grants=grants, durable_events=4)) as host:
        publisher = load_publisher(workshop, host)
        host.subscribe("orders.*", durable="billing").close()
        with pytest.raises(OperationError, match="ServiceError"):
            publisher.call("tell_and_know", 1, 2, 3)
        with host.subscribe("orders.*", durable="billing") as kept:
            assert [event.data for event in (kept.get(20), kept.get(20)) if event] == [1, 2]


def test_what_a_plugin_publishes_is_kept_too(workshop: Workshop) -> None:
    grants = {"publisher": Permissions(publish=("orders.*",))}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        host.subscribe("orders.*", durable="billing").close()
        load_publisher(workshop, host).call("tell", 1, 2, 3)
        assert eventually(lambda: [info.waiting for info in host.subscriptions()] == [3])
    with SandboxHost.blocking(workshop.config()) as host:
        events = host.subscribe("orders.*", durable="billing")
        got = [events.get(timeout=10) for _ in range(3)]
        assert [(e.data, e.source) for e in got if e] == [(n, "publisher") for n in (1, 2, 3)]


def test_a_plugin_that_floods_is_told_of_and_leaves_room(workshop: Workshop) -> None:
    grants = {"publisher": Permissions(publish=("orders.*",))}
    with SandboxHost.blocking(workshop.config(grants=grants, durable_events=10)) as host:
        host.subscribe("orders.*", durable="billing").close()
        publisher = load_publisher(workshop, host)
        with host.subscribe("error_occurred") as errors:
            publisher.call("tell", *range(20))
            error = errors.get(timeout=10)
        assert error is not None
        assert (error.data["plugin"], error.data["event"]) == ("publisher", "orders.new")
        assert '"billing" takes no more' in error.data["message"]
        for number in range(5):
            host.publish("orders.new", number)
        with pytest.raises(EventStoreFullError):
            host.publish("orders.new", 5)
        (info,) = host.subscriptions()
        assert (info.waiting, info.refused, info.dropped) == (10, 16, 0)
        assert publisher.state == "ready"


def test_the_hosts_own_events_may_find_no_room(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(durable_events=1)) as host:
        host.subscribe("plugin_*loaded", durable="all").close()
        workshop.loader(host)(name="sample")
        host.unload("sample")
        assert [info.refused for info in host.subscriptions()] == [1]


def test_one_host_has_the_store(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_host.runtime.events._PATIENCE_SECONDS", 0.01)
    with SandboxHost.blocking(workshop.config()) as first:
        with first.subscribe("orders.*", durable="billing") as events:
            with SandboxHost.blocking(workshop.config()) as second:
                for use in (
                    lambda: second.subscribe("orders.*", durable="billing"),
                    lambda: second.drop_durable("billing"),
                ):
                    with pytest.raises(EventStoreInUseError, match="state_dir"):
                        use()
                second.publish("orders.new", "the second's own")
            with pytest.raises(EventStoreInUseError):
                SandboxHost.blocking(workshop.config(require_event_store=True)).__enter__()
            assert events.get(timeout=0) is None
        first.publish("orders.new", 1)
    with SandboxHost.blocking(workshop.config(require_event_store=True)) as third:
        assert third.drop_durable("billing") == 1
        assert third.subscriptions() == ()


def test_a_store_that_is_damaged_is_not_begun_afresh(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        host.subscribe(durable="all").close()
    store = workshop.state_dir / "events.sqlite3"
    store.write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(EventStoreError, match="cannot be used"):
            SandboxHost.blocking(workshop.config()).__enter__()
    assert store.read_bytes() == b"damaged"


def test_a_forked_copy_of_the_host_leaves_the_store_alone(workshop: Workshop) -> None:
    script = """
import os, sys
from sandbox_host import HostConfig, SandboxHost
from sandbox_host.errors import SandboxHostError
with SandboxHost.blocking(HostConfig(trust_store=sys.argv[1], state_dir=sys.argv[2])) as host:
    events = host.subscribe(durable="all")
    host.publish("orders.new", 1)
    if os.fork() == 0:
        try:
            host.publish("orders.new", "the copy's")
        except SandboxHostError:
            sys.exit(3)  # with all that an interpreter does at its end
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 3
    host.publish("orders.new", 2)
    assert [events.get(10).data for _ in range(2)] == [1, 2]
"""
    arguments = [str(workshop.trust_store), str(workshop.state_dir)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with SandboxHost.blocking(workshop.config()) as host:
        events = host.subscribe(durable="all")
        assert [events.get(timeout=10).data for _ in range(2)] == [1, 2]  # type: ignore[union-attr]


def test_no_store_where_nobody_wants_one(workshop: Workshop, host: BlockingHost) -> None:
    host.publish("orders.new", 1)
    host.subscribe("orders.new").close()
    assert not list(workshop.state_dir.glob("events.*"))


@pytest.mark.parametrize(
    "options",
    [
        {"durable": "billing", "replay": 1},
        {"durable": "billing", "policy": "block", "deadline": 1.0},
        {"durable": "billing", "queue": 5},
        {"redeliver_after": 5.0},
        {"policy": "sometimes"},
        {"deadline": 1.0},
        {"replay": 10_000},
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together(host: BlockingHost, options: Any) -> None:
    with pytest.raises(UsageError):
        host.subscribe("orders.*", **options)
    assert host.subscriptions() == ()


def test_only_durable_events_are_acknowledged(host: BlockingHost) -> None:
    with host.subscribe("orders.*") as events:
        host.publish("orders.new")
        event = events.get(timeout=10)
        assert event is not None
        with pytest.raises(UsageError, match="durable"):
            events.ack(event)


def test_for_asyncio(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            events = host.subscribe("orders.*", durable="billing", redeliver_after=0.02)
            await asyncio.gather(*(host.publish("orders.new", n) for n in range(50)))
            got = [await anext(events) for _ in range(50)]
            assert [event.data for event in got] == list(range(50))
            for event in got[1:]:
                event.ack()  # type: ignore[attr-defined]
            assert (await anext(events)).id == got[0].id
            await events.aclose()
            assert [event async for event in events] == []
            assert await host.drop_durable("billing") == 1

    asyncio.run(run())

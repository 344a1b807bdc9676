"""Plugins that were loaded with a restart policy come back, under the handle that one has."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from threading import Event
from threading import enumerate as enumerate_threads
from typing import Any

import pytest

from sandbox_host import BlockingHost, RestartPolicy, SandboxHost
from sandbox_host.errors import (
    DeadlineExceededError,
    PluginEndedError,
    PluginNotFoundError,
    StartError,
)
from sandbox_host.model import Cause, State
from sandbox_host.observe.dossiers import DossierStore
from sandbox_host.observe.journal import last_entries
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
@operation
def die():
    os._exit(3)

@operation
def nap(seconds):
    context().progress(1, 2)
    time.sleep(seconds)
"""
ONLY_ONCE = """
mark = context().data_dir + "/started"
if os.path.exists(mark):
    raise RuntimeError("only once")
open(mark, "w").close()

@operation
def die():
    os._exit(3)
"""
AT_ONCE = RestartPolicy(first_delay_seconds=0.0)
SLOW = RestartPolicy(first_delay_seconds=1.0, jitter=0.0)


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        yield opened


def dies(plugin: Any) -> None:
    with pytest.raises(PluginEndedError):
        plugin.call("die")


def test_the_handle_serves_again(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE), restart=AT_ONCE)
    first = plugin.receipt.pid
    for _ in range(3):
        dies(plugin)
        assert plugin.call("echo", 1, deadline=20.0) == 1
    assert plugin.receipt.pid != first
    assert plugin.state is State.READY
    assert host.plugin(plugin.name).call("echo", 2) == 2


def test_calls_wait_for_it_within_their_deadlines(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE), restart=SLOW)
    dies(plugin)
    with pytest.raises(PluginEndedError):
        plugin.call("echo", 1, deadline=0.01)
    assert plugin.call("echo", 1, deadline=20.0) == 1


def test_killed_in_the_middle_of_a_call(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE), restart=AT_ONCE)
    call = plugin.start("nap", 30)
    assert eventually(lambda: call.progress == (1, 2))
    signal.pidfd_send_signal(plugin._process._child._pidfd, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(PluginEndedError) as ended:
        call.result(20)
    assert ended.value.cause == Cause.KILLED
    assert plugin.call("echo", 1, deadline=20.0) == 1


def test_too_often_is_quarantine_and_release_is_by_hand(
    host: BlockingHost, workshop: Workshop
) -> None:
    policy = RestartPolicy(first_delay_seconds=0.0, most_ends=3)
    plugin = host.load(workshop.write(SOURCE, name="fragile"), restart=policy)
    dies(plugin)
    plugin.call("echo", 1, deadline=20.0)
    dies(plugin)
    plugin.call("echo", 1, deadline=20.0)
    dies(plugin)
    too_often = "it ended 3 times within 60 s."
    assert eventually(lambda: host.quarantined("fragile").startswith(too_often))
    # Whoever is told of it is told where more stands.
    journal = workshop.config().journal_path
    assert eventually(lambda: bool(last_entries(journal, "quarantined")))
    assert plugin.dossier is not None
    assert host.quarantined("fragile") == f"{too_often} Its last dossier is {plugin.dossier}."
    assert str(plugin.dossier) in last_entries(journal, "quarantined")[0].detail
    assert plugin.dossier.exists()
    with pytest.raises(PluginEndedError):
        plugin.call("echo", 1)
    host.release("fragile")
    assert host.quarantined("fragile") == ""
    assert plugin.call("echo", 1, deadline=20.0) == 1
    with pytest.raises(PluginNotFoundError):
        host.release("fragile")


def test_who_does_not_start_again_is_quarantined(host: BlockingHost, workshop: Workshop) -> None:
    policy = RestartPolicy(first_delay_seconds=0.0, most_ends=3)
    plugin = host.load(workshop.write(ONLY_ONCE, name="lazy"), restart=policy)
    dies(plugin)
    assert eventually(lambda: "3 times" in host.quarantined("lazy"))
    with pytest.raises(PluginEndedError):
        plugin.call("die", deadline=5.0)


TOTAL = """
@operation
def total(values):
    return sum(values)
"""


def test_a_stream_that_is_passed_on_waits_as_its_call_does(
    host: BlockingHost, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin ends after it was looked at, and before the call is sent."""
    plugin = host.load(workshop.write(SOURCE + TOTAL), restart=AT_ONCE)
    talk = plugin._process.talk

    def begin(request: Any) -> Any:
        dies(host.plugin("sample"))
        return type(talk).begin(talk, request)

    def begin_once(request: Any) -> Any:
        monkeypatch.undo()
        return begin(request)

    monkeypatch.setattr(talk, "begin", begin_once)
    assert plugin.call("total", (number for number in range(4)), deadline=20.0) == 6


CRASHES_AGAIN = ONLY_ONCE.replace('raise RuntimeError("only once")', "os.abort()")


def test_a_crash_at_each_start_backs_off_up_to_a_cap_and_leaves_dossiers(
    host: BlockingHost, workshop: Workshop
) -> None:
    policy = RestartPolicy(
        first_delay_seconds=0.01, longest_delay_seconds=0.03, jitter=0.0, most_ends=6
    )
    plugin = host.load(workshop.write(CRASHES_AGAIN, name="brittle"), restart=policy)
    dies(plugin)
    with pytest.raises(PluginEndedError):  # whoever waits is told when nobody comes any more
        plugin.call("echo", 1, deadline=20.0)
    assert host.quarantined("brittle").startswith("it ended 6 times within 60 s.")
    config = workshop.config()
    assert eventually(lambda: bool(last_entries(config.journal_path, "quarantined")))
    due = [line.detail for line in last_entries(config.journal_path, "restart_due")]
    assert [detail.partition(":")[0] for detail in due] == [
        "in 0.01 s",
        *["in 0.02 s"],
        *["in 0.03 s"] * 3,
    ]
    (quarantined,) = last_entries(config.journal_path, "quarantined")
    assert quarantined.plugin == "brittle"
    assert "brittle crashed" in quarantined.detail
    store = DossierStore.of(config)
    assert eventually(lambda: len(store.ids()) == 6)
    dossiers = [store.read(one) for one in store.ids()]
    assert {dossier.plugin for dossier in dossiers} == {"brittle"}
    assert [dossier.cause for dossier in dossiers] == [Cause.CRASHED] * 5 + [Cause.EXITED]


def test_ends_far_apart_are_no_quarantine(host: BlockingHost, workshop: Workshop) -> None:
    policy = RestartPolicy(first_delay_seconds=0.0, most_ends=2, window_seconds=0.3)
    plugin = host.load(workshop.write(SOURCE, name="rarely"), restart=policy)
    for _ in range(3):
        dies(plugin)
        time.sleep(0.4)  # more than the window: that time passes is what this is about
        assert plugin.call("echo", 1, deadline=20.0) == 1
    assert host.quarantined("rarely") == ""


def test_who_is_unloaded_stays_away(host: BlockingHost, workshop: Workshop) -> None:
    path = workshop.write(SOURCE, name="leaver")
    plugin = host.load(path, restart=AT_ONCE)
    host.unload("leaver")
    with pytest.raises(PluginEndedError):
        plugin.call("echo", 1)
    with pytest.raises(PluginNotFoundError):
        host.plugin("leaver")
    # Loaded anew it is another affair, and without a policy it stays down.
    dies(host.load(path))
    assert host.quarantined("leaver") == ""
    assert plugin.state is State.FAILED


def test_who_is_unloaded_while_it_starts_again_stays_away(
    host: BlockingHost, workshop: Workshop
) -> None:
    slow = """
mark = context().data_dir + "/started"
if os.path.exists(mark):
    open(mark + "-again", "w").close()
    time.sleep(0.5)
open(mark, "w").close()
"""
    plugin = host.load(workshop.write(slow + SOURCE, name="slow"), restart=AT_ONCE)
    dies(plugin)
    assert eventually((workshop.data_dir("slow") / "started-again").exists)
    host.unload("slow")
    assert host.plugins == {}
    assert plugin._process.ended.wait(20)
    assert host.plugins == {}


def test_who_is_unloaded_before_it_starts_again_stays_away(
    host: BlockingHost, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workshop.write(SOURCE, name="late")
    plugin = host.load(path, restart=AT_ONCE)
    admit, verified, unloaded = host._core._launcher.admit, Event(), Event()

    def held(*arguments: Any) -> Any:
        found = admit(*arguments)
        verified.set()
        assert unloaded.wait(20)
        return found

    monkeypatch.setattr(host._core._launcher, "admit", held)
    dies(plugin)
    assert verified.wait(20)
    host.unload("late")
    unloaded.set()
    threads = lambda: {thread.name for thread in enumerate_threads()}  # noqa: E731 - used once
    assert eventually(lambda: "sandbox-host-restart-late" not in threads())
    assert host.plugins == {}
    monkeypatch.undo()
    assert host.load(path).call("echo", 1) == 1


def test_a_first_start_that_fails_is_no_affair_of_restarts(
    host: BlockingHost, workshop: Workshop
) -> None:
    path = workshop.write("raise RuntimeError('no')", name="never")
    with pytest.raises(StartError):
        host.load(path, restart=AT_ONCE)
    assert host.quarantined("never") == ""


def test_asyncio_waits_without_blocking_its_loop(workshop: Workshop) -> None:
    async def main() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(workshop.write(SOURCE), restart=SLOW)
            with pytest.raises(PluginEndedError):
                await plugin.call("die")
            turns = 0

            async def tick() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0.01)

            ticking = asyncio.ensure_future(tick())
            answers = await asyncio.gather(
                *(plugin.call("echo", n, deadline=20.0) for n in range(5))
            )
            ticking.cancel()
            assert answers == [0, 1, 2, 3, 4]
            assert turns > 10

    asyncio.run(main())


def test_a_deadline_in_the_plugin_is_not_retried(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(workshop.write(SOURCE), restart=AT_ONCE)
    before = plugin.call("pid")
    with pytest.raises(DeadlineExceededError):
        plugin.call("nap", 30, deadline=0.1)
    assert plugin.call("pid", deadline=20.0) == before

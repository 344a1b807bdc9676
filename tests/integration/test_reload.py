"""A new version takes a running one's place: no call is lost, and a broken one changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Permissions, RestartPolicy, SandboxHost
from sandbox_host.errors import (
    AdmissionError,
    HeldError,
    OperationError,
    PluginEndedError,
    PluginError,
    PluginNotFoundError,
    ReloadError,
    RollbackError,
    StartError,
    UsageError,
    VerificationError,
)
from sandbox_host.model import Cause, State
from sandbox_host.runtime.causes import Ending
from tests.support.host import HOLD, Workshop
from tests.support.traces import eventually

VERSION = """
@operation
def version():
    return "{0}"
"""
SICK = """
def health_check():
    return {"status": "error", "message": "no licence"}
"""


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config(grants={"*": Permissions()})) as opened:
        yield opened


def version(workshop: Workshop, number: str, more: str = "", **keys: Any) -> Path:
    source = VERSION.replace("{0}", number) + more
    return workshop.write(source, **{"name": "model", "version": f"{number}.0.0", **keys})


def serves_on(plugin: BlockingPlugin, number: str = "1") -> None:
    assert plugin.call("version") == number
    assert plugin.state is State.READY


def test_the_handle_serves_the_new_version(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(version(workshop, "1"))
    process = plugin._process
    again = host.reload("model", version(workshop, "2"))
    assert plugin.call("version") == again.call("version") == "2"
    assert plugin.version == "2.0.0"
    assert process.state is State.STOPPED
    assert host.plugins.keys() == {"model"}


def test_from_where_it_came_and_again(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(version(workshop, "1"))
    pids = {plugin.call("pid")}
    for _ in range(3):
        host.reload("model")
        pids.add(plugin.receipt.pid)
    assert len(pids) == 4
    host.unload("model")
    host.load(version(workshop, "1"))  # nothing is held any more


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda w: version(w, "2", "raise RuntimeError('broken')"), StartError, "broken"),
        (lambda w: version(w, "2", SICK), ReloadError, "no licence; the one before serves on"),
        (lambda w: version(w, "2", name="other"), UsageError, "no version of model"),
        (
            lambda w: version(w, "2", permissions={"write": ["/srv"]}),
            AdmissionError,
            "not granted",
        ),
        (lambda w: _tampered(version(w, "2")), VerificationError, "main.py"),
    ],
    ids=["broken", "unhealthy", "another plugin", "wants more", "tampered"],
)
def test_what_is_not_taken_changes_nothing(
    host: BlockingHost,
    workshop: Workshop,
    make: Any,
    error: type[Exception],
    told: str,
) -> None:
    plugin = host.load(version(workshop, "1"))
    with pytest.raises(error, match=told):
        host.reload("model", make(workshop))
    serves_on(plugin)
    host.reload("model", version(workshop, "3"))
    serves_on(plugin, "3")


def _tampered(path: Path) -> Path:
    main = path / "main.py"
    main.write_text(main.read_text() + "\n# more\n")
    return path


@pytest.mark.parametrize("what", ["raise RuntimeError('broken')", SICK], ids=["broken", "sick"])
def test_what_was_not_taken_does_not_keep_the_old_one_from_starting_again(
    tmp_path: Path, what: str
) -> None:
    """A publisher's versions are remembered: one that came back would be a rollback."""
    workshop = Workshop(tmp_path, role="publisher")
    policy = RestartPolicy(first_delay_seconds=0.0)
    die = "@operation\ndef die():\n    os._exit(1)\n"
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(version(workshop, "1", die), restart=policy)
        with pytest.raises(PluginError):
            host.reload("model", version(workshop, "2", what))
        with pytest.raises(PluginEndedError):
            plugin.call("die")
        assert plugin.call("version", deadline=20.0) == "1"
        host.reload("model", version(workshop, "3"))
        host.unload("model")
        with pytest.raises(RollbackError):
            host.load(version(workshop, "1", die))


def test_a_version_that_asks_for_more_is_held(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, role="publisher")
    grants = {"*": Permissions(publish=("weather.*",))}
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        plugin = host.load(version(workshop, "1"))
        more = version(workshop, "2", permissions={"publish": ["weather.rain"]})
        for _ in range(2):  # to have tried is no approval
            with pytest.raises(HeldError, match=r"weather\.rain"):
                host.reload("model", more)
        serves_on(plugin)


def test_a_probe_of_the_applications(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(version(workshop, "1"))
    seen = []

    def probe(new: BlockingPlugin) -> None:
        seen.append((new.call("version"), plugin.call("version")))
        new.call("no_such_thing")

    with pytest.raises(ReloadError, match="its probe failed"):
        host.reload("model", version(workshop, "2"), probe=probe)
    assert seen == [("2", "1")]
    serves_on(plugin)


def test_who_is_about_to_be_ended_is_not_taken(host: BlockingHost, workshop: Workshop) -> None:
    """It used too much at its start, say: it may show where it stands before it is killed."""
    plugin = host.load(version(workshop, "1"))

    def probe(new: BlockingPlugin) -> None:
        new._process.end(Ending(Cause.MEMORY, "it took too much."))
        assert new.state is State.READY

    with pytest.raises(ReloadError, match="it took too much"):
        host.reload("model", version(workshop, "2"), probe=probe)
    serves_on(plugin)


def test_what_was_begun_is_answered_by_who_was_asked(
    host: BlockingHost, workshop: Workshop
) -> None:
    plugin = host.load(version(workshop, "1", HOLD))
    old = plugin.start("hold", "mine")
    reloading = threading.Thread(target=host.reload, args=("model", version(workshop, "2")))
    reloading.start()
    assert eventually(lambda: plugin.version == "2.0.0")
    assert plugin.call("version") == "2"
    workshop.let_go("model")
    assert old.result(20) == "mine"
    reloading.join(20)


@pytest.mark.parametrize("face", ["threads", "asyncio"])
def test_no_call_is_lost_under_load(workshop: Workshop, face: str) -> None:
    versions = [version(workshop, str(number)) for number in range(1, 5)]
    run = _in_threads if face == "threads" else _in_a_loop
    answers = run(workshop, versions)
    assert set(answers) == {"1", "2", "3", "4"}
    assert len(answers) > 100


def _in_threads(workshop: Workshop, versions: list[Path]) -> list[str]:
    answers: list[str] = []
    with SandboxHost.blocking(workshop.config()) as host:
        plugin, done = host.load(versions[0]), threading.Event()

        def call() -> None:
            while not done.is_set():
                answers.append(plugin.call("version"))

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        for number, path in enumerate(versions[1:], 1):
            assert eventually(lambda count=40 * number: len(answers) > count)  # type: ignore[misc]
            host.reload("model", path)
        assert eventually(lambda: "4" in answers)
        done.set()
        for caller in callers:
            caller.join(20)
    return answers


def _in_a_loop(workshop: Workshop, versions: list[Path]) -> list[str]:
    answers: list[str] = []

    async def main() -> None:
        async with SandboxHost(workshop.config()) as host:
            plugin = await host.load(versions[0])

            async def call() -> None:
                while "4" not in answers:
                    answers.append(await plugin.call("version"))
                    await asyncio.sleep(0)

            callers = [asyncio.ensure_future(call()) for _ in range(8)]
            for number, path in enumerate(versions[1:], 1):
                while len(answers) < 40 * number:  # noqa: ASYNC110 - the callers tell nobody
                    await asyncio.sleep(0.001)
                await host.reload("model", path)
            await asyncio.gather(*callers)

    asyncio.run(main())
    return answers


RATE = 500
"""Calls a second, begun when their time has come, whatever became of those before."""


def test_500_calls_a_second_with_good_and_bad_versions(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, role="publisher")
    answers: list[str] = []

    async def begun(plugin: Any, over: asyncio.Event) -> list[asyncio.Task[str]]:
        tasks, start = [], time.monotonic()
        while not over.is_set():
            tasks.append(asyncio.ensure_future(plugin.call("version")))
            due = start + len(tasks) / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return tasks

    async def main() -> None:
        grants = {"*": Permissions(publish=("weather.*",))}
        more = version(workshop, "4", permissions={"publish": ["weather.rain"]})
        async with SandboxHost(workshop.config(grants=grants)) as host:
            plugin, over = await host.load(version(workshop, "1")), asyncio.Event()
            driver = asyncio.ensure_future(begun(plugin, over))
            await host.reload("model", version(workshop, "2"))
            with pytest.raises(StartError):
                await host.reload("model", version(workshop, "3", "raise RuntimeError"))
            with pytest.raises(HeldError):
                await host.reload("model", more)
            assert plugin.version == "2.0.0"
            await host.reload("model", version(workshop, "5"))
            while "5" not in answers[-1:]:
                answers.append(await plugin.call("version"))
            over.set()
            answers.extend(await asyncio.gather(*await driver))

    asyncio.run(main())
    assert set(answers) == {"1", "2", "5"}


def test_streams_and_started_calls_are_not_lost_either(
    host: BlockingHost, workshop: Workshop
) -> None:
    source = """
@operation
def several():
    yield from [1, 2]

@operation
def total(values):
    return sum(values)
"""
    plugin = host.load(version(workshop, "0", source))
    done = threading.Event()
    lost: list[object] = []

    def ask(one: Any, expected: object) -> None:
        while not done.is_set():
            try:
                if (got := one()) != expected:
                    lost.append(got)
            except PluginError as error:
                lost.append(error)

    asked = [
        (lambda: list(plugin.stream("several")), [1, 2]),
        (lambda: plugin.start("echo", 1).result(20), 1),
        (lambda: plugin.call("total", (number for number in (1, 2))), 3),
    ]
    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for number in range(1, 9):
        host.reload("model", version(workshop, str(number), source))
    done.set()
    for thread in threads:
        thread.join(20)
    assert lost == []


def test_a_plugin_that_others_call(workshop: Workshop) -> None:
    caller = """
        @operation
        def ask():
            return context().call("model.version")
    """
    state = """
def export_state():
    return 1

def import_state(state):
    pass
"""
    keys = {"exports": ["version"]}
    grants = {"caller": Permissions(calls=("model.*",))}
    answers: list[str] = []
    with SandboxHost.blocking(workshop.config(grants=grants)) as host:
        host.load(version(workshop, "1", state, **keys))
        permissions = {"calls": ["model.version"]}
        plugin = host.load(workshop.write(caller, name="caller", permissions=permissions))
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answers.append(plugin.call("ask"))

        asking = threading.Thread(target=ask)
        asking.start()
        for number in range(2, 6):
            host.reload("model", version(workshop, str(number), state, **keys))
            assert eventually(lambda now=str(number): now in answers)  # type: ignore[misc]
        done.set()
        asking.join(20)
    assert answers == sorted(answers)
    assert set(answers) == {"1", "2", "3", "4", "5"}


def test_the_old_one_is_killed_in_the_middle(host: BlockingHost, workshop: Workshop) -> None:
    policy = RestartPolicy(first_delay_seconds=0.0)
    plugin = host.load(version(workshop, "1"), restart=policy)
    outcomes: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                outcomes.append(plugin.call("version", deadline=20.0))
            except PluginEndedError as error:
                outcomes.append(error.cause)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    slow = "open(context().data_dir + '/begun', 'w').close()\ntime.sleep(0.3)\n"
    reloading = threading.Thread(target=host.reload, args=("model", version(workshop, "2", slow)))
    for thread in (*callers, reloading):
        thread.start()
    assert eventually((workshop.data_dir("model") / "begun").exists)
    assert plugin.version == "1.0.0"
    os.kill(plugin.receipt.pid, signal.SIGKILL)
    reloading.join(20)
    assert eventually(lambda: outcomes[-1] == "2")
    done.set()
    for caller in callers:
        caller.join(20)
    assert set(outcomes) <= {"1", "2", Cause.KILLED}
    assert outcomes.count(Cause.KILLED) <= len(callers)  # what was under way, and nothing else
    serves_on(plugin, "2")


def test_no_event_comes_twice_or_to_nobody(host: BlockingHost, workshop: Workshop) -> None:
    handler = """
@on("data_processed")
def take(event):
    with open(context().data_dir + "/seen", "a") as file:
        file.write(f"{event.data}\\n")
"""
    keys = {"events": ["data_processed"]}
    host.load(version(workshop, "1", handler, **keys))
    done = threading.Event()
    reloading = threading.Thread(
        target=lambda: (host.reload("model", version(workshop, "2", handler, **keys)), done.set())
    )
    reloading.start()
    sent = 0
    while not done.is_set():
        host.publish("data_processed", sent)
        sent += 1
        done.wait(0.002)
    reloading.join(20)
    seen = workshop.state_dir / "data" / "model" / "seen"
    assert eventually(lambda: len(seen.read_text().split()) == sent)
    assert sorted(map(int, seen.read_text().split())) == list(range(sent))


STATE = """
import threading
seen = []

@operation
def count(value):
    seen.append(value)
    return len(seen)

def export_state():
    return {"seen": seen}

def import_state(state):
    seen.extend(state["seen"])
"""


def test_state_goes_over_and_calls_wait_meanwhile(host: BlockingHost, workshop: Workshop) -> None:
    plugin = host.load(version(workshop, "1", STATE))
    counts: list[int] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            counts.append(plugin.call("count", 1))

    calling = threading.Thread(target=call)
    calling.start()
    for number in (2, 3):
        assert eventually(lambda least=20 * number: len(counts) > least)  # type: ignore[misc]
        host.reload("model", version(workshop, str(number), STATE))
    done.set()
    calling.join(20)
    assert plugin.version == "3.0.0"
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (STATE.replace("return {", "raise ValueError({"), STATE, r"export_state\(\) failed"),
        (STATE.replace('{"seen": seen}', "object()"), STATE, r"export_state\(\) failed"),
        (STATE, STATE.replace('state["seen"]', 'state["old"]'), r"import_state\(\) failed"),
    ],
    ids=["export", "not a value", "import"],
)
def test_a_state_that_does_not_go_over_keeps_the_old_one(
    host: BlockingHost, workshop: Workshop, old: str, new: str, told: str
) -> None:
    old = old.replace('({"seen": seen}', "(seen)")
    plugin = host.load(version(workshop, "1", old))
    assert plugin.call("count", 1) == 1
    with pytest.raises(ReloadError, match=told):
        host.reload("model", version(workshop, "2", new))
    serves_on(plugin)
    assert plugin.call("count", 1) == 2


def test_the_new_version_is_started_again(host: BlockingHost, workshop: Workshop) -> None:
    policy = RestartPolicy(first_delay_seconds=0.0)
    plugin = host.load(version(workshop, "1"), restart=policy)
    host.reload("model", version(workshop, "2", "@operation\ndef die():\n    os._exit(1)\n"))
    with pytest.raises(PluginEndedError):
        plugin.call("die")
    assert plugin.call("version", deadline=20.0) == "2"


def test_unloaded_while_a_new_version_starts(host: BlockingHost, workshop: Workshop) -> None:
    host.load(version(workshop, "1"))
    slow = "open(context().data_dir + '/begun', 'w').close()\ntime.sleep(0.5)\n"
    reloading = threading.Thread(target=host.reload, args=("model", version(workshop, "2", slow)))
    reloading.start()
    assert eventually((workshop.data_dir("model") / "begun").exists)
    host.unload("model")
    reloading.join(20)
    assert host.plugins == {}


def test_who_does_not_run_is_not_reloaded(host: BlockingHost, workshop: Workshop) -> None:
    with pytest.raises(PluginNotFoundError):
        host.reload("model", version(workshop, "1"))
    plugin = host.load(version(workshop, "1", "@operation\ndef die():\n    os._exit(1)\n"))
    with pytest.raises(PluginEndedError):
        plugin.call("die")
    with pytest.raises(PluginEndedError):
        host.reload("model", version(workshop, "2"))
    with pytest.raises(OperationError):
        host.load(version(workshop, "2", "@operation\ndef no():\n    raise ValueError\n")).call(
            "no"
        )

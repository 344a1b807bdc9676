"""Plugins that need each other: started and stopped in order, and what cannot be is told whole."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, Permissions, RestartPolicy, SandboxHost
from sandbox_host.errors import (
    AlreadyLoadedError,
    DependencyError,
    NeededError,
    OperationError,
    PluginEndedError,
    ReloadError,
    SandboxHostError,
    UnsignedError,
)
from sandbox_host.model import State
from tests.support.bundles import write_plugin
from tests.support.host import Workshop
from tests.support.traces import eventually

TOLD = """
from plugin_sdk import context

with open({0!r}, "a") as file:
    file.write("+" + {1!r} + "\\n")
"""


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        yield opened


def plugin(workshop: Workshop, name: str, *needs: str, source: str = "", **keys: Any) -> Path:
    return workshop.write(source, name=name, dependencies=list(needs), **keys)


def stops(host: BlockingHost) -> list[str]:
    """Return who was unloaded, in order, from the journal."""
    text = host._core._journal.path.read_text()
    return re.findall(r'"event": ?"unloaded",.*?"plugin": ?"(\w+)"', text)


def diamond(workshop: Workshop) -> list[Path]:
    """Return paths of four: top needs left and right, which need base; in no useful order."""
    return [
        plugin(workshop, "top", "left", "right >= 1.0"),
        plugin(workshop, "left", "base"),
        plugin(workshop, "base"),
        plugin(workshop, "right", "base >= 1, < 2", "core_framework >= 1.0"),
    ]


def test_a_diamond_starts_and_stops_in_order(host: BlockingHost, workshop: Workshop) -> None:
    loaded = host.load_all(diamond(workshop))
    assert loaded.failed == {}
    order = list(loaded.plugins)
    assert (order[0], sorted(order[1:3]), order[3]) == ("base", ["left", "right"], "top")
    assert all(one.state is State.READY for one in loaded.plugins.values())
    with pytest.raises(NeededError) as caught:
        host.unload("base")
    assert caught.value.dependants == ("left", "right", "top")
    assert caught.value.chains == (
        ("left", "base"),
        ("right", "base"),
        ("top", "left", "base"),
    )
    assert "left, right and top would lack it: left -> base; " in str(caught.value)
    assert caught.value.code == "needed"
    assert host.unload("top") == ("top",)
    gone = host.unload("base", dependants=True)
    assert (sorted(gone[:2]), gone[2]) == (["left", "right"], "base")
    assert host.plugins == {}
    assert stops(host)[-1] == "base"


def test_what_fails_keeps_back_who_needs_it_and_nobody_else(
    host: BlockingHost, workshop: Workshop
) -> None:
    paths = {
        "broken": plugin(workshop, "broken", source="raise OSError('no luck')"),
        "user": plugin(workshop, "user", "broken"),
        "far": plugin(workshop, "far", "user"),
        "a": plugin(workshop, "a", "b"),
        "b": plugin(workshop, "b", "c"),
        "c": plugin(workshop, "c", "a"),
        "lost": plugin(workshop, "lost", "nowhere >= 2"),
        "late": plugin(workshop, "late", "good >= 2"),
        "good": plugin(workshop, "good"),
        "glad": plugin(workshop, "glad", "good"),
    }
    unsigned = write_plugin(workshop.root / "unsigned", name="nowhere", version="2.0.0")
    loaded = host.load_all([unsigned, *paths.values()])
    assert list(loaded.plugins) == ["good", "glad"]
    assert isinstance(loaded.failed[unsigned], UnsignedError)
    said = {name: loaded.failed[path] for name, path in paths.items() if path in loaded.failed}
    assert said.keys() == paths.keys() - {"good", "glad"}
    assert said.pop("broken").code == "start"
    assert {error.code for error in said.values()} == {"dependency"}
    starts = {
        "user": "user cannot start: user -> broken: broken does not run: broken did not start",
        "far": "far cannot start: far -> user -> broken: broken does not run",
        "a": "a cannot start: a -> b -> c -> a: a, b and c need each other.",
        # An unsigned plugin.json decides nothing: it is as if it were not there.
        "lost": "lost cannot start: lost -> nowhere: lost needs nowhere >= 2, and there is no",
        "late": "late cannot start: late -> good: late needs good >= 2, and there is good 1.0.0",
    }
    for name, text in starts.items():
        error = said[name]
        assert isinstance(error, DependencyError)
        assert error.message.startswith(text)
        assert error.plugin == name
    assert said["far"].chains == (("far", "user", "broken"),)  # type: ignore[attr-defined]


def test_what_is_loaded_already_counts(host: BlockingHost, workshop: Workshop) -> None:
    model = plugin(workshop, "model", capabilities=["ai_model"], version="1.4.0")
    host.load(model)
    user = plugin(workshop, "user", "ai_model >= 1.2")
    choosy = plugin(workshop, "choosy", "ai_model >= 2")
    twins = [plugin(workshop, "twin"), plugin(workshop, "Twin")]
    loaded = host.load_all([choosy, user, model, *twins])
    assert list(loaded.plugins) == ["user"]
    assert "there is model 1.4.0" in str(loaded.failed[choosy])
    errors = [loaded.failed[path] for path in (model, *twins)]
    assert all(isinstance(error, AlreadyLoadedError) for error in errors)
    # Another provider does as well, and then the first may go.
    with pytest.raises(NeededError, match="user -> model"):
        host.unload("model")
    host.load(plugin(workshop, "other", capabilities=["ai_model"], version="1.3.0"))
    host.unload("model")
    with pytest.raises(NeededError, match="user -> other"):
        host.unload("other")


def test_one_by_one_what_is_missing_is_told_and_what_is_wrong_refused(
    host: BlockingHost, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    early = host.load(plugin(workshop, "early", "source >= 1", "nothing"))
    told = host.lacking("early")
    assert [text.split(",")[0] for text in told] == [
        "early needs source >= 1",
        "early needs nothing",
    ]
    assert "early runs without something that it needs: early needs source >= 1" in caplog.text
    assert '"dependency_missing"' in host._core._journal.path.read_text()
    host.load(plugin(workshop, "source", source="@operation\ndef die():\n    os._exit(1)\n"))
    assert [text.split(",")[0] for text in host.lacking("early")] == ["early needs nothing"]
    with pytest.raises(DependencyError, match=r"late needs source >= 2, and there is source 1\.0"):
        host.load(plugin(workshop, "late", "source >= 2"))
    with pytest.raises(PluginEndedError):
        host.plugin("source").call("die")
    with pytest.raises(DependencyError, match="source does not run: source"):
        host.load(plugin(workshop, "late", "source"))
    assert early.call("echo", 1) == 1
    assert host.unload("source") == ("source",)  # it does not run: nobody loses it


def test_the_host_ends_whoever_needs_whom(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugins = host.load_all(diamond(workshop)).plugins
    assert {one.state for one in plugins.values()} == {State.STOPPED}


def test_stopping_needs_no_order_that_there_is_not(host: BlockingHost, workshop: Workshop) -> None:
    """Loaded one by one, plugins may need each other, or what is not there."""
    host.load(plugin(workshop, "a", "b"))
    host.load(plugin(workshop, "b", "a"))
    host.load(plugin(workshop, "c", "b", "nothing"))
    with pytest.raises(NeededError):
        host.unload("a")
    gone = host.unload("a", dependants=True)
    assert sorted(gone) == ["a", "b", "c"]
    assert gone.index("c") < gone.index("b")


CALLEE = """
@operation
def version():
    return "{0}"
"""
CALLER = """
@operation
def asked():
    return context().call("source.version")
"""


def callee(workshop: Workshop, version: str, more: str = "", **keys: Any) -> Path:
    return workshop.write(
        CALLEE.replace("{0}", version) + more,
        **{"name": "source", "version": version, "exports": ["version"], **keys},
    )


def caller(workshop: Workshop, *needs: str, name: str = "caller") -> Path:
    permissions = {"calls": ["source.version"]}
    return plugin(workshop, name, *needs, source=CALLER, permissions=permissions)


@pytest.fixture
def calling(workshop: Workshop) -> Iterator[BlockingHost]:
    grants = {"caller": Permissions(calls=("source.version",))}
    with SandboxHost.blocking(workshop.config(grants=grants)) as opened:
        yield opened


def test_a_new_version_for_those_that_need_it(calling: BlockingHost, workshop: Workshop) -> None:
    first = callee(workshop, "1.0.0", capabilities=["data_source"])
    calling.load_all([caller(workshop, "source < 3", "data_source"), first])
    plugin_ = calling.plugin("caller")
    pid = plugin_.receipt.pid
    with pytest.raises(ReloadError) as caught:
        calling.reload("source", callee(workshop, "3.0.0", capabilities=["data_source"]))
    assert "caller needs source < 3, and there is source 3.0.0; the one before" in str(caught.value)
    assert caught.value.dependants == ("caller",)
    with pytest.raises(ReloadError, match="caller needs data_source, and there is no plugin or"):
        calling.reload("source", callee(workshop, "2.0.0"))
    needy = callee(workshop, "2.0.0", capabilities=["data_source"], dependencies=["nothing"])
    with pytest.raises(DependencyError, match=r"source needs nothing, .* serves on"):
        calling.reload("source", needy)
    assert plugin_.call("asked") == "1.0.0"
    calling.reload("source", callee(workshop, "2.0.0", capabilities=["data_source"]))
    assert plugin_.call("asked") == "2.0.0"
    assert plugin_.receipt.pid == pid


STATE = """
def export_state():
    time.sleep(0.05)
    return 1

def import_state(state):
    pass
"""


def test_under_load_dependants_go_on_with_the_new_version(
    calling: BlockingHost, workshop: Workshop
) -> None:
    versions = [callee(workshop, f"{n}.0.0", STATE if n > 2 else "") for n in range(1, 5)]
    loaded = calling.load_all([versions[0], caller(workshop, "source")])
    plugin_ = loaded.plugins["caller"]
    answers: list[str] = []
    errors: list[SandboxHostError] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                answers.append(plugin_.call("asked"))
            except SandboxHostError as error:
                errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for one in callers:
        one.start()
    for number, path in enumerate(versions[1:], 1):
        assert eventually(lambda least=20 * number: len(answers) > least)  # type: ignore[misc]
        calling.reload("source", path)
    assert eventually(lambda: "4.0.0" in answers)
    done.set()
    for one in callers:
        one.join(20)
    assert errors == []
    assert set(answers) == {"1.0.0", "2.0.0", "3.0.0", "4.0.0"}


DIE = "@operation\ndef die():\n    os._exit(1)\n"


def test_dependants_go_on_when_one_they_need_crashes(
    calling: BlockingHost, workshop: Workshop
) -> None:
    calling.load_all([callee(workshop, "1.0.0", DIE), caller(workshop, "source < 2")])
    with pytest.raises(PluginEndedError):
        calling.plugin("source").call("die")
    with pytest.raises(OperationError, match="source") as caught:
        calling.plugin("caller").call("asked")
    assert caught.value.type_name.endswith(".CallError")
    # And nothing else may take its place.
    with pytest.raises(DependencyError, match="caller needs source < 2, and there is source 2"):
        calling.load(callee(workshop, "2.0.0"))
    calling.load(callee(workshop, "1.1.0"))
    assert calling.plugin("caller").call("asked") == "1.1.0"


def test_nested_calls_wait_for_one_that_is_started_again(
    calling: BlockingHost, workshop: Workshop
) -> None:
    policy = RestartPolicy(first_delay_seconds=0.3)
    paths = [callee(workshop, "1.0.0", DIE), caller(workshop, "source")]
    calling.load_all(paths, restart=policy)
    with pytest.raises(PluginEndedError):
        calling.plugin("source").call("die")
    with pytest.raises(NeededError):  # it comes back
        calling.unload("source")
    assert calling.plugin("caller").call("asked", deadline=20.0) == "1.0.0"


def test_with_asyncio(workshop: Workshop) -> None:
    async def main() -> None:
        async with SandboxHost(workshop.config()) as host:
            paths = [plugin(workshop, "user", "base"), plugin(workshop, "base")]
            lost = plugin(workshop, "lost", "nowhere")
            loaded = await host.load_all([*paths, lost])
            assert list(loaded.plugins) == ["base", "user"]
            assert list(loaded.failed) == [lost]
            assert await loaded.plugins["user"].call("echo", 1) == 1
            with pytest.raises(NeededError):
                await host.unload("base")
            assert host.lacking("user") == ()
            assert await host.unload("base", dependants=True) == ("user", "base")

    asyncio.run(main())


def test_who_gives_up_waiting_has_nothing_loaded(workshop: Workshop) -> None:
    slow = "open(context().data_dir + '/begun', 'w').close()\ntime.sleep(0.3)\n"
    base = plugin(workshop, "base", source=slow)

    async def main() -> None:
        async with SandboxHost(workshop.config()) as host:
            task = asyncio.ensure_future(host.load_all([base, plugin(workshop, "user", "base")]))
            while not (workshop.data_dir("base") / "begun").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while host._core._starting or any(  # noqa: ASYNC110
                not process.ended.is_set() for process in host._core.plugins()
            ):
                await asyncio.sleep(0.01)
            assert "user" not in host.plugins

    asyncio.run(main())


def test_who_comes_and_who_goes_at_the_same_time(host: BlockingHost, workshop: Workshop) -> None:
    """One of the two is refused, and never does one run whose need has been unloaded."""
    base, user = plugin(workshop, "base"), plugin(workshop, "user", "base")
    for _ in range(4):
        host.load(base)
        outcome: list[str] = []

        def load(outcome: list[str] = outcome) -> None:
            outcome += host.load_all([user]).plugins

        loading = threading.Thread(target=load)
        loading.start()
        try:
            host.unload("base")
            outcome.append("unloaded")
        except NeededError:
            pass
        loading.join(20)
        assert len(outcome) <= 1
        for name in ("user", "base"):
            if name in host.plugins:
                host.unload(name, dependants=True)

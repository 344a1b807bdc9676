"""Each case of the wire's collection, from a real process in the real sandbox.

Each ends in the outcome that it names and by its deadline; meanwhile the host's memory stays flat
and another plugin answers.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.message import HOST
from plugin_sdk.wire.messages import Call, Confine, Confined, Load, Ready
from sandbox_host import BlockingHost, BlockingPlugin, Permissions, SandboxHost
from sandbox_host.broker.handlers import WINDOW
from sandbox_host.errors import DeadlineExceededError, PluginEndedError, PluginError
from sandbox_host.model import MIB
from sandbox_host.runtime.workspace import remove_tree
from tests.support.host import Workshop
from tests.support.traces import eventually
from tests.support.wire_attacker import SOURCE, frames, write_steps
from tests.support.wire_cases import ANSWERED, SERVING, VIOLATION, Case
from tests.support.wire_cases_of_bytes import VARIANTS
from tests.support.wire_cases_of_talk import A_MILLION
from tests.support.wire_collection import COLLECTION

GRANTS = Permissions(publish=("model_updated",), services=("greet", "wait"))
MAX_GROWTH_BYTES = 16 * MIB
STOP_SECONDS = 0.3


@dataclass
class Stage:
    """Where all cases are played: one host, one bundle, and a plugin that does no harm."""

    host: BlockingHost
    bundle: Path
    steps: Path
    other: BlockingPlugin

    def check_other(self, number: int = 1) -> None:
        """Another plugin answers, whatever goes on."""
        assert self.other.call("echo", number, deadline=20.0) == number


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    workshop = Workshop(tmp_path_factory.mktemp("wire"))
    config = workshop.config(grants={"*": GRANTS}, stop_timeout_seconds=STOP_SECONDS)
    bundle = workshop.write(
        name="hostile",
        files={"main.py": SOURCE},
        permissions={"publish": list(GRANTS.publish), "services": list(GRANTS.services)},
        events=["data_processed"],
    )
    with SandboxHost.blocking(config) as host:
        host.offer("greet", greet)
        host.offer("wait", wait)
        steps = workshop.data_dir("hostile") / "steps"
        made = Stage(host, bundle, steps, host.load(workshop.write(name="other")))
        host.subscribe("model_updated")  # which nobody reads
        first_word(made)
        yield made
    remove_tree(workshop.state_dir / "data")


def first_word(stage: Stage) -> None:
    """Load it once without a script: its data directory is made, and the host has warmed up."""
    with pytest.raises(PluginError):
        stage.host.load(stage.bundle)
    write_steps(stage.steps, [*SERVING, ("serve",)])
    plugin = stage.host.load(stage.bundle)
    assert plugin.call("echo", 1, deadline=10) == 1, plugin.log_tail()
    stage.host.unload("hostile")


def greet(name: str) -> str:
    return f"hello {name}"


def wait() -> None:
    """Take long enough for more to be asked."""
    time.sleep(0.3)


def peak_growth(doing: Callable[[], object]) -> int:
    """Return by how many bytes this process's memory grew at most while something was done."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is what there is now
    before = resident("VmRSS")
    doing()
    return resident("VmHWM") - before


def resident(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# -- what the host does ---------------------------------------------------------------------------


def call(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    started = plugin.start("echo", 1, deadline=case.deadline)
    stage.check_other()
    assert started.result() == 1


def two_calls(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    first, second = (plugin.start("echo", number, deadline=case.deadline) for number in (1, 2))
    stage.check_other()
    assert (first.result(), second.result()) == (1, 2)


def stream(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    items = plugin.stream("echo", 1, deadline=case.deadline)
    stage.check_other()
    list(items)


def unread_stream(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    items = plugin.stream("echo", 1, deadline=case.deadline)
    eventually(plugin._process.ended.is_set)
    stage.check_other()
    list(items)


def feed(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    started = plugin.start("echo", iter([1, 2, 3]), deadline=case.deadline)
    stage.check_other()
    assert started.result() == 1


def endless_feed(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    started = plugin.start("echo", itertools.repeat(bytes(10_000)), deadline=case.deadline)
    stage.check_other()
    assert started.result() == 1


def cancel(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    started = plugin.start("echo", 1, deadline=case.deadline)
    eventually(lambda: started.progress == (1, 2))
    started.cancel()
    stage.check_other()
    started.result()


def event(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    stage.host.publish("data_processed", {})
    stage.check_other()
    plugin.call("echo", 1, deadline=case.deadline)


def events(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    for _ in range(WINDOW):  # the first one goes alone
        stage.host.publish("data_processed", {})
    stage.check_other()
    plugin.call("echo", 1, deadline=case.deadline)


def unload(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    stage.host.unload("hostile")
    stage.check_other()
    cause = plugin.cause
    assert cause is not None
    raise PluginEndedError(plugin._process.cause_text, plugin="hostile", cause=cause)


DRIVES: dict[str, Callable[[Stage, BlockingPlugin, Case], None]] = {
    "call": call,
    "two calls": two_calls,
    "stream": stream,
    "stream, unread": unread_stream,
    "feed": feed,
    "endless feed": endless_feed,
    "cancel": cancel,
    "event": event,
    "events": events,
    "unload": unload,
    "load": lambda *_: None,
}


def outcome(doing: Callable[[], object]) -> tuple[str, str]:
    """Name what something came to, with what was said of it."""
    try:
        doing()
    except PluginEndedError as error:
        return str(error.cause), str(error)
    except DeadlineExceededError as error:
        return "deadline", str(error)
    except PluginError as error:
        return type(error).__name__, str(error)
    return ANSWERED, ""


def play(stage: Stage, case: Case) -> tuple[str, str]:
    """Play a case and return what it came to."""
    plugins: list[BlockingPlugin] = []

    def go() -> None:
        plugins.append(stage.host.load(stage.bundle))
        DRIVES[case.drive](stage, plugins[0], case)

    name, text = outcome(go)
    if case.then and plugins:
        follow(stage, plugins[0], case)
    stage.check_other(2)
    if case.told and name != ANSWERED:
        assert re.search(case.told, text), text
    assert text.isprintable()
    return name, text


def follow(stage: Stage, plugin: BlockingPlugin, case: Case) -> None:
    """See what the next call comes to; a breach that was on its way may take a moment."""
    if case.then == ANSWERED:
        assert plugin.call("echo", 5) == 5
        return
    name, text = outcome(
        lambda: plugin.call("echo", 5, deadline=0.2 if case.then == "deadline" else 10.0)
    )
    assert name == case.then, text
    if case.then == VIOLATION:
        assert re.search(case.told, text), text


def ident(case: Case) -> str:
    return case.name.replace(" ", "-")


@pytest.mark.parametrize("case", COLLECTION, ids=ident)
def test_case(stage: Stage, case: Case) -> None:
    write_steps(stage.steps, case.steps)
    came: list[Any] = []
    try:
        growth = peak_growth(lambda: came.append(play(stage, case)))
    finally:
        if "hostile" in stage.host.plugins:
            stage.host.unload("hostile")
    ((name, text),) = came
    assert name in case.outcome.split("|"), text
    assert growth <= MAX_GROWTH_BYTES


@pytest.mark.soak
@pytest.mark.parametrize("case", A_MILLION, ids=ident)
def test_a_million(stage: Stage, case: Case) -> None:
    test_case(stage, case)


@pytest.mark.parametrize(
    ("data", "told"), [pytest.param(*rest, id=name) for name, *rest in VARIANTS]
)
def test_variant(data: bytes, told: str) -> None:
    """The same without a process."""
    host = busy_host()
    with pytest.raises(RemoteProtocolError, match=told):
        host.receive_data(data)
    assert not host.events_received()


def busy_host() -> Connection:
    """Return a host's end at which call 1 is outstanding."""
    host = Connection(HOST)
    for message in (Confine(1, 1), Confined(1, 1), Load(), Ready(), Call(1, "echo", 0)):
        if message.sender == HOST:
            host.send(message)
        else:
            host.receive_data(frames(message))
    host.events_received()
    return host


def test_growth_is_seen_even_when_it_is_over() -> None:
    assert peak_growth(lambda: b"x" * (64 * MIB)) > 32 * MIB


def test_the_collection_is_large_enough_and_has_no_twins() -> None:
    assert len(COLLECTION) >= 60
    assert len({case.name for case in COLLECTION}) == len(COLLECTION)

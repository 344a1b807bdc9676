"""What a plugin may have the application do: by name, by grant, by a typed signature."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Limits, Permissions, SandboxHost
from sandbox_host.errors import (
    AdmissionError,
    DeadlineExceededError,
    OperationError,
    PluginEndedError,
    ReentrantCallError,
    ServiceError,
    UsageError,
)
from sandbox_host.model import MIB
from tests.support.host import Workshop
from tests.support.traces import eventually

SOURCE = """
from plugin_sdk import errors

@operation
def ask(*arguments, **keywords):
    return context().ask(*arguments, **keywords)

@operation
def asks(name, count):
    return [context().ask(name, number) for number in range(count)]

@operation
def ask_in_threads(name, count):
    found = {}
    def one(number):
        found[str(number)] = context().ask(name, number)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found

later = []

@operation
def ask_later(name):
    later.append(threading.Thread(target=lambda: later.append(context().ask(name, 1))))
    later[0].start()

@operation
def answers():
    later[0].join()
    return later[1:]

@operation
def what_it_meets(name, *arguments):
    try:
        return context().ask(name, *arguments)
    except (errors.PluginSdkError, PermissionError) as error:
        return [type(error).__name__, str(error)]

@operation
def ask_slowly(count, size):
    found = []
    def one():
        try:
            found.append(context().ask("slow", 1, text=b"x" * size))
        except errors.ServiceError as error:
            found.append(str(error))
    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    while len(found) < count:
        time.sleep(0.01)
        if len(found) == count - 2:
            return found  # two are being done or wait, and the others were refused
    return found

@operation
def lift_the_bounds():
    from plugin_sdk.wire import limits
    limits.ARGUMENTS = limits.VALUE

@on("user_action")
def handle(event):
    context().ask("note", event.data)
"""
ASKED = ["double", "note", "slow", "broken", "refusing", "call_back", "odd", "total"]
PERMISSIONS = {"services": ASKED, "threads": True}

Load = Callable[..., BlockingPlugin]


class Application:
    """Offers services, and remembers."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.go_on = threading.Event()
        self.host: BlockingHost | None = None
        self.met: list[str] = []

    def double(self, number: int, *, times: int = 2) -> int:
        return number * times

    def note(self, value: Any) -> None:
        self.noted.append(value)

    def slow(self, number: int, text: bytes = b"") -> int:
        self.go_on.wait(30)
        return number

    def broken(self, asked: str = "") -> None:
        text = f"the password is hunter2{asked}"
        raise RuntimeError(text)

    def total(self, numbers: list[int]) -> int:
        return sum(numbers)

    def refusing(self) -> None:
        text = "no such \x1b[31mcity"
        raise ServiceError(text)

    def call_back(self) -> None:
        assert self.host is not None
        try:
            self.host.plugin("sample").call("ask", "double", 1)
        except ReentrantCallError as error:
            self.met.append(str(error))

    def odd(self) -> object:
        return object()


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def plugin(workshop: Workshop, application: Application) -> Iterator[BlockingPlugin]:
    config = workshop.config(grants={"*": Permissions(services=tuple(ASKED))})
    with SandboxHost.blocking(config) as host:
        application.host = host
        for name in ASKED:
            host.offer(name, getattr(application, name))
        bundle = workshop.write(SOURCE, permissions=PERMISSIONS, events=["user_action"])
        yield host.load(bundle)
        application.go_on.set()


def test_it_is_done(plugin: BlockingPlugin) -> None:
    assert plugin.call("ask", "double", 21) == 42
    assert plugin.call("ask", "double", 21, times=3) == 63
    assert plugin.call("asks", "double", 200) == [2 * number for number in range(200)]
    told = {(entry.name, entry.value) for entry in plugin.receipt.permissions}
    assert {("services", name) for name in ASKED} <= told


def test_threads_may_ask(plugin: BlockingPlugin) -> None:
    found = plugin.call("ask_in_threads", "double", 20)
    assert found == {str(number): 2 * number for number in range(20)}


def test_a_thread_gets_its_answer_between_operations_and_during_one(
    plugin: BlockingPlugin, application: Application
) -> None:
    plugin.call("ask_later", "slow")
    assert plugin.call("asks", "double", 0) == []
    application.go_on.set()
    assert plugin.call("answers") == [1]


def test_handlers_may_ask(plugin: BlockingPlugin, application: Application) -> None:
    assert application.host is not None
    application.host.publish("user_action", {"a": [1, None]})
    assert eventually(lambda: application.noted == [{"a": [1, None]}])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["double", "1"], "argument 1: Input should be a valid integer"),
        (["double"], "number: Missing required argument"),
        (["double", 1, 2], "Unexpected positional argument"),
        (["double", True], "argument 1: Input should be a valid integer"),
    ],
    ids=["wrong type", "missing", "too many", "bool"],
)
def test_arguments_are_checked(plugin: BlockingPlugin, asked: list[Any], told: str) -> None:
    kind, text = plugin.call("what_it_meets", *asked)
    assert kind == "ServiceError"
    assert told in text


def test_what_goes_wrong_is_told_as_far_as_it_is_the_plugins(
    plugin: BlockingPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    kind, text = plugin.call("what_it_meets", "refusing")
    assert (kind, text) == ("ServiceError", '"refusing" was not done: no such \\x1b[31mcity')
    with caplog.at_level(logging.ERROR, "sandbox_host"):
        kind, text = plugin.call("what_it_meets", "broken")
    assert (kind, "hunter2" in text) == ("ServiceError", False)
    assert "hunter2" in caplog.text
    kind, text = plugin.call("what_it_meets", "odd")
    assert text == '"odd" was not done: its value cannot be carried'


def test_arguments_cost_the_host_little(plugin: BlockingPlugin) -> None:
    assert plugin.call("ask", "total", [1] * 30_000) == 30_000
    kind, text = plugin.call("what_it_meets", "total", [None] * 30_000)
    assert (kind, text.endswith("are not what it takes, in 30000 places")) == ("ServiceError", True)
    kind, text = plugin.call("what_it_meets", "total", [None] * 40_000)
    assert (kind, "32000" in text) == ("NotSerializableError", True)
    plugin.call("lift_the_bounds")
    with pytest.raises(PluginEndedError, match="broke the protocol"):
        plugin.call("ask", "total", [None] * 40_000)


def test_little_waits_for_its_turn(workshop: Workshop, application: Application) -> None:
    rate = 256 * MIB
    config = workshop.config(
        grants={"*": Permissions(services=("slow",))},
        ceilings=Limits(message_bytes_per_second=rate),
    )
    refused = '"slow" was not done: too much that the plugin asked for waits already'
    asked = {"permissions": {"services": ["slow"], "threads": True}}
    with SandboxHost.blocking(config) as host:
        host.offer("slow", application.slow)
        limits = {"message_bytes_per_second": rate}
        bundle = workshop.write(SOURCE, **asked, events=["user_action"], limits=limits)
        plugin = host.load(bundle)
        assert plugin.call("ask_slowly", 4, 7_000_000) == [refused, refused]
        application.go_on.set()
        assert plugin.call("ask", "slow", 2) == 2


def test_what_an_exception_says_cannot_forge_the_log(
    plugin: BlockingPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "sandbox_host"):
        for _ in range(200):
            plugin.call("what_it_meets", "broken", "\x1b[2J\nCRITICAL all is well")
    text = caplog.records[0].getMessage()
    assert "hunter2\\x1b[2J\n    | CRITICAL all is well" in text
    assert 'The service "broken" failed, asked for by sample' in text
    assert len(caplog.records) < 150


def test_a_service_must_not_call_who_waits_for_it(
    plugin: BlockingPlugin, application: Application
) -> None:
    assert plugin.call("ask", "call_back") is None
    told = "sample waits for this service, and cannot be called from within it. Answer it first;"
    (met,) = application.met
    assert met.startswith(told)
    assert plugin.call("ask", "double", 1) == 2


def test_the_deadline_goes_on(plugin: BlockingPlugin, application: Application) -> None:
    with pytest.raises(DeadlineExceededError):
        plugin.call("ask", "slow", 1, deadline=0.3)
    assert plugin.cause is None  # it ended the operation, not the plugin
    application.go_on.set()
    # What came too late is nobody's.
    assert plugin.call("ask", "double", 2) == 4


def test_one_that_waits_keeps_no_other_waiting(
    workshop: Workshop, plugin: BlockingPlugin, application: Application
) -> None:
    host = application.host
    assert host is not None
    asked = {"permissions": PERMISSIONS, "events": ["user_action"]}
    other = host.load(workshop.write(SOURCE, name="other", **asked))
    plugin.call("ask_later", "slow")
    assert other.call("ask", "double", 4, deadline=20.0) == 8


def test_unloading_while_it_waits(plugin: BlockingPlugin, application: Application) -> None:
    host = application.host
    assert host is not None
    plugin.call("ask_later", "slow")
    host.unload("sample")
    application.go_on.set()
    assert plugin.cause == "unloaded"


# -- who may --------------------------------------------------------------------------------------


def test_not_requested(workshop: Workshop, application: Application) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        host.offer("double", application.double)
        plugin = host.load(workshop.write(SOURCE, events=["user_action"]))
        kind, text = plugin.call("what_it_meets", "double", 1)
        assert kind == "PermissionDenied"
        assert '("services": ["double"])' in text


def test_not_granted_and_not_offered(workshop: Workshop, application: Application) -> None:
    asked = {"permissions": {"services": ["double"]}}
    with SandboxHost.blocking(workshop.config()) as host:
        host.offer("double", application.double)
        with pytest.raises(AdmissionError, match='calling the service "double" is not granted'):
            host.load(workshop.write(**asked))
    config = workshop.config(grants={"*": Permissions(services=("double",))})
    with (
        SandboxHost.blocking(config) as host,
        pytest.raises(AdmissionError, match="which this application does not offer"),
    ):
        host.load(workshop.write(**asked))


GOES_AROUND = """
from plugin_sdk.context import Context

@operation
def go_around(name, payload):
    return repr(context()._ask(name, payload))
"""


@pytest.mark.parametrize(
    ("name", "payload", "told"),
    [
        ("secret", b"\x92\x90\x80", "asked for the service 'secret' without the permission"),
        ("double", b"\x90", "no list of arguments and keywords"),
        ("double", b"\x92\x80\x80", "no list of arguments and keywords"),
        ("double", b"\xc1", "broke the protocol"),
    ],
    ids=["another", "no list", "no arguments", "no msgpack"],
)
def test_going_around_the_check_ends_it(
    workshop: Workshop, application: Application, name: str, payload: bytes, told: str
) -> None:
    config = workshop.config(grants={"*": Permissions(services=("double",))})
    with SandboxHost.blocking(config) as host:
        host.offer("double", application.double)
        plugin = host.load(workshop.write(GOES_AROUND, permissions={"services": ["double"]}))
        with pytest.raises(Exception, match="broke the protocol"):
            plugin.call("go_around", name, payload)
        assert plugin.cause == "protocol-violation"
        assert told in plugin._process.cause_text


def test_while_it_is_imported(workshop: Workshop, application: Application) -> None:
    config = workshop.config(grants={"*": Permissions(services=("note",))})
    source = """
        @operation
        def op():
            pass

        context().ask("note", 1)
    """
    with SandboxHost.blocking(config) as host:
        host.offer("note", application.note)
        host.load(workshop.write(source, permissions={"services": ["note"]}))
    assert application.noted == [1]


# -- what can be offered --------------------------------------------------------------------------


def no_annotation(value):  # type: ignore[no-untyped-def]  # the point
    return value


async def doubled(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@pytest.mark.parametrize(
    ("name", "function", "told"),
    [
        ("a b", len, "the name"),
        ("double", no_annotation, "its parameter value has no annotation"),
        ("taken", Application().double, "is offered already"),
        ("double", doubled, "is a coroutine function"),
    ],
    ids=["name", "annotation", "taken", "coroutine"],
)
def test_not_offered(
    workshop: Workshop, name: str, function: Callable[..., Any], told: str
) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        host.offer("taken", Application().double)
        with pytest.raises(UsageError, match=told):
            host.offer(name, function)


def test_coroutine_functions_run_in_the_loop(workshop: Workshop) -> None:
    config = workshop.config(grants={"*": Permissions(services=("double",))})

    asked = {"permissions": {"services": ["double"]}, "events": ["user_action"]}
    bundle = workshop.write(SOURCE, **asked)

    async def run() -> int:
        async with SandboxHost(config) as host:
            host.offer("double", doubled)
            plugin = await host.load(bundle)
            with pytest.raises(OperationError, match="should be a valid integer"):
                await plugin.call("ask", "double", "x")
            return int(await plugin.call("ask", "double", 4))

    assert asyncio.run(run()) == 8


def test_a_circle_of_two_is_found(workshop: Workshop, application: Application) -> None:
    """One waits for a service that calls another, which waits for one that calls the first."""
    names = ("call_other", "call_back")
    config = workshop.config(grants={"*": Permissions(services=names)})
    asked = {"permissions": {"services": list(names)}, "events": ["user_action"]}

    def call_other() -> list[Any]:
        return list(other.call("what_it_meets", "call_back"))

    def call_back() -> None:
        try:
            first.call("what_it_meets", "call_back", deadline=30.0)
        except ReentrantCallError as error:
            raise ServiceError(error.message) from None

    with SandboxHost.blocking(config) as host:
        host.offer("call_other", call_other)
        host.offer("call_back", call_back)
        other = host.load(workshop.write(SOURCE, name="other", **asked))
        first = host.load(workshop.write(SOURCE, **asked))
        kind, text = first.call("ask", "call_other", deadline=20.0)
        assert kind == "ServiceError"
        assert "sample waits for this service, by way of other, and cannot be called" in text
        # Nothing of it is left: another round goes as far.
        assert first.call("ask", "call_other", deadline=20.0) == [kind, text]

"""A plugin's runtime in another language, held against the host: docs/wire.md says enough.

The runtime is a process of its own behind the fake backend's pipes. It confines nothing, and so
runs only what is written here.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.message import HOST, PLUGIN
from plugin_sdk.wire.messages import Confine
from plugin_sdk.wire.versions import OURS
from sandbox_host import BlockingHost, BlockingPlugin, Permissions, SandboxHost
from sandbox_host.backends.linux.backend import _exchange, _report
from sandbox_host.errors import (
    ConfinementError,
    NoSuchOperationError,
    OperationError,
    PluginEndedError,
    ServiceError,
)
from sandbox_host.model import Cause, Receipt
from tests.support.fake_backend import FakeBackend, FakeChild, Peer
from tests.support.foreign_tools import needs_tool
from tests.support.host import Workshop

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Places

pytestmark = needs_tool("perl")

RUNTIME = Path(__file__).with_name("tiny_runtime.pl")
PATIENCE_SECONDS = 20.0
GRANTS = Permissions(publish=("model_updated",), services=("greet", "refuse"))


class ForeignBackend(FakeBackend):
    """Starts the foreign runtime, and goes through the handshake as the real backend does.

    Args:
        options: further arguments of the runtime.
    """

    def __init__(self, *options: object) -> None:
        super().__init__(self._live)
        self._options = [str(option) for option in options]

    def start(self, plan: SandboxPlan, places: Places, timeout: float) -> tuple[FakeChild, Receipt]:
        """Start the runtime and have it say that it is confined."""
        del places
        host, peer = Connection(HOST), Peer(Connection(PLUGIN), plan.identity)
        thread = threading.Thread(target=self._run, args=(peer,), name="foreign-runtime")
        child: Any = FakeChild(peer, host, next(self._pids), thread)
        self.children.append(child)
        thread.start()
        host.send(Confine(*OURS, payload=pack({"opaque": [1, 2, 3]})))
        try:
            _report(plan, child, _exchange(child, time.monotonic() + timeout))
        except BaseException:
            child.kill()
            child.wait(PATIENCE_SECONDS)
            child.close()
            raise
        return child, self._receipt(plan, child.pid)

    def _live(self, peer: Peer) -> None:
        """Run the process until it ends, or the host kills it."""
        ends = [peer.in_fd, peer.out_fd]
        command = ["perl", RUNTIME, *map(str, ends), *self._options]
        with subprocess.Popen(command, pass_fds=ends) as process:
            process_fd = os.pidfd_open(process.pid)
            try:
                select.select([process_fd, peer._stop_read], [], [], PATIENCE_SECONDS)
            finally:
                os.close(process_fd)
                process.kill()
        peer.finish(code=process.returncode if process.returncode >= 0 else 0)


OpenHost = Callable[..., BlockingHost]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def open_host(workshop: Workshop) -> Iterator[OpenHost]:
    """Open a host whose plugins run in the foreign runtime, started with the given arguments."""
    with ExitStack() as stack:

        def opened(*options: object) -> BlockingHost:
            config = workshop.config(grants={"*": GRANTS})
            backend = ForeignBackend(*options)
            host = stack.enter_context(SandboxHost.blocking(config, backend=backend))
            host.offer("greet", greet)
            host.offer("refuse", refuse)
            return host

        yield opened


def greet(name: str) -> str:
    return f"hello {name}"


def refuse() -> None:
    text = "not today"
    raise ServiceError(text)


@pytest.fixture
def bundle(workshop: Workshop) -> Path:
    permissions = {"publish": ["model_updated"], "services": ["greet", "refuse"]}
    return workshop.write(permissions=permissions, events=["user_action"])


@pytest.fixture
def plugin(open_host: OpenHost, bundle: Path) -> BlockingPlugin:
    return open_host().load(bundle)


VALUES = [
    None,
    True,
    False,
    0,
    127,
    128,
    -1,
    -32,
    -33,
    -(2**63),
    2**64 - 1,
    65_536,
    1.5,
    -0.1,
    float("inf"),
    "",
    "Zürich ☃",
    "x" * 70_000,
    b"",
    bytes(range(256)),
    [],
    {},
    {"a": [1, {"b": [None, b"\x00"]}], "ключ": "значение"},
    list(range(70_000)),
]


def test_values_come_back_equal(plugin: BlockingPlugin) -> None:
    for value in VALUES:
        back = plugin.call("echo", value)
        assert back == value
        assert type(back) is type(value)
    assert plugin.call("count", *range(20)) == 20


def test_failures_are_typed(plugin: BlockingPlugin) -> None:
    with pytest.raises(NoSuchOperationError, match="there is no operation absent"):
        plugin.call("absent")
    with pytest.raises(OperationError, match=r"Trouble at tiny_runtime\.pl: as it was asked to"):
        plugin.call("fails")
    assert plugin.call("echo", "after") == "after"


def test_events_in_both_directions(open_host: OpenHost, bundle: Path) -> None:
    host = open_host()
    plugin = host.load(bundle)
    events = host.subscribe("model_updated")
    plugin.call("announce", "model_updated", {"rows": 3})
    event = next(events)
    assert (event.type, event.data, event.source) == ("model_updated", {"rows": 3}, "sample")
    host.publish("user_action", {"clicked": [1, 2]})
    assert plugin.call("last_event") == {"clicked": [1, 2]}


def test_services(plugin: BlockingPlugin) -> None:
    assert plugin.call("use_service", "greet", "Ada") == "hello Ada"
    with pytest.raises(OperationError, match="not today"):
        plugin.call("use_service", "refuse")
    assert plugin.call("use_service", "greet", "Grace") == "hello Grace"


def test_many_calls_at_once(plugin: BlockingPlugin) -> None:
    found: dict[int, Any] = {}

    def call(number: int) -> None:
        found[number] = plugin.call("echo", number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert found == {number: number for number in range(20)}


def test_a_clean_end(open_host: OpenHost, bundle: Path) -> None:
    host = open_host()
    plugin = host.load(bundle)
    host.unload("sample")
    assert plugin.cause is Cause.UNLOADED
    (child,) = host._core._backend.children  # type: ignore[attr-defined]  # the fake one's
    assert child.peer.exit.code == 0


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        ("answer_another", "which is not outstanding"),
        ("handle_a_call", "which is not outstanding"),
        ("be_ready_again", "Ready is not allowed while running"),
        ("speak_for_the_host", "not for the peer to send"),
        ("invent_a_message", "unknown message number 99"),
        ("add_a_field", "Result has 2 fields, not 1"),
        ("ask_twice_the_same", "reuses the id 1"),
        ("ask_for_more", "without the permission"),
        ("publish_more", "without the permission"),
        ("same_key_twice", "same key twice"),
        ("huge_header", "header of 1025 bytes"),
        ("huge_payload", "payload of 8388609 bytes"),
    ],
)
def test_breaches_end_it(plugin: BlockingPlugin, operation: str, told: str) -> None:
    with pytest.raises(PluginEndedError, match=told) as caught:
        plugin.call(operation)
    assert caught.value.cause is Cause.PROTOCOL_VIOLATION


def test_answering_twice_ends_it_after_the_first_answer(plugin: BlockingPlugin) -> None:
    assert plugin.call("answer_twice") is None
    with pytest.raises(PluginEndedError, match="which is not outstanding") as caught:
        plugin.call("echo")
    assert caught.value.cause is Cause.PROTOCOL_VIOLATION


@pytest.mark.parametrize("stubborn", [(), ("stubborn",)], ids=["told", "found out"])
def test_no_common_version_names_both_ranges(
    open_host: OpenHost, bundle: Path, stubborn: tuple[str, ...]
) -> None:
    with pytest.raises(ConfinementError, match="the host speaks version 1 of") as caught:
        open_host(7, 9, *stubborn).load(bundle)
    assert "the plugin's runtime versions 7 to 9" in str(caught.value)
    assert caught.value.layer == "protocol-version"


def test_a_newer_runtime_that_speaks_our_version_as_well(open_host: OpenHost, bundle: Path) -> None:
    assert open_host(OURS[1], 9).load(bundle).call("echo", "still") == "still"

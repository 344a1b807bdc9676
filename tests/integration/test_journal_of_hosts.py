"""The journal as hosts write it: what happened, and that nobody else wrote it."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.errors import JournalError, PluginEndedError
from sandbox_host.observe.journal import last_entries, utc_now, verify_journal
from sandbox_host.observe.journal_rotation import start_new
from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")


def lines(workshop: Workshop) -> list[bytes]:
    return workshop.config().journal_path.read_bytes().splitlines(keepends=True)


def told(workshop: Workshop) -> list[str]:
    return [json.loads(line)["event"] for line in lines(workshop)]


def changed(data: list[bytes]) -> None:
    data[1] = data[1].replace(b'"detail":"', b'"detail":"no ')


def removed(data: list[bytes]) -> None:
    del data[1]


def moved(data: list[bytes]) -> None:
    data[0], data[1] = data[1], data[0]


def cut(data: list[bytes]) -> None:
    del data[-1]


@pytest.mark.parametrize(
    ("damage", "line"),
    [(changed, 2), (removed, 2), (moved, 1), (cut, 3)],
    ids=lambda v: str(v)[:14],
)
def test_no_host_starts_on_a_journal_that_was_changed(workshop: Workshop, damage, line) -> None:
    for _ in range(1):
        with SandboxHost.blocking(workshop.config()):
            pass
    assert told(workshop) == ["host_started", "history_started", "host_stopped"]
    data = lines(workshop)
    damage(data)
    path = workshop.config().journal_path
    path.write_bytes(b"".join(data))
    fault = verify_journal(path)
    assert fault is not None
    assert fault.line == line
    for _ in range(2):
        host = SandboxHost.blocking(workshop.config())
        with pytest.raises(JournalError, match=rf"line {line}: ") as caught:
            host.__enter__()
        assert "sandbox-host journal new --reason" in caught.value.remedy
    assert path.read_bytes() == b"".join(data)
    start_new(path, "a test", utc_now())
    with SandboxHost.blocking(workshop.config()):
        assert told(workshop)[:2] == ["journal-new", "host_started"]
    assert verify_journal(path) is None


def test_the_first_use_of_a_permission(workshop: Workshop, host: BlockingHost) -> None:
    source = """
        @operation
        def tell(event):
            context().publish(event, None)
    """
    plugin = host.load(workshop.write(source, permissions={"publish": ["a_*"]}))
    with host.subscribe("a_1", "a_2") as events:
        for name in ("a_1", "a_1", "a_2"):
            plugin.call("tell", name)
            assert events.get(10) is not None
    host.unload("sample")
    uses = last_entries(workshop.config().journal_path, "permission_used")
    assert [(one.plugin, one.detail) for one in uses] == [
        ("sample", "publish: a_1"),
        ("sample", "publish: a_2"),
    ]


def test_the_first_connection_to_an_address(workshop: Workshop) -> None:
    source = """
        import socket

        @operation
        def reach(port):
            with socket.create_connection(("127.0.0.1", port), 10):
                return True
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        asked = {"network": [f"127.0.0.1:{port}"]}
        with SandboxHost.blocking(workshop.config(grants={"sample": asked})) as host:
            plugin = host.load(workshop.write(source, permissions=asked))
            assert [plugin.call("reach", port) for _ in range(2)] == [True, True]
    (use,) = last_entries(workshop.config().journal_path, "permission_used")
    assert (use.plugin, use.detail) == ("sample", f"network: 127.0.0.1:{port}")


def test_lives_of_a_plugin(workshop: Workshop, host: BlockingHost) -> None:
    bundle = workshop.write()
    plugin = host.load(bundle)
    os.kill(plugin.receipt.pid, signal.SIGKILL)
    with pytest.raises(PluginEndedError):
        plugin.call("echo")
    assert plugin._process.ended.wait(20)
    host.unload("sample")
    host.load(bundle)
    host.unload("sample")
    entries = last_entries(workshop.config().journal_path, plugin="sample")
    assert [one.event for one in entries] == [
        *("verified", "admitted", "starting", "started", "ended"),
        *("verified", "admitted", "starting", "started", "stopping", "unloaded"),
    ]


def test_a_plugin_that_the_host_ends_and_that_is_loaded_again(
    workshop: Workshop, host: BlockingHost
) -> None:
    source = """
        @operation
        def eat():
            held = []
            while True:
                held.append(bytearray(4 << 20))
    """
    bundle = workshop.write(source, limits={"memory": "96 MiB"})
    plugin = host.load(bundle)
    with pytest.raises(Exception, match="memory"):
        plugin.call("eat")
    plugin._process.ended.wait(20)
    host.load(bundle)
    events = [one.event for one in last_entries(workshop.config().journal_path, plugin="sample")]
    assert "killed" in events
    assert events[-4:] == ["verified", "admitted", "starting", "restarted"]


def test_a_changed_configuration_is_named(workshop: Workshop) -> None:
    for grants in ({}, {}, {"sample": {"env": ["TOKEN"]}}):
        with SandboxHost.blocking(workshop.config(grants=grants)):
            pass
    entries = last_entries(workshop.config().journal_path, "configuration_changed")
    assert [one.detail for one in entries] == ["grants"]


def test_hosts_of_one_state_directory_share_it(workshop: Workshop, tmp_path: Path) -> None:
    with SandboxHost.blocking(workshop.config()) as one:
        with SandboxHost.blocking(workshop.config()):
            one.load(workshop.write())
        one.unload("sample")
    assert verify_journal(workshop.config().journal_path) is None
    assert told(workshop).count("host_started") == 2

"""Plugins are looked at again and again; who hangs is told from who works; trouble is told of."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Permissions, RestartPolicy, SandboxHost
from sandbox_host.errors import OperationError, PluginNotFoundError
from sandbox_host.model import Cause, State
from sandbox_host.monitoring_terms import AlertSettings
from tests.support.host import Workshop
from tests.support.traces import eventually

SWITCHED = """
def mood():
    try:
        return open(context().data_dir + "/mood").read()
    except FileNotFoundError:
        return "healthy"

@operation
def health_check():
    word = mood()
    while word == "hung":
        time.sleep(0.05)
    while word == "deaf":
        try:
            time.sleep(0.05)
        except BaseException:
            pass
    return {"status": word, "message": "as told"}

@operation
def fail():
    raise ValueError("no")

@operation
def nap(seconds):
    time.sleep(seconds)
    return "rested"

@operation
def burn(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return "burnt"
"""
AT_ONCE = RestartPolicy(first_delay_seconds=0.0)
QUICK = {"health_check_interval": 30.0, "health_check_timeout": 150.0}
"""Milliseconds. A busy machine may take longer for an answer: then one look says nothing yet."""


@pytest.fixture
def opened(workshop: Workshop) -> Iterator[Callable[..., BlockingHost]]:
    hosts: list[BlockingHost] = []

    def open_host(**options: Any) -> BlockingHost:
        host = SandboxHost.blocking(workshop.config(**QUICK | options))
        hosts.append(host.__enter__())
        return host

    yield open_host
    for host in hosts:
        host.__exit__(None, None, None)


def put(workshop: Workshop, mood: str, name: str = "sample") -> None:
    (workshop.data_dir(name) / "mood").write_text(mood)


def becomes(host: BlockingHost, status: str, name: str = "sample") -> bool:
    return eventually(lambda: host.health(name).status == status)


def events(workshop: Workshop) -> list[tuple[str, str, str]]:
    lines = map(json.loads, workshop.config().journal_path.read_text().splitlines())
    return [(line["event"], line["plugin"], line["detail"]) for line in lines]


def test_worse_and_better(opened: Callable[..., BlockingHost], workshop: Workshop) -> None:
    host = opened()
    with host.subscribe("error_occurred") as told:
        host.load(workshop.write(SWITCHED))
        assert eventually(lambda: host.health("sample").looked_at is not None)
        first = host.health("sample")
        assert first.status == "healthy"
        put(workshop, "warning")
        assert becomes(host, "degraded")
        worse = host.health("sample")
        assert "as told" in worse.message
        assert worse.since > first.since
        assert worse.metrics["memory_usage"]
        put(workshop, "healthy")
        assert becomes(host, "healthy")
        event = told.get(20)
        assert event is not None
        assert event.source == "host"
        assert (event.data["rule"], event.data["severity"]) == ("health", "warning")
        assert event.data["kind"] == "raised"
    assert host.plugin("sample").state is State.READY
    written = [event for event, plugin, _ in events(workshop) if plugin]
    assert [one for one in written if one in {"degraded", "recovered"}] == ["degraded", "recovered"]


@pytest.mark.parametrize("mood", ["hung", "deaf"])
def test_who_hangs_is_ended_and_started_again(
    opened: Callable[..., BlockingHost], workshop: Workshop, mood: str
) -> None:
    host = opened()
    plugin = host.load(workshop.write(SWITCHED), restart=AT_ONCE)
    first, process = plugin.receipt.pid, plugin._process
    put(workshop, mood)
    assert process.ended.wait(20)
    put(workshop, "healthy")
    assert process.cause is Cause.UNRESPONSIVE
    assert "did not answer" in process.cause_text
    assert eventually(lambda: plugin.state is State.READY)
    assert plugin.call("echo", 1, deadline=20.0) == 1
    assert plugin.receipt.pid != first
    assert becomes(host, "healthy")
    assert "killed" in [event for event, _, _ in events(workshop)]


def test_who_hangs_and_is_not_supervised_is_told_only(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    host = opened(stop_timeout_seconds=0.2)
    plugin = host.load(workshop.write(SWITCHED))
    other = host.load(workshop.write(SWITCHED, name="other"))
    put(workshop, "deaf")
    assert becomes(host, "unhealthy")
    assert host.health("sample").message == "it did not answer the health check"
    seen = host.health("other").looked_at
    assert eventually(lambda: host.health("other").looked_at != seen)  # nobody waits for it
    assert other.call("echo", 1) == 1
    assert plugin.state is State.READY
    assert host.health("sample").status == "unhealthy"


def test_who_works_is_busy_and_not_dead(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    host = opened()
    plugin = host.load(workshop.write(SWITCHED), restart=AT_ONCE)
    call = plugin.start("burn", 1)
    assert eventually(lambda: host.health("sample").busy)
    assert call.result(20) == "burnt"
    assert host.health("sample").status == "healthy"
    assert not [event for event, _, _ in events(workshop) if event in {"degraded", "killed"}]


def test_who_sleeps_in_a_call_is_not_ended_within_its_deadline(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    host = opened(health_check_timeout=50.0)
    plugin = host.load(workshop.write(SWITCHED), restart=AT_ONCE)
    # Not told from one that hangs; but a deadline is its end already.
    assert plugin.start("nap", 1.5).result(20) == "rested"
    assert becomes(host, "healthy")
    assert "killed" not in [event for event, _, _ in events(workshop)]


def test_who_waits_for_the_application_is_busy(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    go = threading.Event()

    def slow() -> int:
        go.wait(20)
        return 5

    host = opened(grants={"sample": {"services": ["slow.answer"]}})
    host.offer("slow.answer", slow)
    source = "@operation\ndef wait():\n    return context().ask('slow.answer')\n"
    permissions = {"services": ["slow.answer"]}
    plugin = host.load(workshop.write(SWITCHED + source, permissions=permissions))
    call = plugin.start("wait")
    try:
        assert eventually(lambda: host.health("sample").busy)
        seen = host.health("sample").looked_at
        assert eventually(lambda: host.health("sample").looked_at != seen)
        assert host.health("sample").status == "healthy"
    finally:
        go.set()
    assert call.result(20) == 5


def test_failing_calls_make_it_worse(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    host = opened(health_check_timeout=10_000.0)
    plugin: BlockingPlugin = host.load(workshop.write(SWITCHED))

    def calls_fail() -> bool:
        for _ in range(5):
            with pytest.raises(OperationError):
                plugin.call("fail")
        return host.health("sample").status == "unhealthy"

    assert eventually(calls_fail)
    assert "of its calls fail" in host.health("sample").message
    assert becomes(host, "healthy")


def test_what_another_plugin_asks_for_in_vain_does_not_make_it_worse(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    """Else whoever may call a plugin could have it called unhealthy, by what it cannot take."""
    host = opened(health_check_timeout=10_000.0, grants={"*": Permissions(calls=("victim.fail",))})
    victim: BlockingPlugin = host.load(
        workshop.write(SWITCHED, name="victim", exports=["fail"], events=[])
    )
    source = """
@operation
def attack():
    for _ in range(20):
        try:
            context().call("victim.fail")
        except Exception:
            time.sleep(0.01)
"""
    calls = {"calls": ["victim.fail"]}
    attacker = host.load(workshop.write(source, name="attacker", permissions=calls))
    attacker.call("attack")
    assert victim.usage().failures == 20
    looks = set()

    def looked_again() -> bool:
        looks.add(host.health("victim").looked_at)
        return len(looks) > 3

    assert eventually(looked_again)
    assert not [one for one in events(workshop) if one[0] == "degraded"]
    assert victim.health().status == "healthy"


def test_nobody_looks_where_the_operator_does_not_want_it(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    host = opened(enable_monitoring=False)
    host.load(workshop.write(SWITCHED))
    assert host.health("sample").message == "nobody looks: enable_monitoring is false"
    assert "sandbox-host-health" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(PluginNotFoundError):
        host.health("another")


def test_who_has_ended_is_unhealthy(
    opened: Callable[..., BlockingHost], workshop: Workshop
) -> None:
    host = opened()
    plugin = host.load(workshop.write("@operation\ndef die():\n    os._exit(3)\n"))
    with pytest.raises(Exception, match="exit status 3"):
        plugin.call("die")
    assert becomes(host, "unhealthy")
    assert "exit status 3" in host.health("sample").message


# -- sinks -------------------------------------------------------------------------------------


class _Taker(BaseHTTPRequestHandler):
    taken: list[Any]

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.taken.append((self.path, json.loads(self.rfile.read(size))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def taken() -> Iterator[tuple[str, list[Any]]]:
    handler = type("Taker", (_Taker,), {"taken": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook?token=1", handler.taken
        server.shutdown()
        thread.join()


def test_webhook_and_command_are_told_of_a_crash_and_of_its_end(
    opened: Callable[..., BlockingHost],
    workshop: Workshop,
    taken: tuple[str, list[Any]],
    tmp_path: Path,
) -> None:
    url, posts = taken
    notes = tmp_path / "notes of alerts"
    code = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
    alerts = AlertSettings(
        webhook=url,
        command=(sys.executable, "-c", code, str(notes)),
        journal=True,
        pause_seconds=0.0,
    )
    host = opened(alerts=alerts)
    plugin = host.load(workshop.write("@operation\ndef die():\n    os._exit(3)\n"), restart=AT_ONCE)
    with pytest.raises(Exception, match="exit status 3"):
        plugin.call("die")
    assert plugin.call("echo", 1, deadline=20.0) == 1
    kinds = lambda told: [(one["rule"], one["kind"]) for one in told]  # noqa: E731 - short
    expected = [("ended", "raised"), ("ended", "recovered")]
    assert eventually(lambda: kinds([body for _, body in posts])[:2] == expected)
    assert posts[0][0] == "/hook?token=1"
    assert posts[0][1]["plugin"] == "sample"
    assert posts[0][1]["severity"] == "error"
    assert "exit status 3" in posts[0][1]["message"]
    read = lambda: [json.loads(line) for line in notes.read_text().splitlines()]  # noqa: E731
    assert eventually(lambda: notes.exists() and kinds(read())[:2] == expected)
    assert eventually(lambda: [e for e, _, _ in events(workshop)].count("alert") >= 2)


def test_a_flood_of_trouble_is_told_once(
    opened: Callable[..., BlockingHost], workshop: Workshop, taken: tuple[str, list[Any]]
) -> None:
    url, posts = taken
    host = opened(alerts=AlertSettings(webhook=url))
    policy = RestartPolicy(first_delay_seconds=0.0, most_ends=4)
    plugin = host.load(workshop.write("@operation\ndef die():\n    os._exit(3)\n"), restart=policy)

    def dies() -> bool:
        with pytest.raises(Exception, match=r"ended|exit status"):
            plugin.call("die", deadline=20.0)
        return bool(host.quarantined("sample"))

    assert eventually(dies)
    assert eventually(lambda: {body["rule"] for _, body in posts} == {"ended", "quarantine"})
    assert len([body for _, body in posts if body["rule"] == "ended"]) == 1

"""How plugins end, and floods of everything a plugin can send."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import Publish, Result
from sandbox_host.backends.base import Exit
from sandbox_host.errors import (
    AlreadyLoadedError,
    BudgetExceededError,
    ConfinementError,
    DeadlineExceededError,
    PluginEndedError,
    PluginError,
)
from sandbox_host.model import MIB, Cause, Permissions, State
from sandbox_host.runtime import warden
from tests.support.fake_backend import Peer, become_ready, next_call, serve


def ended(plugin: Any) -> Cause:
    """Wait for a plugin's end and return its cause."""
    assert plugin._process.ended.wait(10)
    assert plugin.state is State.FAILED
    return plugin.cause


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"code": 0}, Cause.EXITED),
        ({"code": 255}, Cause.EXITED),
        ({"signal": 11}, Cause.CRASHED),
        ({"signal": 7}, Cause.CRASHED),
        ({"signal": 31}, Cause.SYSCALL),
        ({"signal": 24}, Cause.CPU),
        ({"signal": 9}, Cause.KILLED),
        ({"signal": 15}, Cause.KILLED),
        ({"signal": 64}, Cause.KILLED),
        ({}, Cause.UNKNOWN),
    ],
)
def test_cause_of_an_end(scripted: Any, how: dict[str, int], cause: Cause) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer)
        peer.finish(**how)

    _, plugin = scripted(script)
    with pytest.raises(PluginEndedError) as caught:
        plugin.call("echo")
    assert caught.value.cause == cause
    assert ended(plugin) is cause


def test_fault_of_the_host_ends_that_plugin_only(workshop: Any, open_host: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        if peer.identity == "cursed":
            next_call(peer)
            peer.fault = RuntimeError("a fault of ours")
            peer.sleep()
        serve(peer)

    host = open_host(script)
    cursed = host.load(workshop.write(name="cursed"))
    other = host.load(workshop.write(name="other"))
    with pytest.raises(PluginEndedError, match="RuntimeError"):
        cursed.call("echo")
    assert ended(cursed) is Cause.UNKNOWN
    assert other.call("echo", 1) == 1


def test_plugin_that_does_not_stop_is_ended(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        peer.receive()
        peer.sleep()

    host, plugin = scripted(script, stop_timeout_seconds=0.1)
    host.unload("sample")
    assert plugin._process.ended.is_set()
    assert host._core._backend.children[0].peer.exit == Exit(None, 9, 0.0, 1 << 20)


def test_closing_the_pipe_and_staying(scripted: Any) -> None:
    import os

    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer)
        peer._own.remove(peer.out_fd)
        os.close(peer.out_fd)
        peer.sleep()

    _, plugin = scripted(script)
    with pytest.raises(PluginEndedError):
        plugin.call("echo")
    assert ended(plugin) is Cause.PROTOCOL_VIOLATION


# -- ends that do not come ------------------------------------------------------------------------


def stubborn(peer: Peer) -> None:
    become_ready(peer, "echo")
    if peer.identity == "stubborn":
        peer.sleep()
    serve(peer)


def out_of_reach() -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("kill", [out_of_reach, lambda: None], ids=["refused", "in-vain"])
def test_process_that_cannot_be_killed(
    workshop: Any, open_host: Any, kill: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(warden, "_DYING_SECONDS", 0.1)
    host = open_host(stubborn)
    bundle = workshop.write(name="stubborn")
    plugin, other = host.load(bundle), host.load(workshop.write(name="other"))
    child = host._core._backend.children[0]
    mend, child.kill = child.kill, kill
    with pytest.raises(DeadlineExceededError, match="goes on") as caught:
        plugin.call("echo", deadline=0.05)
    assert not caught.value.ended
    assert ended(plugin) is Cause.DEADLINE
    assert any("has not been seen to end" in record.message for record in caplog.records)
    with pytest.raises(PluginEndedError, match="may live on"):
        plugin.call("echo")
    with pytest.raises(AlreadyLoadedError, match="still has a process"):
        host.load(bundle)
    with pytest.raises(PluginError, match="still has a process"):
        host.unload("stubborn")
    assert other.call("echo", 1) == 1
    assert not child._closed

    child.kill = mend  # the next attempt succeeds, and what was held is given back
    while not child._closed:
        assert other.call("echo", 1) == 1
    assert host.load(bundle).state == "ready"


def test_budget_of_a_process_that_cannot_be_killed(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer)
        peer.resident = 1 << 40
        peer.sleep()

    host, plugin = scripted(script)
    child = host._core._backend.children[0]
    mend, child.kill = child.kill, out_of_reach
    with pytest.raises(BudgetExceededError, match="may live on") as caught:
        plugin.call("echo")
    child.kill = mend
    assert (caught.value.budget, caught.value.ended) == ("memory", False)


def test_closing_of_one_does_not_keep_others_waiting(
    workshop: Any, open_host: Any, caplog: Any
) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer)
        if peer.identity == "slow":
            peer.finish(code=3)
        peer.sleep()

    host = open_host(script)
    slow = host.load(workshop.write(name="slow"))
    other = host.load(workshop.write(name="other"))
    child, go_on = host._core._backend.children[0], threading.Event()
    close = child.close

    def close_late() -> None:
        assert go_on.wait(20)
        close()
        raise OSError(16, "not all of it")

    child.close = close_late
    with pytest.raises(PluginEndedError, match="exit status 3"):
        slow.call("echo")
    with pytest.raises(DeadlineExceededError):
        other.call("echo", deadline=0.05)
    assert not slow._process.ended.is_set()
    go_on.set()
    assert ended(slow) is Cause.EXITED
    assert ended(other) is Cause.DEADLINE
    assert any("given back" in record.message for record in caplog.records)


def test_host_without_its_watchdog_ends_everything(
    workshop: Any, open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = open_host(stubborn)
    plugin, other = (host.load(workshop.write(name=name)) for name in ("stubborn", "other"))
    calls = [threading.Thread(target=_call_and_ignore, args=(plugin,)) for _ in range(3)]
    for call in calls:
        call.start()

    def break_down(now: float) -> float:
        raise SystemExit

    monkeypatch.setattr(host._core._keeper, "_sweep", break_down)
    host._core._keeper.wake()
    for call in calls:
        call.join(20)
        assert not call.is_alive()
    assert ended(plugin) is ended(other) is Cause.UNKNOWN
    with pytest.raises(PluginEndedError, match="SystemExit"):
        other.call("echo")
    with pytest.raises(ConfinementError, match="Nothing is bounded"):
        host.load(workshop.write(name="third"))
    host._core._keeper._thread.join(10)
    assert all(child.peer.exit is not None for child in host._core._backend.children)


# -- floods -------------------------------------------------------------------------------------


def test_flood_of_events_is_bounded_and_others_answer(workshop: Any, open_host: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        if peer.identity != "loud":
            serve(peer)
            return
        frame = Publish("data_processed", payload=pack("x" * 1_000))
        peer.receive()
        while True:
            peer.send(frame)

    grants = {"loud": Permissions(publish=("data_processed",))}
    host = open_host(script, grants=grants, event_queue=100)
    events = host.subscribe("data_processed")
    permissions = {"publish": ["data_processed"]}
    loud = host.load(workshop.write(name="loud", permissions=permissions))
    quiet = host.load(workshop.write(name="quiet"))
    flooding = threading.Thread(target=_call_and_ignore, args=(loud,))
    flooding.start()
    while not events.dropped:
        assert quiet.call("echo", 1) == 1
    assert len(events._subscription._waiting) <= 100
    assert all(quiet.call("echo", n) == n for n in range(50))
    host.unload("loud")
    flooding.join()


def _call_and_ignore(plugin: Any) -> None:
    with pytest.raises(PluginEndedError):
        plugin.call("echo")


def test_flood_of_output_goes_to_a_bounded_log(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        call = next_call(peer)
        for _ in range(200):
            peer.write(b"x" * 65_536, peer.out1)
        peer.send(Result(call.id, payload=pack("done")))
        serve(peer)

    _, plugin = scripted(script, log_bytes="1 MiB")
    assert plugin.call("echo") == "done"
    assert plugin.log_path.stat().st_size <= MIB


def test_flood_of_stack_dumps_is_read_and_dropped(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        call = next_call(peer)
        for _ in range(20):
            peer.write(b"y" * 65_536, peer.trace)
        peer.send(Result(call.id, payload=pack("done")))
        serve(peer)

    _, plugin = scripted(script)
    assert plugin.call("echo") == "done"
    assert len(plugin._process._output._dump) <= 65_536

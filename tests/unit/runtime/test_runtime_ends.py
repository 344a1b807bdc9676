"""How plugins end, and floods of everything a plugin can send."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import Publish, Result
from sandbox_host.backends.base import Exit
from sandbox_host.errors import (
    PluginEndedError,
)
from sandbox_host.model import MIB, Cause, Permissions, State
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

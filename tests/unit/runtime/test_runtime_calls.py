"""Calls to plugins that answer in any way a process could."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.messages import Handled, Result, Stop
from sandbox_host.errors import (
    BudgetExceededError,
    DeadlineExceededError,
    MessageTooLargeError,
    NoSuchOperationError,
    NotSerializableError,
    OperationError,
    PluginEndedError,
)
from sandbox_host.model import MIB, Cause, State
from sandbox_host.runtime.party import Request
from tests.support.fake_backend import Peer, become_ready, failure, next_call, ready, serve


def ended(plugin: Any) -> Cause:
    """Wait for a plugin's end and return its cause."""
    assert plugin._process.ended.wait(10)
    assert plugin.state is State.FAILED
    return plugin.cause


def test_answers_out_of_order_reach_their_callers(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        calls = [next_call(peer) for _ in range(3)]
        for call in reversed(calls):
            peer.send(Result(call.id, payload=pack(call.id)))
        serve(peer)

    _, plugin = scripted(script)
    pendings = [plugin._process.talk.begin(Request("echo", (n,), {}, 10.0)) for n in range(3)]
    for pending in pendings:
        plugin._process.channel.wait(pending)
    assert [plugin._process.talk.result(p) for p in pendings] == [p.id for p in pendings]
    assert plugin.call("echo", "x") == "x"


@pytest.mark.parametrize("times", [1, 40])
def test_answer_just_before_the_end_is_an_answer(scripted: Any, times: int) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        for _ in range(times):
            call = next_call(peer)
            peer.send(Result(call.id, payload=pack("last words")))

    _, plugin = scripted(script)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(plugin.call, "echo") for _ in range(times)]
        assert [call.result() for call in calls] == ["last words"] * times
    assert ended(plugin) is Cause.EXITED


def _twice(peer: Peer) -> None:
    call = next_call(peer)
    peer.send(Result(call.id, payload=pack(1)))
    header = Result(call.id).header()
    peer.write(len(header).to_bytes(4, "big") + bytes(4) + header)


def _handled_for_a_call(peer: Peer) -> None:
    header = Handled(next_call(peer).id, True).header()
    peer.write(len(header).to_bytes(4, "big") + bytes(4) + header)


def _stop(peer: Peer) -> None:
    next_call(peer)
    header = Stop().header()
    peer.write(len(header).to_bytes(4, "big") + bytes(4) + header)


def _second_ready(peer: Peer) -> None:
    next_call(peer)
    header = ready().header()
    peer.write(len(header).to_bytes(4, "big") + bytes(4) + header)


@pytest.mark.parametrize("breach", [_twice, _handled_for_a_call, _stop, _second_ready])
def test_breach_of_the_protocol(scripted: Any, breach: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        breach(peer)
        peer.sleep()

    _, plugin = scripted(script)
    # Where an answer came first, the call itself succeeds.
    with contextlib.suppress(PluginEndedError):
        assert plugin.call("echo", 1) == 1
    assert ended(plugin) is Cause.PROTOCOL_VIOLATION


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\x01\x02", pack(1) + b"x"])
def test_result_that_is_no_value(scripted: Any, payload: bytes) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        peer.send(Result(next_call(peer).id, payload=payload))
        peer.sleep()

    _, plugin = scripted(script)
    with pytest.raises(PluginEndedError) as caught:
        plugin.call("echo")
    assert caught.value.cause == Cause.PROTOCOL_VIOLATION
    assert ended(plugin) is Cause.PROTOCOL_VIOLATION


def test_result_of_too_many_elements_leaves_the_channel_working(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        peer.send(Result(next_call(peer).id, payload=b"\xdd\x00\x20\x00\x00" + bytes(1 << 21)))
        serve(peer)

    _, plugin = scripted(script)
    with pytest.raises(MessageTooLargeError):
        plugin.call("echo")
    assert plugin.call("echo", 1) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("exception", OperationError),
        ("made-up", OperationError),
        ("bad-arguments", OperationError),
        ("no-such-operation", NoSuchOperationError),
        ("not-serializable", NotSerializableError),
        ("message-too-large", MessageTooLargeError),
        ("interrupted", DeadlineExceededError),
        ("deadline-passed", DeadlineExceededError),
        ("memory", BudgetExceededError),
        ("descriptors", BudgetExceededError),
    ],
)
def test_failures_by_their_code(scripted: Any, code: str, kind: type[Exception]) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        told = {"type": "T\x1b", "message": "m\r\n\x1b[2J", "place": "p\x07", "traceback": "t\x00"}
        peer.send(failure(next_call(peer), code, **told))
        serve(peer)

    _, plugin = scripted(script)
    with pytest.raises(kind) as caught:
        plugin.call("echo")
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert getattr(caught.value, "ended", False) is False
    assert plugin.call("echo", 1) == 1


@pytest.mark.parametrize("payload", [None, [], 3, {"message": [1]}, {"type": None, "place": 3}])
def test_failure_with_any_payload(scripted: Any, payload: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        message = failure(next_call(peer), "exception")
        message.payload = pack(payload)
        peer.send(message)
        serve(peer)

    _, plugin = scripted(script)
    with pytest.raises((OperationError, PluginEndedError)) as caught:
        plugin.call("echo")
    assert str(caught.value).isprintable()


# -- deadlines ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_grace")
def test_late_operation_that_listens(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        call = next_call(peer)
        assert peer.interrupted.wait(10)
        peer.send(failure(call, "interrupted", place="main.py:7 in nap"))
        serve(peer)

    _, plugin = scripted(script)
    with pytest.raises(DeadlineExceededError) as caught:
        plugin.call("echo", deadline=0.05)
    assert (caught.value.ended, caught.value.place) == (False, "main.py:7 in nap")
    assert plugin.call("echo", 1) == 1


def test_late_operation_that_does_not_listen(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer)
        package = next(iter(plugins)).places.package_dir
        peer.dump = f'Thread 0x1:\n  File "{package}/main.py", line 9 in deaf\n'.encode()
        peer.sleep()

    plugins: list[Any] = []
    host, plugin = scripted(script)
    plugins.append(plugin._process)
    with pytest.raises(DeadlineExceededError) as caught:
        plugin.call("echo", deadline=0.05)
    assert caught.value.ended
    assert caught.value.place == "main.py:9 in deaf"
    assert ended(plugin) is Cause.DEADLINE
    assert host._core._backend.children[0].peer.interrupted.is_set()


@pytest.mark.usefixtures("long_grace")
def test_answer_after_the_deadline_but_in_the_grace_counts(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        call = next_call(peer)
        assert peer.interrupted.wait(10)
        peer.send(Result(call.id, payload=pack("late")))
        serve(peer)

    _, plugin = scripted(script)
    assert plugin.call("echo", deadline=0.05) == "late"


# -- budgets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "value", "budget", "cause"),
    [
        ("resident", 65 * MIB, "memory", Cause.MEMORY),
        ("threads", 9, "threads", Cause.THREADS),
        ("cpu", 2.5, "cpu", Cause.CPU),
    ],
)
def test_excess_during_a_call(
    scripted: Any, attribute: str, value: float, budget: str, cause: Cause
) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer)
        while peer.exit is None:
            # The clock of the call may start a moment after the peer has it.
            setattr(peer, attribute, getattr(peer, attribute) + value)
            peer.interrupted.wait(0.05)

    limits = {"memory": "64 MiB", "threads": 8, "cpu_time": "2 s"}
    _, plugin = scripted(script, manifest={"limits": limits})
    with pytest.raises(BudgetExceededError) as caught:
        plugin.call("echo")
    assert caught.value.budget == budget
    assert caught.value.used is not None
    assert caught.value.used > caught.value.limit
    assert caught.value.ended
    assert ended(plugin) is cause


def test_cpu_time_is_counted_per_operation(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        for _ in range(10):
            call = next_call(peer)
            peer.cpu += 1.5
            peer.send(Result(call.id, payload=pack(None)))
        serve(peer)

    _, plugin = scripted(script, manifest={"limits": {"cpu_time": "2 s"}})
    for _ in range(10):
        plugin.call("echo")
    assert plugin.state is State.READY
    assert plugin.usage().cpu_seconds == 15.0


def test_others_waiting_are_told_that_the_plugin_ended(scripted: Any) -> None:
    def script(peer: Peer) -> None:
        become_ready(peer, "echo")
        next_call(peer), next_call(peer)
        peer.threads = 10_000
        peer.sleep()

    _, plugin = scripted(script)
    first = plugin._process.talk.begin(Request("echo", (), {}, 10.0))
    second = plugin._process.talk.begin(Request("echo", (), {}, 10.0))
    for pending in (first, second):
        plugin._process.channel.wait(pending)
    assert type(first.answer) is BudgetExceededError
    assert type(second.answer) is PluginEndedError
    assert second.answer.cause == Cause.THREADS

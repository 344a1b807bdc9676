from __future__ import annotations

import pytest

from plugin_sdk.wire.connection import Connection
from plugin_sdk.wire.errors import LocalProtocolError, RemoteProtocolError
from plugin_sdk.wire.frames import build_frame
from plugin_sdk.wire.limits import MAX_ASKED, MAX_OUTSTANDING
from plugin_sdk.wire.message import HOST, PLUGIN, Message
from plugin_sdk.wire.messages import (
    Answer,
    Ask,
    Call,
    Confine,
    Confined,
    Deliver,
    Failed,
    Failure,
    Handled,
    Load,
    Publish,
    Ready,
    Result,
    Stop,
    Stopped,
)
from plugin_sdk.wire.state import CLOSED, RUNNING, STOPPING


def carry(sender: Connection, receiver: Connection, *messages: Message) -> list[Message]:
    for message in messages:
        sender.send(message)
    receiver.receive_data(sender.data_to_send())
    return receiver.events_received()


def running_pair() -> tuple[Connection, Connection]:
    host, plugin = Connection(HOST), Connection(PLUGIN)
    carry(host, plugin, Confine(1, 1))
    carry(plugin, host, Confined(1, 1))
    carry(host, plugin, Load())
    carry(plugin, host, Ready())
    assert host.state == plugin.state == RUNNING
    return host, plugin


def frame(message: Message) -> bytes:
    return build_frame(message.header(), message.payload, 1000)


def test_a_call_and_its_answer() -> None:
    host, plugin = running_pair()
    call = Call(1, "predict", 0, payload=b"arguments")
    assert carry(host, plugin, call) == [call]
    assert host.outstanding == plugin.outstanding == 1
    result = Result(1, payload=b"value")
    assert carry(plugin, host, result) == [result]
    assert host.outstanding == plugin.outstanding == 0


def test_what_was_queued_is_handed_out_once_and_in_order() -> None:
    host, plugin = running_pair()
    messages: list[Message] = [Call(1, "a", 0), Deliver(2, "e"), Call(5, "b", 0)]
    assert carry(host, plugin, *messages) == messages
    assert host.data_to_send() == b""
    assert plugin.events_received() == []


def test_answers_may_cross_a_stop() -> None:
    host, plugin = running_pair()
    carry(host, plugin, Call(1, "a", 0), Deliver(2, "e"))
    plugin.send(Publish("model_updated"))
    plugin.send(Result(1))
    carry(host, plugin, Stop())
    assert host.state == plugin.state == STOPPING
    received = carry(plugin, host, Handled(2, True), Stopped())
    assert [type(message) for message in received] == [Publish, Result, Handled, Stopped]
    assert host.state == plugin.state == CLOSED


@pytest.mark.parametrize(
    "answer",
    [Result(2), Failure(2, "exception"), Handled(1, True), Handled(2, False)],
    ids=repr,
)
def test_an_answer_that_nobody_asked_for_is_the_peers_fault(answer: Message) -> None:
    host, plugin = running_pair()
    carry(host, plugin, Call(1, "a", 0))
    with pytest.raises(RemoteProtocolError, match="not outstanding"):
        host.receive_data(frame(answer))
    assert host.state == CLOSED


def test_an_answer_that_comes_twice_is_the_peers_fault() -> None:
    host, plugin = running_pair()
    carry(host, plugin, Call(1, "a", 0))
    with pytest.raises(RemoteProtocolError, match="not outstanding"):
        host.receive_data(frame(Result(1)) * 2)
    # The first was good, and is not lost.
    assert host.events_received() == [Result(1)]


def test_a_message_of_the_hosts_is_not_for_the_plugin_to_send() -> None:
    host, _ = running_pair()
    with pytest.raises(RemoteProtocolError, match="not for the peer to send"):
        host.receive_data(frame(Call(1, "a", 0)))


def test_a_message_at_the_wrong_time_is_the_peers_fault() -> None:
    host, _ = running_pair()
    with pytest.raises(RemoteProtocolError, match="Ready is not allowed while running"):
        host.receive_data(frame(Ready()))


def test_nothing_is_accepted_after_a_fault() -> None:
    host, _ = running_pair()
    with pytest.raises(RemoteProtocolError):
        host.receive_data(b"\xff" * 8)
    with pytest.raises(RemoteProtocolError, match="after the end"):
        host.receive_data(frame(Publish("e")))
    with pytest.raises(LocalProtocolError, match="while closed"):
        host.send(Call(1, "a", 0))


def test_an_end_between_frames_is_quiet_and_inside_one_is_not() -> None:
    host, _ = running_pair()
    host.receive_eof()
    assert host.state == CLOSED
    other, _ = running_pair()
    other.receive_data(frame(Publish("e"))[:-1])
    with pytest.raises(RemoteProtocolError, match="inside a frame"):
        other.receive_eof()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Result(1), "not sent by the host"),
        (Confine(1, 1), "cannot be sent while running"),
        (Call(0, "a", 0), "Call.id cannot be 0"),
        (Call(1, "a", 0, payload=b"x" * 1001), "exceeds"),
    ],
    ids=repr,
)
def test_our_own_slips_are_local_and_change_nothing(message: Message, told: str) -> None:
    host = Connection(HOST, max_payload_bytes=1000)
    host.state = RUNNING
    with pytest.raises(LocalProtocolError, match=told):
        host.send(message)
    assert host.data_to_send() == b""
    assert host.state == RUNNING
    assert host.outstanding == 0
    host.send(Call(1, "a", 0))


def test_ids_only_rise() -> None:
    host, plugin = running_pair()
    carry(host, plugin, Call(5, "a", 0))
    with pytest.raises(LocalProtocolError, match="reuses the id 5"):
        host.send(Deliver(5, "e"))
    with pytest.raises(RemoteProtocolError, match="reuses the id 4"):
        plugin.receive_data(frame(Call(4, "a", 0)))


@pytest.mark.parametrize("before", [0, 5], ids=["whole", "half of it before"])
def test_an_answer_that_crosses_the_end_is_dropped(before: int) -> None:
    host, plugin = running_pair()
    carry(plugin, host, Ask(1, "prices.latest", 0))
    carry(host, plugin, Stop())
    host.send(Answer(1, True))
    answer = host.data_to_send()
    plugin.receive_data(answer[:before])
    plugin.send(Stopped())
    plugin.receive_data(answer[before:])
    assert plugin.events_received() == []
    plugin.receive_eof()
    host.receive_data(plugin.data_to_send())
    assert host.state == plugin.state == CLOSED
    with pytest.raises(RemoteProtocolError, match="after the end"):
        host.receive_data(b"more")


def test_there_is_a_limit_to_what_is_outstanding() -> None:
    host, _ = running_pair()
    for number in range(1, MAX_OUTSTANDING + 1):
        host.send(Call(number, "a", 0))
    assert host.outstanding == MAX_OUTSTANDING
    with pytest.raises(LocalProtocolError, match="outstanding"):
        host.send(Call(MAX_OUTSTANDING + 1, "a", 0))


def test_a_failed_start_closes_both_ends() -> None:
    host, plugin = Connection(HOST), Connection(PLUGIN)
    carry(host, plugin, Confine(1, 1))
    assert carry(plugin, host, Failed("landlock", payload=b"why")) == [
        Failed("landlock", payload=b"why")
    ]
    assert host.state == plugin.state == CLOSED


def test_services_have_ids_and_a_limit_of_their_own() -> None:
    host, plugin = running_pair()
    for number in range(1, MAX_ASKED + 1):
        plugin.send(Ask(number, "prices.latest", 0))
    with pytest.raises(LocalProtocolError, match=f"more than {MAX_ASKED} services asked for"):
        plugin.send(Ask(MAX_ASKED + 1, "prices.latest", 0))
    host.receive_data(plugin.data_to_send())
    assert len(host.events_received()) == MAX_ASKED
    assert host.outstanding == plugin.outstanding == 0
    host.send(Call(1, "predict", 0))
    host.send(Stop())
    host.send(Answer(2, True))
    with pytest.raises(LocalProtocolError, match="answers 2, which is not outstanding"):
        host.send(Answer(2, True))
    plugin.receive_data(host.data_to_send())
    assert [type(m) for m in plugin.events_received()] == [Call, Stop, Answer]
    with pytest.raises(LocalProtocolError, match="reuses the id 2"):
        plugin.send(Ask(2, "prices.latest", 0))

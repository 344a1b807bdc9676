"""Clients of the control socket: bounded, and none holds up another."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.errors import ControlError, PluginNotFoundError, RemoteError, UsageError
from sandbox_host.service import client, frames, protocol, server
from sandbox_host.service.client import ask, stream
from sandbox_host.service.peers import Peer
from sandbox_host.service.place import ServicePlace, connect
from sandbox_host.service.protocol import Request
from sandbox_host.service.server import Bounds, ControlServer, Session
from tests.support.traces import eventually

Serve = Callable[..., ControlServer]


class Handler:
    """Answers by the name of the operation."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.cancelled = threading.Event()

    def is_long(self, request: Request) -> bool:
        if request.operation == "unknown":
            raise ControlError("There is none such.", remedy="Try another.")
        return request.operation in {"wait", "count"}

    def is_stream(self, request: Request) -> bool:
        return request.operation == "count"

    def handle(self, request: Request, session: Session) -> Any:
        match request.operation:
            case "echo":
                return request.arguments["value"]
            case "missing":
                raise PluginNotFoundError("None.", plugin="one", remedy="Load it.")
            case "fault":
                raise KeyError("a fault")
            case "late":
                raise TimeoutError("of its own")
            case "object":
                return object()
            case "wait":
                return self._wait(session)
            case "count":
                return self._count(session)
        raise AssertionError(request.operation)

    def _wait(self, session: Session) -> str:
        while not self.go.wait(0.01):
            if session.cancelled.is_set():
                self.cancelled.set()
                break
        return "waited"

    def _count(self, session: Session) -> int:
        number = 0
        while session.attend() and not self.go.is_set():
            session.send(number := number + 1)
            time.sleep(0.001)
        return number

    def exit_code(self, error: Exception) -> int:
        return 3 if isinstance(error, PluginNotFoundError) else 6


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def serve(state: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def begin(**bounds: Any) -> ControlServer:
            where = stack.enter_context(ServicePlace(state))
            begun = ControlServer(where.listen(), handler, Bounds(**bounds))
            stack.callback(begun.close)
            stack.callback(handler.go.set)
            return begun

        yield begin


def test_answers_and_errors(state: Path, serve: Serve) -> None:
    serve()
    assert ask(state, "echo", value={"a": [b"\0", 1.5]}) == {"a": [b"\0", 1.5]}
    with pytest.raises(RemoteError) as caught:
        ask(state, "missing")
    error = caught.value
    assert (error.code, error.exit_code, error.plugin) == ("not-found", 3, "one")
    assert str(error) == "None. Load it."
    with pytest.raises(RemoteError, match="There is none such"):
        ask(state, "unknown")


@pytest.mark.parametrize("operation", ["fault", "late"])
def test_a_fault_ends_one_request(state: Path, serve: Serve, operation: str) -> None:
    serve()
    with pytest.raises(RemoteError, match="a fault of its own"):
        ask(state, operation)
    assert ask(state, "echo", value=1) == 1


def test_what_cannot_be_sent_is_told(state: Path, serve: Serve) -> None:
    serve()
    with pytest.raises(RemoteError, match="cannot be sent"):
        ask(state, "object")
    with pytest.raises(UsageError):
        ask(state, "echo", value=object())


@pytest.mark.parametrize(
    "value",
    [None, {}, {"operation": 1, "arguments": {}}, {"operation": "x", "arguments": {}, "more": 1}],
    ids=repr,
)
def test_what_is_no_request(state: Path, serve: Serve, value: Any) -> None:
    serve()
    with connect(state) as connection:
        frames.send(connection, value, frames.REQUEST, 20)
        answer = frames.receive(connection, frames.ANSWER, 20)
    assert answer["error"]["code"] == "control"


def test_one_that_is_silent_or_slow_holds_up_nobody(state: Path, serve: Serve) -> None:
    begun = serve(request_seconds=0.3, send_seconds=0.3)
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(connect(state))
        slow = stack.enter_context(connect(state))
        slow.sendall(struct.pack(">I", 100) + b"x")
        deaf = stack.enter_context(connect(state))
        request = {"operation": "count", "arguments": {}}
        frames.send(deaf, request, frames.REQUEST, 20)
        assert ask(state, "echo", value=1) == 1
        answer = frames.receive(slow, frames.ANSWER, 20)
        assert "too long" in answer["error"]["message"]
        assert "too long" in frames.receive(silent, frames.ANSWER, 20)["error"]["message"]
        assert ask(state, "echo", value=2) == 2
        # Who does not read fills a buffer of the kernel's, and loses the connection.
        assert eventually(lambda: begun.clients == 0)


def test_there_is_a_bound_of_clients(state: Path, serve: Serve) -> None:
    begun = serve(clients=3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(state))
        assert eventually(lambda: begun.clients == 3)
        with pytest.raises(RemoteError, match="as many clients"):
            ask(state, "echo", value=1)
    assert eventually(lambda: begun.clients == 0)
    assert ask(state, "echo", value=1) == 1


def test_those_at_something_long_leave_room(state: Path, serve: Serve, handler: Handler) -> None:
    begun = serve(clients=4, long=1)
    waiting = threading.Thread(target=ask, args=(state, "wait"))
    waiting.start()
    assert eventually(lambda: begun.clients == 1)

    def refused() -> bool:
        try:
            ask(state, "wait")
        except RemoteError as error:
            return "as many clients" in str(error)
        return False

    assert eventually(refused)
    assert ask(state, "echo", value=1) == 1
    handler.go.set()
    waiting.join()
    assert ask(state, "wait") == "waited"


def test_who_works_on_says_so(
    state: Path, serve: Serve, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ALIVE_SECONDS", 0.05)
    serve()
    with connect(state) as connection:
        frames.send(connection, {"operation": "wait", "arguments": {}}, frames.REQUEST, 20)
        assert frames.receive(connection, frames.ANSWER, 20) == {"alive": True}
        handler.go.set()
        while (answer := frames.receive(connection, frames.ANSWER, 20)) == {"alive": True}:
            pass
    assert answer == {"result": "waited"}


def test_who_leaves_is_noticed(state: Path, serve: Serve, handler: Handler) -> None:
    begun = serve()
    with connect(state) as connection:
        frames.send(connection, {"operation": "wait", "arguments": {}}, frames.REQUEST, 20)
        assert eventually(lambda: begun.clients == 1)
    assert handler.cancelled.wait(20)
    assert eventually(lambda: begun.clients == 0)


def test_a_stream(state: Path, serve: Serve) -> None:
    begun = serve()
    with contextlib.closing(stream(state, "count")) as numbers:
        assert [next(numbers) for _ in range(3)] == [1, 2, 3]
    assert eventually(lambda: begun.clients == 0)


def test_another_users_process_gets_no_answer(
    state: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.setattr(server, "peer_of", lambda _: Peer(1, 4_242))
    with connect(state) as connection:
        answer = frames.receive(connection, frames.ANSWER, 20)
    assert "belongs to user id 4242" in answer["error"]["message"]


def test_closing_hangs_up(state: Path, serve: Serve, handler: Handler) -> None:
    begun = serve()
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            ask(state, "wait")
        except ControlError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert eventually(lambda: begun.clients == 1)
    begun.close()
    begun.close()
    waiting.join(20)
    assert not waiting.is_alive()
    assert [str(error)[:30] for error in failed] in ([], ["The service ended, or hung up,"])
    with pytest.raises(ControlError):
        ask(state, "echo", value=1)


@pytest.mark.parametrize("answer", [[], {}, {"a": 1, "b": 2}, {"error": 1}], ids=repr)
def test_a_client_believes_no_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(client, "connect", lambda _: ours)
    with theirs:
        frames.send(theirs, answer, frames.ANSWER, 20)
        with pytest.raises(ControlError, match="not understood"):
            ask(tmp_path, "status")


def test_a_service_that_says_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert protocol.ALIVE_SECONDS * 5 < protocol.ANSWER_SECONDS
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(client, "connect", lambda _: ours)
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.05)
    with theirs, pytest.raises(ControlError, match="too long"):
        ask(tmp_path, "status")

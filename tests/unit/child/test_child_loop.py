from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.child.faults import Faults
from plugin_sdk.child.io import ChildChannel
from plugin_sdk.child.loader import LoadedPlugin, load
from plugin_sdk.child.loop import Loop
from plugin_sdk.child.running import Runner
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.events import join_events, pack_event
from plugin_sdk.wire.limits import MAX_ERROR_TEXT_BYTES, MAX_PAYLOAD_BYTES
from plugin_sdk.wire.messages import (
    Failure,
    Handled,
    HandledSome,
    Publish,
    Result,
    Stop,
    Stopped,
)
from plugin_sdk.wire.state import RUNNING
from tests.support.child_session import HOOKS, HostEnd, order_for, pipes, write_package

SOURCE = """
import errno, sys, time
from plugin_sdk import context, on, operation

seen = []

@operation
def echo(*values, **named):
    return [list(values), named]

@operation
def add(a, b=1):
    return a + b

@operation
def fail(text):
    raise ValueError(text)

@operation
def wrong_type():
    return len(3)

@operation
def leave():
    sys.exit(3)

@operation
def interrupt():
    raise KeyboardInterrupt

@operation
def hog():
    hoard = bytearray(1000)
    raise MemoryError

@operation
def exhaust():
    raise OSError(errno.EMFILE, "Too many open files")

@operation
def give(what):
    if what == "set": return {1, 2}
    if what == "key": return {1: 2}
    if what == "large": return b"x" * (8 * 1024 * 1024)
    if what == "hostile":
        class Hostile:
            def tolist(self): raise RuntimeError("no list")
        return Hostile()

class Unspeakable(Exception):
    def __str__(self): raise SystemExit
    __repr__ = __str__

@operation
def unspeakable():
    raise Unspeakable

@operation
def announce():
    context().publish("model_updated", {"rows": 3})
    return "announced"

@operation
def whisper():
    print("no end of line", end="")

@operation
def show():
    return seen

@on("data_processed")
def first(event):
    seen.append([event.type, event.data, event.timestamp, event.source, event.id])

@on("data_processed")
def second(event):
    raise ValueError("cannot learn from this")

@on("data_processed")
def third(event):
    seen.append("third")
"""

EVENT = {"type": "data_processed", "data": [1], "timestamp": 2.5, "source": "host", "id": 9}


def loop_of(channel: ChildChannel, plugin: LoadedPlugin, faults: Faults) -> Loop:
    return Loop(channel, Runner(channel, plugin, faults), faults)


@contextmanager
def serving(tmp_path: Path, source: str = SOURCE) -> Iterator[HostEnd]:
    """Run a plugin's loop in a thread, already in the state in which calls are made."""
    package = write_package(tmp_path, {"__init__.py": HOOKS, "main.py": source})
    with pipes() as (down, up), ThreadPoolExecutor(1) as pool:
        channel, host = ChildChannel(down[0], up[1]), HostEnd(up[0], down[1])
        channel._connection.state = host.connection.state = RUNNING
        order = order_for(package, events=["data_processed"], publish=["model_updated"])
        plugin = load(order, lambda event, data: channel.send(Publish(event, payload=data)))
        running = pool.submit(loop_of(channel, plugin, Faults(order.package_dir)).run)
        try:
            yield host
        finally:
            os.close(host.send_fd)
            running.result(20)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostEnd]:
    with serving(tmp_path) as end:
        yield end


def test_an_operation_gets_its_arguments_and_answers(host: HostEnd) -> None:
    answer, value = host.call("echo", 1, [2], key={"a": None})
    assert isinstance(answer, Result)
    assert value == [[1, [2]], {"key": {"a": None}}]
    assert host.call("add", 1)[1] == 2
    assert host.call("add", 1, b=5)[1] == 6


def test_the_hooks_that_can_be_called(host: HostEnd) -> None:
    assert host.call("get_metadata")[1] == {"name": "sample"}


@pytest.mark.parametrize(
    ("operation", "arguments", "code", "type_name", "message"),
    [
        ("fail", ["no such day"], "exception", "ValueError", "no such day"),
        ("fail", ["\ud800".encode("utf-8", "replace").decode()], "exception", "ValueError", "?"),
        ("leave", [], "exception", "SystemExit", "3"),
        ("interrupt", [], "exception", "KeyboardInterrupt", ""),
        ("hog", [], "memory", "MemoryError", ""),
        ("exhaust", [], "descriptors", "OSError", "[Errno 24] Too many open files"),
    ],
)
def test_what_an_operation_raises_is_told_with_its_place(
    host: HostEnd, operation: str, arguments: list[Any], code: str, type_name: str, message: str
) -> None:
    answer, told = host.call(operation, *arguments)
    assert isinstance(answer, Failure)
    assert (answer.code, told["type"], told["message"]) == (code, type_name, message)
    assert told["place"].startswith("main.py:")
    assert told["place"].endswith(f"in {operation}")
    assert "plugin_sdk" not in told["traceback"]
    assert host.call("add", 1)[1] == 2


def test_a_call_that_does_not_fit_the_signature_is_the_callers_fault(host: HostEnd) -> None:
    answer, told = host.call("add")
    assert isinstance(answer, Failure)
    assert answer.code == "bad-arguments"
    assert told["message"] == "add() missing 1 required positional argument: 'a'"


def test_a_type_error_inside_is_the_plugins(host: HostEnd) -> None:
    answer, told = host.call("wrong_type")
    assert isinstance(answer, Failure)
    assert answer.code == "exception"
    assert told["type"] == "TypeError"
    assert told["place"].endswith("in wrong_type")


@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        ("set", "not-serializable", "the result of give cannot be sent: cannot carry a set"),
        ("key", "not-serializable", "keys must be str"),
        ("large", "message-too-large", f"at most {MAX_PAYLOAD_BYTES}"),
        ("hostile", "exception", "no list"),
    ],
)
def test_results_that_cannot_be_sent(host: HostEnd, what: str, code: str, told: str) -> None:
    answer, payload = host.call("give", what)
    assert isinstance(answer, Failure)
    assert answer.code == code
    assert told in payload["message"]
    assert host.call("add", 1)[1] == 2


def test_an_unknown_operation_lists_what_there_is_likely_ones_first(host: HostEnd) -> None:
    answer, told = host.call("Show_")
    assert isinstance(answer, Failure)
    assert answer.code == "no-such-operation"
    assert told["message"].startswith('there is no operation "Show_"; the plugin offers: show, ')


def test_only_operations_can_be_reached(host: HostEnd) -> None:
    for name in ("init_plugin", "first", "sys", "__init__", "echo.__globals__"):
        answer, _ = host.call(name)
        assert isinstance(answer, Failure)
        assert answer.code == "no-such-operation"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", pack(None), pack([]), pack([[], {}, {}]), pack([{}, []]), pack([1, 2])],
    ids=lambda payload: payload.hex() or "empty",
)
def test_arguments_that_are_none(host: HostEnd, payload: bytes) -> None:
    answer, _ = host.call_raw("echo", payload)
    assert isinstance(answer, Failure)
    assert answer.code == "bad-arguments"


def test_a_call_whose_deadline_has_passed_does_not_run(host: HostEnd) -> None:
    late = time.monotonic_ns() - 1
    answer, _ = host.call_raw("announce", pack([[], {}]), deadline_ns=late)
    assert isinstance(answer, Failure)
    assert answer.code == "deadline-passed"
    in_time = time.monotonic_ns() + 3_600 * 10**9
    answer, _ = host.call_raw("add", pack([[1], {}]), deadline_ns=in_time)
    assert isinstance(answer, Result)


def test_a_hostile_exception_does_not_break_the_loop(host: HostEnd) -> None:
    answer, told = host.call("unspeakable")
    assert isinstance(answer, Failure)
    assert told["type"] == "sample.main.Unspeakable"
    assert host.call("add", 1)[1] == 2


def test_the_text_of_a_failure_is_bounded(host: HostEnd) -> None:
    answer, told = host.call("fail", "x" * 1_000_000)
    assert len(answer.payload) < 2 * MAX_ERROR_TEXT_BYTES
    assert told["traceback"].endswith("x\n")


def test_what_was_printed_is_out_before_the_answer(
    host: HostEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding="utf-8"))
    host.call("whisper")
    assert out.getvalue() == b"no end of line"


def test_what_is_published_arrives_before_the_answer(host: HostEnd) -> None:
    answer, data = host.call("announce")
    assert answer == Publish("model_updated", payload=pack({"rows": 3}))
    assert data == {"rows": 3}
    assert host.receive() == Result(1, payload=pack("announced"))


def test_all_handlers_run_and_failures_are_told(host: HostEnd) -> None:
    host.deliver("data_processed", pack(EVENT))
    handled = host.receive()
    assert isinstance(handled, Handled)
    assert handled.ok is False
    (error,) = unpack(handled.payload)["errors"]
    assert (error["handler"], error["code"]) == ("second", "exception")
    assert error["message"] == "cannot learn from this"
    assert error["place"].endswith("in second")
    assert host.call("show")[1] == [["data_processed", [1], 2.5, "host", 9], "third"]


def test_what_a_later_host_adds_to_an_event_is_ignored(host: HostEnd) -> None:
    host.deliver("data_processed", pack(EVENT | {"invented_later": {"by": "a newer host"}}))
    assert isinstance(host.receive(), Handled)
    assert host.call("show")[1] == [["data_processed", [1], 2.5, "host", 9], "third"]


DATA_DRIVEN = """
from plugin_sdk import on, operation
seen = []

@on("data_processed")
def take(event):
    seen.append([event.data, event.timestamp, event.source, event.id])
    if event.data == "fail":
        raise ValueError("as asked")
    if event.data == "slow":
        import time
        time.sleep(0.005)

@operation
def show():
    return seen
"""


def entries(*data: object) -> bytes:
    packed = [pack_event(pack(one), 0.5, "host", number) for number, one in enumerate(data, 1)]
    return join_events(packed, len(packed))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([1, 2, 3], [(3, True)], id="all at once"),
        pytest.param([1, "fail", 3], [(2, False), (1, True)], id="one fails"),
        pytest.param(["fail", "fail"], [(1, False), (1, False)], id="all fail"),
        pytest.param([1, "slow", 3, 4], [(2, True), (2, True)], id="one takes its time"),
    ],
)
def test_many_events_are_handled_in_order_and_told_together(
    tmp_path: Path, data: list[object], expected: list[tuple[int, bool]]
) -> None:
    with serving(tmp_path, DATA_DRIVEN) as host:
        host.deliver_many("data_processed", entries(*data), len(data))
        told, left = [], len(data)
        while True:
            message = host.receive()
            assert isinstance(message, Handled | HandledSome)
            told.append((getattr(message, "events", left), message.ok))
            left -= told[-1][0]
            errors = unpack(message.payload)["errors"] if message.payload else []
            assert message.ok is not bool(errors)
            if isinstance(message, Handled):
                break
        if "slow" not in data:
            assert told == expected  # else a machine at work may make it more
        assert (sum(events for events, _ in told), left) == (len(data), 0)
        assert len(told) >= len(expected)
        assert host.call("show")[1] == [
            [one, 0.5, "host", number] for number, one in enumerate(data, 1)
        ]


@pytest.mark.parametrize(
    ("payload", "seen"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(pack([1, 2]), 0, id="another list"),
        pytest.param(entries(1), 0, id="one too few"),
        pytest.param(entries(1, 2)[:-1], 1, id="cut short"),
        pytest.param(join_events([pack([1, 0.5, "host", 1]), pack([2])], 2), 1, id="no event"),
        pytest.param(join_events([pack([1, 0.5, "host", 1]), b"\xc1"], 2), 1, id="no value"),
    ],
)
def test_events_that_cannot_be_read_reach_no_handler(
    tmp_path: Path, payload: bytes, seen: int
) -> None:
    with serving(tmp_path, DATA_DRIVEN) as host:
        host.deliver_many("data_processed", payload, 2)
        handled = host.receive()
        assert isinstance(handled, Handled)
        assert len(host.call("show")[1]) == seen


def test_an_event_without_handlers_is_handled(host: HostEnd) -> None:
    host.deliver("model_updated", pack(EVENT))
    handled = host.receive()
    assert handled == Handled(1, True, payload=pack({"errors": []}))


@pytest.mark.parametrize("payload", [b"", b"\xc1", pack([1])], ids=["empty", "nonsense", "list"])
def test_an_event_that_cannot_be_read_reaches_no_handler(host: HostEnd, payload: bytes) -> None:
    host.deliver("data_processed", payload)
    handled = host.receive()
    assert isinstance(handled, Handled)
    assert handled.ok is False
    assert host.call("show")[1] == []


@pytest.mark.parametrize(
    ("cleanup", "ok", "told"),
    [
        ("", True, None),
        ("def cleanup(): return True", True, None),
        ("def cleanup(): return False", False, "cleanup() returned False"),
        ("def cleanup(): return {}", False, "cleanup() returned a value of type dict"),
        ("def cleanup(): raise SystemExit('now')", False, "now"),
    ],
)
def test_stop_runs_cleanup_and_ends(
    tmp_path: Path, cleanup: str, ok: bool, told: str | None
) -> None:
    with serving(tmp_path, cleanup) as host:
        host.send(Stop())
        stopped = host.receive()
        assert isinstance(stopped, Stopped)
        payload = unpack(stopped.payload)
        assert payload["ok"] is ok
        if told is None:
            assert payload["error"] is None
        else:
            assert told in payload["error"]["message"]


def test_what_was_sent_before_stop_is_answered_first(tmp_path: Path) -> None:
    with serving(tmp_path) as host:
        assert host.call("add", 1)[1] == 2
        host.deliver("model_updated", pack(EVENT))
        host.send(Stop())
        assert isinstance(host.receive(), Handled)
        assert isinstance(host.receive(), Stopped)

"""The last messages between host and plugin: headers, in the order of time, so many at most."""

from __future__ import annotations

import pytest

from plugin_sdk.wire.messages import Failed, Failure, Handled, Ready, Result, Stopped
from sandbox_host.ipc.calls import Pending
from sandbox_host.ipc.channel import SESSION_ID
from sandbox_host.model import CallUsage
from sandbox_host.observe.dossier import FrameHeader
from sandbox_host.runtime import answers
from sandbox_host.runtime.traffic import Traffic

END = 100.0


def pending(number: int, operation: str, sent_at: float, bytes_out: int = 0) -> Pending:
    made = Pending(number, operation, END, sent_at)
    made.bytes_out = bytes_out
    return made


def headers(traffic: Traffic, *waiting: Pending) -> list[tuple[float, str, str, int, int, str]]:
    return [
        (one.before_end_seconds, one.direction, one.kind, one.id, one.size_bytes, one.name)
        for one in traffic.frames(waiting, END)
    ]


def test_nothing_was_said() -> None:
    assert Traffic().frames([], END) == ()
    assert Traffic().last_operation([]) == ""


def test_a_call_and_its_answer() -> None:
    traffic = Traffic()
    cost = CallUsage(wall_seconds=1.5, bytes_out=30, bytes_in=20)
    traffic.answered(pending(7, "predict", 98.0), cost, Result)
    assert traffic.frames([], END) == (
        FrameHeader(2.0, "out", "call", 7, 30, "predict"),
        FrameHeader(0.5, "in", "result", 7, 20, "predict"),
    )


@pytest.mark.parametrize(
    ("number", "operation", "answer", "asked", "answered"),
    [
        (SESSION_ID, answers.START, Ready, "load", "ready"),
        (SESSION_ID, answers.START, Failed, "load", "failed"),
        (SESSION_ID, answers.CLEAN_UP, Stopped, "stop", "stopped"),
        (1, "predict", Failure, "call", "failure"),
        (1, "@data_processed", Handled, "deliver", "handled"),
    ],
)
def test_kinds(number: int, operation: str, answer: type, asked: str, answered: str) -> None:
    traffic = Traffic()
    traffic.answered(pending(number, operation, 99.0), CallUsage(), answer)
    assert [one.kind for one in traffic.frames([], END)] == [asked, answered]


def test_in_the_order_of_time_whatever_is_answered_first() -> None:
    traffic = Traffic()
    traffic.published("model_updated", 12, 97.0)
    traffic.answered(pending(1, "slow", 90.0), CallUsage(wall_seconds=9.0), Result)
    assert headers(traffic, pending(2, "next", 95.0, 40)) == [
        (10.0, "out", "call", 1, 0, "slow"),
        (5.0, "out", "call", 2, 40, "next"),
        (3.0, "in", "publish", 0, 12, "model_updated"),
        (1.0, "in", "result", 1, 0, "slow"),
    ]


def test_so_many_are_remembered_and_the_newest_are() -> None:
    traffic = Traffic()
    for number in range(1, 1_001):
        at = number / 100
        traffic.answered(pending(number, "predict", at), CallUsage(wall_seconds=0.001), Result)
        traffic.published(f"event_{number}", 1, at)
    waiting = [pending(number, "predict", 50.0) for number in range(1_001, 2_001)]
    frames = traffic.frames(waiting, END)
    assert len(frames) <= 100
    answered = {one.id for one in frames if one.direction == "in" and one.id}
    assert answered == set(range(981, 1_001))
    assert {one.name for one in frames if one.kind == "publish"} == {
        f"event_{number}" for number in range(981, 1_001)
    }
    assert {one.id for one in frames} - answered - {0} == set(range(1_001, 1_021))


def test_the_last_operation() -> None:
    traffic = Traffic()
    first, second = pending(2, "first", 98.0), pending(3, "second", 98.0)
    assert traffic.last_operation([first, second]) == "first"
    traffic.answered(first, CallUsage(), Result)
    assert traffic.last_operation([second]) == "second"
    traffic.answered(second, CallUsage(), Result)
    assert traffic.last_operation([]) == "second"


def test_no_payload_is_kept() -> None:
    traffic = Traffic()
    asked = pending(1, "predict", 99.0)
    asked.answer = Result(1, payload=b"secret" * 1_000)
    traffic.answered(asked, CallUsage(), type(asked.answer))
    traffic.published("event", 6_000, 99.0)
    assert "secret" not in repr(vars(traffic))

"""A pending call is finished exactly once, by whoever comes first."""

from __future__ import annotations

import threading

from plugin_sdk.wire.messages import Result
from sandbox_host.ipc.calls import Pending

ANSWER = Result(1, payload=b"\xc0")


def pending() -> Pending:
    return Pending(1, "predict", 10.0, 0.0)


def test_first_answer_counts() -> None:
    call = pending()
    assert not call.done()
    assert call.finish(ANSWER, 1.0)
    assert not call.finish(RuntimeError("late"), 2.0)
    assert (call.answer, call.finished_at) == (ANSWER, 1.0)


def test_one_of_many_threads_finishes_it() -> None:
    call = pending()
    outcomes: list[bool] = []
    start = threading.Barrier(8)

    def finish(number: int) -> None:
        start.wait()
        outcomes.append(call.finish(RuntimeError(str(number)), float(number)))

    threads = [threading.Thread(target=finish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_callback_before_and_after() -> None:
    early, late = pending(), pending()
    seen: list[Pending] = []
    early.on_done(seen.append)
    assert seen == []
    early.finish(ANSWER, 1.0)
    late.finish(ANSWER, 1.0)
    late.on_done(seen.append)
    assert seen == [early, late]


def test_nudge_wakes_a_waiter_only_while_there_is_one() -> None:
    call = pending()
    assert not call.nudge()
    waiter = call.register_waiter()
    assert not waiter.is_set()
    assert call.nudge()
    assert waiter.is_set()
    waiter.clear()
    call.finish(ANSWER, 1.0)
    assert waiter.is_set()
    assert not call.nudge()


def test_waiter_of_what_is_finished_is_set_at_once() -> None:
    call = pending()
    call.finish(ANSWER, 1.0)
    assert call.register_waiter().is_set()

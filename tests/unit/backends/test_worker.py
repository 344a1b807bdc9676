"""Workers: one thing after the other, in one thread, whatever becomes of the main thread."""

from __future__ import annotations

import threading

import pytest

from sandbox_host.backends.worker import Worker, each


def test_one_after_the_other_in_one_thread() -> None:
    worker, seen = Worker("worker"), []
    futures = [worker.submit(lambda n=n: seen.append(n) or threading.get_ident()) for n in range(9)]
    threads = {future.result() for future in futures}
    assert seen == list(range(9))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    worker.shutdown()


def test_an_error_is_the_callers_and_ends_nothing() -> None:
    worker = Worker("worker")
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result()
    assert worker.submit(lambda: 1).result() == 1
    worker.shutdown()


def test_shutdown_waits_for_what_was_submitted() -> None:
    worker, go_on, seen = Worker("worker"), threading.Event(), []
    worker.submit(go_on.wait)
    worker.submit(lambda: seen.append(1))
    go_on.set()
    worker.shutdown()
    assert seen == [1]
    assert "worker" not in [thread.name for thread in threading.enumerate()]


def test_shutdown_of_one_that_did_nothing() -> None:
    worker = Worker("worker")
    worker.shutdown()
    worker.shutdown()
    # An end that was asked of nobody must not be the next thread's.
    assert worker.submit(lambda: 3).result(20) == 3
    worker.shutdown()


def test_it_starts_again_after_shutdown() -> None:
    worker = Worker("worker")
    worker.submit(lambda: None)
    worker.shutdown()
    assert worker.submit(lambda: 2).result() == 2
    worker.shutdown()


@pytest.mark.parametrize("most", [1, 3, 100])
def test_each(most: int) -> None:
    seen, threads = [], set()

    def note(item: int) -> None:
        seen.append(item)
        threads.add(threading.get_ident())

    each(note, list(range(10)), most)
    assert sorted(seen) == list(range(10))
    assert 1 <= len(threads) <= min(most, 10)


def test_each_of_nothing_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    each(started.append, [], 4)
    assert started == []

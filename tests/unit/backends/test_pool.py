"""Blank children: so many, none that has ended is handed out, and what cannot be made is told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox_host.backends.linux import pool as module
from sandbox_host.backends.linux.pool import Blank, Pool
from sandbox_host.errors import ConfinementError
from tests.support.traces import eventually

SHORT = ConfinementError("A process for the pool could not be started.", layer="process")


class Child:
    """A pipe in a process's place: its other end is closed when the process ends."""

    def __init__(self) -> None:
        self.pidfd, self._life = os.pipe()
        self.put_away = threading.Event()

    def end(self) -> None:
        life, self._life = self._life, -1
        if life >= 0:
            os.close(life)

    kill = end

    def wait(self, _timeout: float) -> None:
        assert self._life < 0

    def close(self) -> None:
        os.close(self.pidfd)
        self.put_away.set()


class Makes:
    """Makes blank children, and fails as it is told."""

    def __init__(self) -> None:
        self.made: list[Child] = []
        self.fault: Exception | None = None
        self.tries = 0

    def __call__(self) -> Blank:
        self.tries += 1
        if self.fault is not None:
            raise self.fault
        self.made.append(Child())
        blank: Any = Blank(self.made[-1], None, None)  # type: ignore[arg-type]  # as far as looked at
        return blank


Make = Callable[..., Pool]


@pytest.fixture
def makes() -> Makes:
    return Makes()


@pytest.fixture
def pool(makes: Makes) -> Iterator[Pool]:
    made = Pool(3, makes)
    yield made
    made.close()
    assert all(child.put_away.is_set() for child in makes.made[-3:])


def filled(pool: Pool, count: int = 3) -> bool:
    return eventually(lambda: pool.waiting == count)


def test_there_are_so_many_and_no_more(pool: Pool, makes: Makes) -> None:
    assert filled(pool)
    assert len(makes.made) == 3
    taken = pool.take()
    assert taken is not None
    assert taken.child is makes.made[0]  # type: ignore[comparison-overlap]
    assert filled(pool)
    assert len(makes.made) == 4
    taken.put_away()


def test_one_that_has_ended_is_replaced(pool: Pool, makes: Makes) -> None:
    assert filled(pool)
    makes.made[1].end()
    assert makes.made[1].put_away.wait(10)
    assert filled(pool)
    assert len(makes.made) == 4


def test_one_that_has_ended_is_never_handed_out(
    pool: Pool, makes: Makes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the thread that looks for that has not come to it."""
    assert filled(pool)
    with pool._lock:
        monkeypatch.setattr(pool, "_size", 0)
        for child in makes.made[:2]:
            child.end()
    taken = pool.take()
    if taken is not None:  # the thread was first, and has put all away that had ended
        assert taken.child is makes.made[2]  # type: ignore[comparison-overlap]
        taken.put_away()
    assert pool.take() is None
    assert eventually(lambda: all(child.put_away.is_set() for child in makes.made))


def test_what_the_machine_is_short_of_is_told_and_tried_again(
    pool: Pool, makes: Makes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.01)
    assert filled(pool)
    makes.fault = SHORT
    for _ in range(3):
        taken = pool.take()
        assert taken is not None
        taken.put_away()
    assert pool.take() is None
    assert eventually(lambda: pool.fault is SHORT)
    tries = makes.tries
    assert eventually(lambda: makes.tries > tries + 2)
    told = [r for r in caplog.records if "no blank process for the pool" in r.message]
    assert len(told) == 1  # not once for each try
    makes.fault = None
    assert filled(pool)
    assert pool.fault is None


def test_a_fault_of_our_own_ends_no_host(pool: Pool, makes: Makes) -> None:
    assert filled(pool)
    makes.fault = ZeroDivisionError()
    taken = pool.take()
    assert taken is not None
    taken.put_away()
    assert eventually(lambda: makes.tries == 4)
    assert pool.waiting == 2

"""In which order services are done, how many at a time, and what becomes of those nobody wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.wire.codec import pack, unpack
from sandbox_host.errors import PluginNotFoundError, ReentrantCallError
from sandbox_host.model import Limits
from sandbox_host.runtime import serving
from sandbox_host.runtime.asked import Asked
from sandbox_host.runtime.nested import NestedCalls, may_call
from sandbox_host.runtime.own_services import OwnServices
from sandbox_host.runtime.services import MAX_AT_A_TIME, Services
from sandbox_host.runtime.serving import check_not_waiting
from tests.support.traces import eventually


class Process:
    """A plugin's, as far as its services go."""

    def __init__(self, concurrency: int = 1) -> None:
        self.identity = "sample"
        self.plan = SimpleNamespace(manifest=SimpleNamespace(concurrency=concurrency))
        self.limits = Limits()
        self.ended = threading.Event()
        self.gone = False
        self.channel = self
        self.room = True
        self.answers: dict[int, Any] = {}

    def has_room(self, _size: int) -> bool:
        return self.room

    def answer(self, number: int, *, ok: bool, payload: bytes) -> None:
        value = unpack(payload)
        self.answers[number] = value if ok else value["message"]


class Desk:
    """An application with one service, which goes on until it is let go."""

    def __init__(self, state_dir: Path) -> None:
        def find(name: str, caller: str) -> Any:
            raise PluginNotFoundError(name, plugin=name)

        self.services = Services(OwnServices(state_dir, NestedCalls(find)))
        self.services.offer("slow", self.slow)
        self.begun: list[int] = []
        self.go_on = threading.Event()

    def slow(self, number: int) -> int:
        self.begun.append(number)
        self.go_on.wait(30)
        return number

    def ask(self, process: Process, *numbers: int, deadline_ns: int = 0) -> None:
        for number in numbers:
            asked = Asked(number, "slow", pack([[number], {}]), deadline_ns)
            self.services.ask(process, asked)  # type: ignore[arg-type]  # as much of one as it needs


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.go_on.set()
    desk.services.close()


def test_one_after_the_other_in_their_order(desk: Desk) -> None:
    process = Process()
    desk.ask(process, 1, 2, 3)
    assert eventually(lambda: desk.begun == [1])
    desk.go_on.set()
    assert eventually(lambda: len(process.answers) == 3)
    assert desk.begun == [1, 2, 3]
    assert process.answers == {1: 1, 2: 2, 3: 3}


def test_as_many_at_a_time_as_the_plugin_works_on(desk: Desk) -> None:
    few, many = Process(concurrency=3), Process(concurrency=100)
    desk.ask(few, *range(1, 6))
    assert eventually(lambda: len(desk.begun) == 3)
    desk.ask(many, *range(1, 21))
    assert eventually(lambda: len(desk.begun) == 3 + MAX_AT_A_TIME)
    desk.go_on.set()
    assert eventually(lambda: len(few.answers) == 5 and len(many.answers) == 20)


def test_what_is_withdrawn_is_not_begun(desk: Desk) -> None:
    process = Process()
    desk.ask(process, 1, 2, 3)
    assert eventually(lambda: desk.begun == [1])
    for number in (2, 1, 7):
        desk.services.withdraw(process, number)  # type: ignore[arg-type]  # as above
    desk.services.withdraw(Process(), 1)  # type: ignore[arg-type]  # as above
    assert process.answers == {2: "the plugin did not wait for it"}
    desk.go_on.set()
    assert eventually(lambda: len(process.answers) == 3)
    assert desk.begun == [1, 3]


def test_what_is_too_late_is_not_begun(desk: Desk) -> None:
    process = Process()
    desk.go_on.set()
    desk.ask(process, 1, deadline_ns=time.monotonic_ns() - 1)
    desk.ask(process, 2, deadline_ns=time.monotonic_ns() + 10**12)
    assert eventually(lambda: len(process.answers) == 2)
    assert desk.begun == [2]


def test_a_plugin_that_ended_gets_nothing_more(desk: Desk) -> None:
    process, told = Process(), []
    desk.ask(process, 1, 2)
    assert eventually(lambda: desk.begun == [1])
    process.ended.set()
    desk.services.forget(process, lambda: told.append(1))  # type: ignore[arg-type]  # as above
    assert told == [1]
    desk.go_on.set()
    desk.ask(other := Process(), 3)
    assert eventually(lambda: other.answers == {3: 3})
    assert desk.begun == [1, 3]


def test_a_large_answer_waits_for_room(desk: Desk) -> None:
    process = Process()
    process.room = False
    desk.go_on.set()
    desk.ask(process, 1)
    assert eventually(lambda: desk.begun == [1])
    assert process.answers == {}
    process.room = True
    assert eventually(lambda: process.answers == {1: 1})


def test_a_store_is_closed_before_its_lock_is_given_back(desk: Desk, tmp_path: Path) -> None:
    process, told = Process(), []
    asked = Asked(1, "store", pack([["put", "a", b"1"], {}]))
    desk.services.ask(process, asked)  # type: ignore[arg-type]  # as above
    assert eventually(lambda: process.answers == {1: None})
    log = tmp_path / "stores" / "sample" / "store.sqlite3-wal"
    assert log.exists()
    desk.services.forget(process, lambda: told.append(log.exists()))  # type: ignore[arg-type]  # as above
    assert eventually(lambda: told == [False])


# -- what is withdrawn ----------------------------------------------------------------------------


def test_who_is_to_be_told_is_told_once() -> None:
    told = []
    asked = Asked(1, "slow", b"")
    asked.on_withdrawn(lambda: told.append("before"))
    asked.withdraw()
    asked.on_withdrawn(lambda: told.append("after"))
    assert told == ["before", "after"]
    assert not asked.is_wanted()


def test_how_long_it_is_waited_for() -> None:
    assert Asked(1, "slow", b"").seconds_left(60.0) == 60.0
    soon = Asked(1, "slow", b"", time.monotonic_ns() + 10**10)
    assert 5.0 < soon.seconds_left(60.0) <= 10.0
    assert soon.seconds_left(2.0) == 2.0
    assert Asked(1, "slow", b"", 1).seconds_left(60.0) == 0.0


# -- who may call whom ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "granted", "may"),
    [
        ("two.read", ["two.read"], True),
        ("two.read", ["two.*"], True),
        ("two.read", ["*.read"], True),
        ("two.read", ["two.write", "three.*"], False),
        ("two.read", [], False),
        ("two.read.more", ["*.*"], False),
        ("Two.read", ["*.*"], False),
        ("two", ["*.*", "two"], False),
        ("", ["*.*"], False),
        ("two.read\n", ["*.*"], False),
        ("two.\x1b", ["*.*"], False),
    ],
)
def test_may_call(target: str, granted: list[str], may: bool) -> None:
    assert may_call(target, granted) is may


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=12))
def test_nobody_waits_for_himself(asks: list[tuple[str, str]]) -> None:
    """However services call plugins: what would close a cycle is refused, and nothing else."""
    let_in: list[tuple[str, str]] = []

    def go_on(left: list[tuple[str, str]]) -> None:
        if not left:
            return
        (caller, callee), *others = left
        with serving.serving(caller):
            closes = _reaches(let_in, callee, caller)
            refused: str | None = None
            try:
                check_not_waiting(callee)
                let_in.append((caller, callee))
            except ReentrantCallError as error:
                refused = error.plugin
            assert refused == (callee if closes else None)
            go_on(others)

    go_on(asks)
    assert not serving._being_done


def _reaches(edges: list[tuple[str, str]], start: str, end: str) -> bool:
    seen, left = {start}, [start]
    while left:
        one = left.pop()
        if one == end:
            return True
        new = {callee for caller, callee in edges if caller == one} - seen
        seen |= new
        left += new
    return False

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.ipc.calls import Pending
from sandbox_host.runtime.turns import Turns, at_work


def pending(number: int, *, is_delivery: bool = False) -> Pending:
    return Pending(number, f"op{number}", 1e9, 0.0, is_delivery=is_delivery)


def test_one_at_a_time_works_on_the_oldest_whatever_it_is() -> None:
    row = [pending(1, is_delivery=True), pending(2), pending(3)]
    assert at_work(row, 1) == row[:1]
    assert at_work([], 1) == []


def test_several_at_a_time_work_beside_one_event() -> None:
    row = [pending(1), pending(2, is_delivery=True), pending(3), pending(4, is_delivery=True)]
    assert [one.id for one in at_work(row, 2)] == [1, 2, 3]
    assert [one.id for one in at_work([*row, pending(5)], 2)] == [1, 2, 3]


@given(st.lists(st.booleans(), max_size=30), st.integers(2, 8))
def test_never_more_than_may_be(kinds: list[bool], concurrency: int) -> None:
    row = [pending(number, is_delivery=kind) for number, kind in enumerate(kinds, 1)]
    working = at_work(row, concurrency)
    assert [one.id for one in working] == sorted(one.id for one in working)
    assert sum(not one.is_delivery for one in working) == min(concurrency, kinds.count(False))
    assert sum(one.is_delivery for one in working) == min(1, kinds.count(True))


class Plugin:
    """A CPU clock, a watch and a row of calls: as much of them as `Turns` uses."""

    def __init__(self, concurrency: int) -> None:
        self.cpu = 0.0
        self.row: list[Pending] = []
        self.turns = Turns(
            self,  # type: ignore[arg-type]  # as above
            self,  # type: ignore[arg-type]  # as above
            concurrency,
            lambda: 0.0,
            lambda: None,
        )

    def cpu_seconds(self) -> float:
        return self.cpu

    def start(self, call: Pending) -> bool:
        call.started_at, call.cpu_at_start = 1.0, self.cpu
        return False

    @property
    def idle(self) -> bool:
        return not self.row

    def oldest(self) -> Pending | None:
        return self.row[0] if self.row else None

    def outstanding(self) -> list[Pending]:
        return list(self.row)

    def send(self, call: Pending) -> None:
        self.turns.before(call, self)
        self.row.append(call)
        self.turns.follow(self)

    def answer(self, call: Pending) -> float:
        self.row.remove(call)
        cost = self.turns.cost(call, None)  # type: ignore[arg-type]  # its payload is not counted here
        self.turns.follow(self)
        return cost.cpu_seconds


def test_what_passes_is_shared_by_who_is_at_work_meanwhile() -> None:
    plugin = Plugin(concurrency=2)
    first, second, third = pending(1), pending(2), pending(3)
    plugin.send(first)
    plugin.cpu += 1.0  # alone
    plugin.send(second)
    plugin.send(third)  # waits
    plugin.cpu += 1.0  # two
    assert not third.started_at
    assert plugin.answer(second) == 0.5
    assert third.started_at
    plugin.cpu += 1.0  # two again
    assert plugin.answer(first) == 2.0
    assert plugin.answer(third) == 0.5


@given(st.lists(st.tuples(st.sampled_from("sa"), st.floats(0, 5)), max_size=40), st.integers(1, 4))
def test_all_costs_together_are_what_passed_while_anything_was_at_work(
    steps: list[tuple[str, float]], concurrency: int
) -> None:
    plugin, number, costs, passed = Plugin(concurrency), 0, 0.0, 0.0
    for step, seconds in steps:
        if step == "s":
            number += 1
            plugin.send(pending(number))
        elif plugin.row:
            costs += plugin.answer(plugin.turns.at_work(plugin)[-1])
        plugin.cpu += seconds
        passed += seconds if plugin.row else 0.0
        plugin.turns.settle()
    while plugin.row:
        costs += plugin.answer(plugin.row[0])
    assert abs(costs - passed) < 1e-6


def test_one_that_was_cancelled_before_its_turn_is_to_end_at_once() -> None:
    plugin: Any = Plugin(concurrency=1)
    first, second = pending(1), pending(2)
    plugin.send(first)
    plugin.send(second)
    second.asked_to_end = True
    plugin.answer(first)
    assert second.interrupted_at > 0
    assert second.deadline == second.interrupted_at


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_a_turn_has_come_when_only_so_many_are_before_it(
    kinds: list[bool], concurrency: int, data: st.DataObject
) -> None:
    """Whether it is in the row still, or was answered with what it says."""
    plugin = Plugin(concurrency)
    row = [pending(number, is_delivery=kind) for number, kind in enumerate(kinds, 1)]
    one = data.draw(st.sampled_from(row))
    plugin.row = [other for other in row if other is not one or data.draw(st.booleans())]
    has_come = plugin.turns.has_come(one, plugin)
    assert has_come is (one in at_work(row, concurrency))
    assert bool(one.started_at) is has_come
    plugin.row = [one]
    assert plugin.turns.has_come(one, plugin)

"""When a plugin is at rest: marks and a clock in, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_host.catalog.settling import CALM_SECONDS, Restless, Settled, Settling

A, B, C = b"a", b"b", b"c"


def test_it_has_to_stay_as_it_is_for_the_quiet_period() -> None:
    settling = Settling(0.5)
    assert settling.see("p", A, 0.0) is None
    assert settling.see("p", B, 0.4) is None
    assert settling.see("p", B, 0.8) is None
    assert settling.see("p", B, 0.9) == Settled("p", B)
    assert settling.see("p", B, 5.0) is None
    assert settling.told("p") == B


def test_what_was_never_there_is_nothing() -> None:
    settling = Settling(0.5)
    assert settling.see("p", None, 0.0) is None
    assert settling.see("q", A, 0.0) is None
    assert settling.see("q", None, 0.1) is None
    assert settling.see("q", None, 9.0) is None  # it came and went, and nobody was told
    assert list(settling.names) == []
    assert settling.next_look() is None


def test_gone_for_a_moment_is_not_gone() -> None:
    settling = Settling(0.5)
    settling.take("p", A, 0.0)
    assert settling.see("p", None, 100.0) is None
    assert settling.see("p", A, 100.3) is None  # put back
    assert settling.see("p", A, 200.0) is None
    assert settling.see("p", None, 300.0) is None
    assert settling.see("p", None, 300.6) == Settled("p", None)
    assert list(settling.names) == []


def test_replaced_by_way_of_nothing_is_one_change() -> None:
    settling = Settling(0.5)
    settling.take("p", A, 0.0)
    assert settling.see("p", None, 100.0) is None
    assert settling.see("p", B, 100.4) is None
    assert settling.see("p", B, 101.0) == Settled("p", B)


def test_changed_again_soon_it_has_to_be_quiet_for_longer() -> None:
    settling = Settling(0.5)
    settling.take("p", A, 0.0)
    settling.see("p", B, 1.0)
    assert settling.see("p", B, 1.9) is None
    assert settling.see("p", B, 2.0) == Settled("p", B)
    settling.see("p", C, 3.0)
    assert settling.see("p", C, 4.9) is None
    assert settling.see("p", C, 5.0) == Settled("p", C)
    later = 5.0 + CALM_SECONDS
    settling.see("p", A, later)
    assert settling.see("p", A, later + 0.5) == Settled("p", A)


def test_what_changes_for_ever_is_told_once_and_looked_at_seldom() -> None:
    settling = Settling(0.5, patience=30.0, longest=30.0)
    now, number, told, looks = 0.0, 0, [], 0
    settling.see("p", b"0", now)
    while now < 3_600:
        due = settling.next_look()
        assert due is not None
        now = max(due, now + 0.1)
        assert settling.wanted(now) == ["p"]
        number += 1
        looks += 1
        outcome = settling.see("p", str(number).encode(), now)
        told += [outcome] if outcome else []
    assert len(told) == 1
    assert isinstance(told[0], Restless)
    assert 30.0 <= told[0].seconds < 60.0
    assert looks < 200  # of 3,600 seconds
    assert settling.see("p", str(number).encode(), now + 31) == Settled("p", str(number).encode())


def test_only_what_is_not_at_rest_is_wanted() -> None:
    settling = Settling(0.5)
    settling.take("still", A, 0.0)
    settling.see("new", A, 0.0)
    assert settling.wanted(0.4) == []
    assert settling.wanted(0.5) == ["new"]
    assert settling.next_look() == 0.5
    settling.see("new", A, 0.6)
    assert settling.next_look() is None


_NAMES = ("a", "b", "c")
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["change", "remove", "look"]),
        st.sampled_from(_NAMES),
        st.floats(0, 2, allow_nan=False),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(_STEPS)
def test_whatever_happens(steps: list[tuple[str, str, float]]) -> None:
    settling = Settling(0.5, patience=5.0, longest=4.0)
    world: dict[str, bytes] = {}
    changed: dict[str, float] = {}
    told: dict[str, bytes] = {}
    now, number = 0.0, 0

    def look(names: tuple[str, ...]) -> None:
        for name in names:
            outcome = settling.see(name, world.get(name), now)
            if isinstance(outcome, Settled):
                # At rest is what was not touched for the quiet period at least, and is news.
                assert outcome.mark == world.get(name)
                assert now - changed[name] >= 0.5
                assert told.get(name) != outcome.mark
                _note(told, outcome)

    for kind, name, seconds in steps:
        now += seconds
        if kind == "change":
            number += 1
            world[name], changed[name] = str(number).encode(), now
        elif kind == "remove" and name in world:
            del world[name]
            changed[name] = now
        elif kind == "look":
            look((name,))
    assert set(settling.names) <= {*world, *told, *_NAMES}
    for _ in range(3):  # nobody touches anything any more
        now += 4.0
        look(_NAMES)
    assert told == world
    assert settling.next_look() is None
    assert set(settling.names) == set(world)


def _note(told: dict[str, bytes], outcome: Settled) -> Mapping[str, bytes]:
    if outcome.mark is None:
        del told[outcome.name]
    else:
        told[outcome.name] = outcome.mark
    return told

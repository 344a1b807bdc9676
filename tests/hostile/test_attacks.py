"""From inside, each attack fails as expected; the same one without the sandbox succeeds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.hostile import ATTACKS, Arena, arena, control_excused, control_fault

pytestmark = pytest.mark.needs("landlock", "seccomp")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("arena")) as made:
        yield made


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attack_succeeds_outside_and_fails_inside(opened: Arena, name: str) -> None:
    attack = ATTACKS[name]
    fault = control_fault(attack, opened.controls[name])
    assert not fault or control_excused(attack), fault
    assert opened.attempt(name) in attack.expected
    assert opened.plugin.state == "ready"


def test_nothing_outside_was_touched(opened: Arena) -> None:
    for name in sorted(ATTACKS):
        opened.attempt(name)
    assert opened.unchanged()
    assert opened.received == []
    assert opened.neighbour.call("echo", 1) == 1


def test_most_controls_work_for_this_user(opened: Arena) -> None:
    excused = {n for n, c in opened.controls.items() if control_fault(ATTACKS[n], c)}
    allowed = {n for n, a in ATTACKS.items() if control_excused(a)}
    assert excused <= allowed
    if os.geteuid() == 0:
        assert len(excused) <= len(ATTACKS) // 10, sorted(excused)

"""From inside, each attack fails as expected; the same one without the sandbox succeeds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandbox_host import HostConfig, State
from sandbox_host.selftest.arena import ENDED, Arena, open_arena
from sandbox_host.selftest.collection.registry import ATTACKS, Attack
from sandbox_host.selftest.report import Verdict, judge

BASE = ("landlock", "seccomp")

# All attacks take a quarter of a minute, and a busy machine's several times that.
pytestmark = [pytest.mark.needs(*BASE), pytest.mark.timeout(300)]

_EACH = [
    pytest.param(name, marks=pytest.mark.needs(*BASE, *attack.needs))
    for name, attack in sorted(ATTACKS.items())
]


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with open_arena(HostConfig()) as made:
        yield made


def excused(attack: Attack) -> bool:
    """Tell whether the control may fail: for this user, or on this machine."""
    return attack.optional or (attack.root and os.geteuid() != 0)


@pytest.mark.parametrize("name", _EACH)
def test_attack_succeeds_outside_and_fails_inside(arena: Arena, name: str) -> None:
    attack, control = ATTACKS[name], arena.controls[name]
    met = arena.attempt(name)
    judged = judge(name, attack, control, met, arena.receipt.active)
    allowed = {Verdict.HELD, *([Verdict.NO_CONTROL] if excused(attack) else [])}
    assert judged.verdict in allowed, judged
    assert met.startswith(ENDED) or arena.plugin.state is State.READY

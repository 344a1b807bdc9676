"""From inside, each attack fails as expected; the same one without the sandbox succeeds.

Each user's attacks are those that ``sandbox-host doctor --attack`` makes, once: what it tells of
them is looked at here as well.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox_host.selftest.arena import ATTACKS
from sandbox_host.selftest.collection.registry import Attack, Boundary
from sandbox_host.selftest.report import Verdict
from tests.support import hostile_script
from tests.support.ordinary_user import NOBODY
from tests.support.users import ORDINARY, ROOT, USERS, users

BASE = ("landlock", "seccomp")
LAYERS = (
    *("pid-namespace", "network-namespace", "uts-namespace", "own-root"),
    *("rlimits", "landlock", "seccomp"),
)

# All attacks take a quarter of a minute, and a busy machine's several times that.
pytestmark = [pytest.mark.needs(*BASE), pytest.mark.timeout(300)]

Told = Callable[[str], Any]

OWN = ROOT if os.geteuid() == 0 else ORDINARY
_EACH = [
    pytest.param(name, marks=pytest.mark.needs(*BASE, *attack.needs))
    for name, attack in sorted(ATTACKS.items())
]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """Return a function of a user: what `hostile_script` prints for that one."""
    with users() as runner:

        @functools.cache
        def run(user: str) -> Any:
            (line,) = runner.run(user, hostile_script.__name__, timeout=280).splitlines()
            found = json.loads(line)
            assert (found["code"], found["err"]) == (0, "")
            return {**found, **json.loads(found["out"])["attack"]}

        yield run


def excused(attack: Attack, user: str) -> bool:
    """Tell whether the control may fail: for this user, or on this machine."""
    return attack.optional or (attack.root and user != ROOT)


@pytest.mark.parametrize("name", _EACH)
def test_attack_succeeds_outside_and_fails_inside(told: Told, name: str) -> None:
    (judged,) = (one for one in told(OWN)["attacks"] if one["name"] == name)
    excuse = [Verdict.NO_CONTROL] if excused(ATTACKS[name], OWN) else []
    assert judged["verdict"] in {Verdict.HELD, *excuse}, judged
    assert name not in told(OWN)["fallen"]


def test_attacks_fail_for_an_ordinary_user_too(told: Told) -> None:
    """When the tests run as root; or else these are the same."""
    found = told(ORDINARY)
    assert found["uid"] == (NOBODY if os.geteuid() == 0 else os.geteuid())
    verdicts = {one["name"]: one["verdict"] for one in found["attacks"]}
    assert set(verdicts) == set(ATTACKS)
    others = {name: is_ for name, is_ in verdicts.items() if is_ != Verdict.HELD}
    assert set(others.values()) <= {Verdict.NO_CONTROL, Verdict.ACCEPTED}, others
    without = {name for name, is_ in others.items() if is_ == Verdict.NO_CONTROL}
    assert without <= {name for name, one in ATTACKS.items() if excused(one, ORDINARY)}, without
    assert found["fallen"] == []
    assert [one["what"] for one in found["aftermath"] if not one["holds"]] == []
    assert {"landlock", "seccomp", "no-new-privs", "rlimits"} <= in_force(found)


def in_force(found: Any) -> set[str]:
    return {one["layer"] for one in found["receipt"]["layers"] if one["status"] == "active"}


@pytest.mark.needs(*LAYERS)
@pytest.mark.parametrize("user", USERS)
def test_doctor_tells_what_came_of_them(told: Told, user: str) -> None:
    found = told(user)
    assert found["holds"]
    assert [one["class"] for one in found["classes"]] == list(Boundary)
    assert all(one["held"] >= 5 for one in found["classes"])
    assert found["total"]["held"] >= 90
    assert found["total"]["not_stopped"] == found["total"]["unclear"] == 0
    assert set(LAYERS) <= in_force(found)
    assert all(set(one["needs"]).isdisjoint(in_force(found)) for one in found["attacks"])
    assert [one["holds"] for one in found["aftermath"]] == [True] * 4
    if user == ROOT:
        without = [one for one in found["attacks"] if one["verdict"] == Verdict.NO_CONTROL]
        assert len(without) <= len(found["attacks"]) // 10


@pytest.mark.parametrize("user", USERS)
def test_doctor_leaves_nothing_behind(told: Told, user: str) -> None:
    assert told(user)["home_is_as_it_was"]
    assert told(user)["left"] == []

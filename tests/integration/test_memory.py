"""Every way to take memory: bounded, refused or ended; told; and nobody else pays for it.

As root, with control groups where there are any, and as an ordinary user with the watchdog alone:
`tests.support.memory_attacks` has the ways, and shows of each that it works without a sandbox.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox_host.backends.linux.cgroup_v1 import MAX_SLACK_BYTES
from sandbox_host.backends.linux.compile import MEMORY_HEADROOM
from sandbox_host.model import MIB
from tests.support import memory_attacks
from tests.support.memory_attacks import BUDGET, HOGS, NAMES, SCRATCH, SIZE
from tests.support.users import USERS, users

pytestmark = pytest.mark.needs("landlock", "seccomp", "own-root")

CASES = [(user, name) for user in USERS for name in NAMES]
MAX_GROWTH = 8 * MIB
"""Of the host, over all of it: an eighth of what one hog takes."""

SHARED_WITH_NURSERY = 16 * MIB
"""At most: pages of the interpreter, which are resident in a plugin and on nobody's account."""

ENDED = {"anonymous": " in touch", "small_objects": " in small_objects"}
REFUSED = {
    "shared": "EPERM",
    "memory_file": "EPERM",
    "child": "EPERM",
    "dev_shm": "ENOENT",  # a root of its own has none
    "in_scratch": "ENOSPC",
}

Outcome = Callable[[str], Any]


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Return a function of a user: what came of the attacks for a host of that user's."""
    with users() as runner:

        @functools.cache
        def run(user: str) -> Any:
            return json.loads(runner.run(user, memory_attacks.__name__, timeout=110.0))

        yield run


def test_every_attack_is_expected_to_come_to_something() -> None:
    assert {*ENDED, *REFUSED, "mapped_in_scratch", "page_cache", "mapped_file", "one_huge"} == set(
        NAMES
    )


@pytest.mark.parametrize(("user", "name"), CASES, ids=[f"{user}: {name}" for user, name in CASES])
def test_attack(outcome: Outcome, user: str, name: str) -> None:
    """It works without a sandbox; in it, it comes to what it may, and the neighbour answers."""
    told = outcome(user)
    assert told["plainly"][name] == ""
    found = told["attacks"][name]
    assert found["neighbour"]
    if name in ENDED:
        assert (found["error"], found["budget"]) == ("BudgetExceededError", "memory")
        assert (found["cause"], found["ended"], found["goes_on"]) == ("memory", True, False)
    elif name in REFUSED:
        assert (found["errno"], found["cause"]) == (REFUSED[name], None), found
        assert found["goes_on"]
    elif name == "mapped_in_scratch":  # the file is larger than the file system: SIGBUS
        assert (found["error"], found["cause"]) == ("PluginEndedError", "crashed")
        assert "SIGBUS" in found["text"]
    elif name == "one_huge":
        assert (found["error"], found["budget"]) == ("BudgetExceededError", "memory")
        assert (found["cause"], found["ended"], found["goes_on"]) == (None, False, True)
    else:
        if told["data_in_memory"]:
            pytest.skip("files in the data directory are memory here, which cannot be reclaimed")
        assert (found["value"], found["cause"], found["goes_on"]) == (SIZE, None, True), found


@pytest.mark.parametrize("user", USERS)
def test_place_of_a_hog(outcome: Outcome, user: str) -> None:
    """A machine that is busy may not give each of them the moment that it takes to tell."""
    found = outcome(user)["attacks"]
    places = {name: found[name]["place"] for name in ENDED}
    assert any(places.values())
    assert all(places[name].endswith(ENDED[name]) for name in ENDED if places[name])


@pytest.mark.parametrize("user", USERS)
def test_memory_of_the_host_is_flat(outcome: Outcome, user: str) -> None:
    """After all attacks, and as many hogs in a row as it takes to see that nothing adds up."""
    told = outcome(user)
    assert told["hogs"] == ["memory"] * HOGS
    assert told["grew"] < MAX_GROWTH
    assert told["only_neighbour"]


@pytest.mark.parametrize("user", USERS)
def test_control_group_bounds_a_hog_whatever_the_watchdog_sees(outcome: Outcome, user: str) -> None:
    found = outcome(user)["attacks"]["anonymous"]
    if "cgroup" not in found["layers"]:
        pytest.skip("no control groups: the watchdog has to do")
    held = BUDGET + SCRATCH + MEMORY_HEADROOM + MAX_SLACK_BYTES
    assert found["peak"] < held + SHARED_WITH_NURSERY

"""What is in force is compared with what was planned; a difference ends it before any import.

Each case applies less than was planned, as a fault of ours would: `tests.support.sabotage` lists
them. As root and as an ordinary user.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import sabotage
from tests.support.users import ROOT, USERS, users

pytestmark = [
    pytest.mark.needs(
        *("user-namespace", "pid-namespace", "network-namespace", "ipc-namespace"),
        *("uts-namespace", "cgroup-namespace", "own-root", "landlock", "seccomp"),
    ),
    # The first test of a group goes through all of it: a quarter of a minute, or several.
    pytest.mark.timeout(300),
]

AT = "failed at"
APPLIED = "could not be applied"
# What is told of each: by the comparison, or by the kernel when a later step meets what is missing.
TOLD = {
    "die_with": f"{AT} parent-death: parent death signal",
    "die_with the second time": f"{AT} parent-death: parent death signal",
    "unshare": f"uts-namespace {APPLIED}",
    "set_hostname": f"{AT} uts-namespace: host name",
    "make_root": f"{AT} own-root: .* is not mounted|the layer landlock {APPLIED}",
    "root made read-only": f"{AT} own-root: / is mounted without ro",
    "nest": f"{AT} user-namespace: it is in its nursery's",
    "setsid": f"{AT} session",
    "umask": f"{AT} umask",
    "_set_environment": f"{AT} environment",
    "set_rlimits": f"{AT} rlimits",
    "close_others": f"{AT} inherited-descriptors",
    "drop_bounding_set": f"{AT} capabilities: CapBnd",
    "become": f"{AT} own-uid",
    "drop_capabilities": f"{AT} capabilities",
    "forbid_new_privileges": f"the layer landlock {APPLIED}: .*not permitted",
    "restrict_with_landlock": f"{AT} landlock: the probe list-root succeeded",
    "load_filter": f"{AT} seccomp: Seccomp",
    "probes": f"{AT} own-root: the probe .* not tried",
    "pid namespace of the child": "did not report its lock-down|could not be started: .*process",
    "no network namespace": f"{AT} network-namespace: its net namespace is not its own",
    "no ipc namespace": f"{AT} ipc-namespace: its ipc namespace is not its own",
    "no uts namespace": f"uts-namespace {APPLIED}",
    "no cgroup namespace": f"{AT} cgroup-namespace: its cgroup namespace is not its own",
    "no mount namespace": f"{AT} own-root: its mnt namespace is not its own",
    "no host name": f"{AT} uts-namespace: host name",
    "another host name": f"{AT} uts-namespace: host name is 'host'",
    "no root": f"{AT} own-root: .* is not mounted|the layer landlock {APPLIED}",
    "no root and no landlock": f"{AT} own-root: .* is not mounted",
    "one bind more": f"{AT} own-root: /etc/passwd is mounted, and not in the plan",
    "a bind that is writable": f"{AT} own-root: .*/sdk is mounted without ro",
    "a bind with execution": f"{AT} own-root: .*/sdk is mounted without noexec",
    "no scratch": f"the layer own-root {APPLIED}",
    "nothing hidden": f"{AT} own-root: .* is not mounted",
    "no proc": f"{AT} own-root: /proc is not mounted|the layer landlock {APPLIED}",
    "not nested": f"{AT} user-namespace: it is in its nursery's",
    "one variable more": f"{AT} environment: .*SECRET",
    "no limits": f"{AT} rlimits",
    "one limit higher": f"{AT} rlimits: Max open files is .'1001', '1001'.",
    "one limit less": f"{AT} rlimits: Max open files",
    "no uid": f"{AT} own-uid",
    "another uid": f"{AT} own-uid",
    "no landlock": f"{AT} landlock: the probe list-root succeeded",
    "landlock with the root readable": f"{AT} landlock: the probe list-root succeeded",
    "no seccomp": f"{AT} seccomp: Seccomp",
    "a filter that allows everything": f"{AT} seccomp: the probe .* succeeded",
    "no probes": f"{AT} own-root: the probe .* not tried",
    "one probe less": f"{AT} seccomp: the probe socket .*not tried",
    "not added to the group": f"{AT} cgroup: the process is not in the group",
    "not pid 1": f"{AT} pid-namespace: its pid namespace is not its own",
}

GROUPS = (sabotage.SKIPPED, sabotage.THINNED, {**sabotage.HOSTS_OWN, sabotage.HONEST: None})
CASES = [(user, name) for user in USERS for name in sabotage.cases(root=user == ROOT)]
DISHONEST = [(user, name) for user, name in CASES if name != sabotage.HONEST]


def ids(cases: list[tuple[str, str]]) -> list[str]:
    return [f"{user}: {name}" for user, name in cases]


Outcome = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Return a function of a user and the name of a case: what came of it."""
    with users() as runner:

        @functools.cache
        def run(user: str, number: int) -> Any:
            names = [n for n in GROUPS[number] if n in sabotage.cases(root=user == ROOT)]
            return json.loads(runner.run(user, "tests.support.sabotage", *names, timeout=280))

        def find(user: str, name: str) -> Any:
            number = next(number for number, group in enumerate(GROUPS) if name in group)
            found = run(user, number)[name]
            if found is None:
                pytest.skip("this user's host has nothing of the kind to leave out here")
            return found

        yield find


def test_every_step_of_the_child_has_a_case() -> None:
    assert set(TOLD) == {name for _, name in DISHONEST}


@pytest.mark.parametrize(("user", "name"), DISHONEST, ids=ids(DISHONEST))
def test_less_than_planned_is_noticed_and_named(outcome: Outcome, user: str, name: str) -> None:
    found = outcome(user, name)
    assert found["error"] in {"AttestationError", "ConfinementError"}
    assert re.search(TOLD[name], found["text"]), found["text"]
    assert found["events"].count("start_failed") == 2
    assert "started" not in found["events"]


@pytest.mark.parametrize(("user", "name"), DISHONEST, ids=ids(DISHONEST))
def test_nothing_of_the_plugin_is_imported(outcome: Outcome, user: str, name: str) -> None:
    found = outcome(user, name)
    assert not found["executed"]
    assert found["plugins"] == []


@pytest.mark.parametrize(("user", "name"), CASES, ids=ids(CASES))
def test_nothing_is_left_behind(outcome: Outcome, user: str, name: str) -> None:
    found = outcome(user, name)
    left = {what: found["held"][what] for what in found["held"] if what != "descriptors"}
    assert left == {key: [] for key in ("processes", "bundles", "scratch", "uids", "groups")}
    assert not found["grew"]


@pytest.mark.parametrize("user", USERS)
def test_with_nothing_left_out_the_same_host_starts_it(outcome: Outcome, user: str) -> None:
    found = outcome(user, sabotage.HONEST)
    assert (found["error"], found["executed"]) == ("", True)
    assert found["events"].count("started") == 2

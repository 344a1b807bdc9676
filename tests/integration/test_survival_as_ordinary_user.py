"""The same strikes and crashes for a host of an ordinary user, from tests that run as root."""

from __future__ import annotations

import json

import pytest

from tests.support import ordinary_user
from tests.support.strikes import BOOTING
from tests.support.survival import NURSERY, PLUGIN

pytestmark = [
    pytest.mark.needs("landlock", "seccomp", "pid-namespace", "own-root"),
    pytest.mark.skipif(bool(ordinary_user.why_not()), reason=ordinary_user.why_not()),
]

STEPS = ("forked", "own-root", "locked-down", "importing", "calling")


@pytest.mark.parametrize("victim", [NURSERY, PLUGIN])
def test_strikes(victim: str) -> None:
    steps = [*BOOTING, *STEPS] if victim == NURSERY else STEPS
    with ordinary_user.readable_copy() as root:
        own = str(root / "own")
        arguments = (own, victim, *steps)
        told = ordinary_user.run_module("tests.support.survival", root, *arguments, timeout=50)
    assert json.loads(told) == dict.fromkeys(steps, "")


AS_PROCESS_1 = ("--pid", "--fork", "--mount-proc")


@pytest.mark.parametrize(
    ("by", "is_process_1"),
    [
        ((), False),
        (("unshare", "--user", "--map-current-user", *AS_PROCESS_1), True),
        (("unshare", "--user", "--map-root-user", *AS_PROCESS_1), True),
    ],
    ids=["plainly", "as-process-1", "as-process-1-and-root"],
)
def test_crashes(by: tuple[str, ...], is_process_1: bool) -> None:
    """In a user namespace, and as its root, who can give no user ids there."""
    with ordinary_user.readable_copy() as root:
        arguments = (str(root / "own"), "6")
        module = "tests.support.crashes"
        told = json.loads(ordinary_user.run_module(module, root, *arguments, timeout=50, by=by))
    assert (told["pid"] == 1) is is_process_1
    assert {"pid-namespace", "network-namespace", "own-root", "landlock"} <= set(told["active"])

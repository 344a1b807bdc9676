"""The same attacks by an ordinary user's plugin, when the tests run as root."""

from __future__ import annotations

import json

import pytest

from sandbox_host.selftest.arena import ATTACKS
from tests.support.ordinary_user import NOBODY, readable_copy, run_module, why_not

# All attacks take a quarter of a minute, and a busy machine's several times that.
pytestmark = [pytest.mark.needs("landlock", "seccomp"), pytest.mark.timeout(300)]


def test_attacks_fail_for_an_ordinary_user_too() -> None:
    if reason := why_not():
        pytest.skip(reason)
    with readable_copy() as root:
        printed = run_module("tests.support.hostile_script", root, timeout=280)
    report = json.loads(printed.splitlines()[-1])
    assert report["user"] == NOBODY
    assert set(report["verdicts"]) == set(ATTACKS)
    assert report["bad"] == {}
    assert report["aftermath"] == {}
    excused = {name for name, attack in ATTACKS.items() if attack.root or attack.optional}
    assert set(report["no_control"]) <= excused, report["no_control"]
    assert {"landlock", "seccomp", "no-new-privs", "rlimits"} <= set(report["layers"])

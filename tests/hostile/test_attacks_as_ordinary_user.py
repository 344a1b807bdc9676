"""The same attacks by an ordinary user's plugin, when the tests run as root."""

from __future__ import annotations

import json

import pytest

from tests.support.hostile import ATTACKS
from tests.support.ordinary_user import NOBODY, readable_copy, run_module, why_not

pytestmark = pytest.mark.needs("landlock", "seccomp")


def test_attacks_fail_for_an_ordinary_user_too() -> None:
    if reason := why_not():
        pytest.skip(reason)
    with readable_copy() as root:
        printed = run_module("tests.support.hostile_script", root, str(root / "own"), timeout=50)
    report = json.loads(printed.splitlines()[-1])
    assert report["user"] == NOBODY
    assert set(report["faults"]) == set(ATTACKS)
    assert {name: fault for name, fault in report["faults"].items() if fault} == {}
    assert report["unchanged"]
    assert report["signals"] == []
    assert {"landlock", "seccomp", "no-new-privs", "rlimits"} <= set(report["layers"])

"""What is in force is compared with what was planned; a difference ends it before any import.

Each test applies less than was planned, as a fault of ours would, and attests against the plan.
"""

from __future__ import annotations

import ast
import compileall
import os
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_host import BlockingHost
from sandbox_host.backends.linux import backend as linux
from sandbox_host.backends.linux.backend import LinuxBackend
from sandbox_host.errors import AttestationError, ConfinementError
from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

MARKING = """
with open(context().data_dir + "/executed", "w") as marker:
    marker.write("yes")
"""
_ALLOW_ALL = b"\x06\x00\x00\x00\x00\x00\xff\x7f"


def _without_seccomp(plan: dict[str, Any]) -> None:
    plan["seccomp"] = None


def _filter_that_allows_everything(plan: dict[str, Any]) -> None:
    plan["seccomp"] = _ALLOW_ALL


def _without_landlock(plan: dict[str, Any]) -> None:
    plan["landlock"] = None


def _landlock_with_the_root_readable(plan: dict[str, Any]) -> None:
    rules = [*plan["landlock"]["rules"], ["/", 0b1100]]
    plan["landlock"] = {**plan["landlock"], "rules": rules}


def _without_limits(plan: dict[str, Any]) -> None:
    plan["rlimits"] = []


def _one_limit_higher(plan: dict[str, Any]) -> None:
    plan["rlimits"] = [[number, value + (number == 7)] for number, value in plan["rlimits"]]


@pytest.mark.parametrize(
    ("less", "told"),
    [
        (_without_seccomp, "seccomp"),
        (_filter_that_allows_everything, "seccomp"),
        (_without_landlock, "landlock"),
        (_landlock_with_the_root_readable, "landlock: the probe open-canary succeeded"),
        (_without_limits, "rlimits"),
        (_one_limit_higher, "rlimits: Max open files"),
    ],
)
def test_less_than_planned_is_noticed(
    host: BlockingHost,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    less: Callable[[dict[str, Any]], None],
    told: str,
) -> None:
    """The child gets a plan with less in it than the one that is attested."""
    pack = linux.codec.pack

    def pack_less(plan: dict[str, Any]) -> bytes:
        sent = dict(plan)
        less(sent)
        return pack(sent)

    class Codec:
        pack = staticmethod(pack_less)
        unpack = staticmethod(linux.codec.unpack)

    monkeypatch.setattr(linux, "codec", Codec)
    with pytest.raises(AttestationError, match=f"failed at {told}"):
        host.load(workshop.write(MARKING))
    assert not (workshop.data_dir("sample") / "executed").exists()
    assert host.plugins == {}
    assert "start_failed" in workshop.config().journal_path.read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("drop_capabilities", "capabilities"),
        ("forbid_new_privileges", "no-new-privs|seccomp|landlock"),
        ("die_with", "parent-death"),
        ("set_rlimits", "rlimits"),
        ("load_filter", "seccomp"),
        ("restrict_with_landlock", "landlock"),
    ],
)
def test_child_that_skips_a_step_is_noticed(
    host: BlockingHost, workshop: Workshop, name: str, told: str
) -> None:
    """The child's own code is changed in the host's private copy of it."""
    if name == "drop_capabilities" and os.geteuid() != 0:
        pytest.skip("an ordinary user has no capability to keep")
    (run,) = (workshop.state_dir / "run").iterdir()
    lockdown = run / "sdk" / "plugin_sdk" / "child" / "lockdown_linux.py"
    lines = lockdown.read_text().splitlines()
    functions = [n for n in ast.parse("\n".join(lines)).body if isinstance(n, ast.FunctionDef)]
    (skipped,) = [function for function in functions if function.name == name]
    lines.insert(skipped.body[1].lineno - 1, "    return")
    lockdown.write_text("\n".join(lines))
    compileall.compile_dir(run / "sdk", quiet=2, force=True)
    with pytest.raises((AttestationError, ConfinementError), match=told):
        host.load(workshop.write(MARKING))
    assert not (workshop.data_dir("sample") / "executed").exists()


def test_nothing_patched_starts(host: BlockingHost, workshop: Workshop) -> None:
    assert isinstance(host._core._launcher._backend, LinuxBackend)
    host.load(workshop.write(MARKING))
    assert (workshop.data_dir("sample") / "executed").exists()

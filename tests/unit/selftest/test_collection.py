from __future__ import annotations

import ast
import builtins
import errno
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sandbox_host.backends.linux.syscalls import AARCH64, X86_64
from sandbox_host.model import Cause, Layer
from sandbox_host.selftest.arena import ENDED
from sandbox_host.selftest.collection.native import NUMBERS
from sandbox_host.selftest.collection.registry import (
    ATTACKS,
    MODULES,
    Attack,
    Boundary,
    NothingThereError,
    counts_as_success,
    host,
    outcome_of,
)
from sandbox_host.selftest.control import COLLECTION

FILES = sorted(COLLECTION.glob("*.py"))


def test_there_are_enough_over_all_boundaries() -> None:
    counts = Counter(attack.boundary for attack in ATTACKS.values())
    assert len(ATTACKS) >= 90
    assert set(counts) == set(Boundary)
    assert min(counts.values()) >= 5


@pytest.mark.parametrize("boundary", Boundary)
def test_a_module_holds_the_attacks_of_its_boundary(boundary: Boundary) -> None:
    module = boundary.replace("-", "_")
    assert module in MODULES
    assert (COLLECTION / f"{module}.py").is_file()


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_what_is_said_of_an_attack(name: str) -> None:
    attack = ATTACKS[name]
    assert name.isidentifier()
    assert attack.expected
    causes = {f"{ENDED}{cause}" for cause in Cause}
    raised = {*dir(builtins), NothingThereError.__name__, socket.gaierror.__name__}
    assert set(attack.expected) <= {*errno.errorcode.values(), *causes, *raised}
    assert set(attack.needs) <= set(Layer)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_the_standard_library_and_each_other(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            known = str(node.module).split(".")[0] in sys.stdlib_module_names
            assert known if node.level == 0 else node.level == 1


def test_system_calls_that_the_policy_knows_have_the_same_numbers() -> None:
    for name, numbers in NUMBERS.items():
        for machine, table in (("x86_64", X86_64), ("aarch64", AARCH64)):
            assert table.get(name, numbers[machine]) == numbers[machine], name


def test_every_number_is_used_by_an_attack() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in FILES if path.stem in MODULES)
    assert {name for name in NUMBERS if f'"{name}"' not in text} == set()


def test_it_can_be_imported_outside_of_the_host() -> None:
    code = (
        "import importlib, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "registry = importlib.import_module('collection.registry')\n"
        "for name in registry.MODULES:\n"
        "    importlib.import_module(f'collection.{name}')\n"
        "print(len(registry.ATTACKS))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(COLLECTION.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == len(ATTACKS)


def outcome(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> str:
    def run(_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setitem(ATTACKS, "probe", Attack(run, Boundary.NETWORK, ("EPERM",)))
    return outcome_of("probe", {})


def test_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(monkeypatch, None) == "succeeded"
    assert outcome(monkeypatch, PermissionError(errno.EPERM, "no")) == "EPERM"
    assert outcome(monkeypatch, OSError("without a number")) == "OSError"
    assert outcome(monkeypatch, NothingThereError("x")) == "NothingThereError"
    assert outcome(monkeypatch, MemoryError()) == "MemoryError"


def test_the_host_is_the_parent_or_what_the_target_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getppid", lambda: 12)
    assert host({"host_pid": 34}) == 12
    monkeypatch.setattr("os.getppid", lambda: 0)
    assert host({"host_pid": 34}) == 34
    monkeypatch.setattr("os.getpid", lambda: 34)
    with pytest.raises(ProcessLookupError):
        host({"host_pid": 34})


def test_errors_that_count_as_success() -> None:
    with counts_as_success(errno.EFAULT):
        raise OSError(errno.EFAULT, "it looked")
    with pytest.raises(PermissionError), counts_as_success(errno.EFAULT):
        raise PermissionError(errno.EPERM, "it did not")

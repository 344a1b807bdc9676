"""A plan with ``subprocess``, compiled, attested and told in a receipt."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux.attest import attest
from sandbox_host.backends.linux.compile import Ids, compile_plan, rlimits
from sandbox_host.backends.linux.landlock import EXECUTE, READ, READ_FILE
from sandbox_host.backends.linux.mounts import NOEXEC
from sandbox_host.backends.linux.programs import SHARED_MEMORY, programs
from sandbox_host.backends.linux.receipt import write_receipt
from sandbox_host.backends.linux.seccomp import ALLOW, ARCHITECTURES
from sandbox_host.errors import AttestationError
from sandbox_host.guarantees import standing
from sandbox_host.model import Layer, LayerStatus, Limits, Permissions
from tests.support.attested import MACHINE, PID, ROOT_HOST, Case
from tests.support.bpf_simulator import Call, run
from tests.support.plans import plan_and_places

IDS = Ids(host=100, pid=4_321, own_pid=True, uid=1, proc=True)
MET = {
    **dict.fromkeys(("fork", "start-interpreter"), "allowed"),
    **dict.fromkeys(("execute", "execute-own-file", "execute-library"), "EACCES"),
    "signal-host": "ESRCH",
    "resume-self": "EPERM",
}


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    asked = {"subprocess": True}
    grants = Permissions(subprocess=True)
    with plan_and_places(tmp_path, grants=grants, permissions=asked) as made:
        yield made


@pytest.fixture
def case(prepared: Any) -> Case:
    found = Case(*prepared, ROOT_HOST)
    found.report["probes"] |= MET
    return found


def order(prepared: Any) -> dict[str, Any]:
    return compile_plan(*prepared, MACHINE, IDS).order


def test_two_files_and_no_others_may_be_executed(prepared: Any) -> None:
    _, places = prepared
    rules = order(prepared)["landlock"]["rules"]
    found = programs(places.python)
    wanted = {path for path in (found.interpreter, found.loader) if path}
    assert {rule[0] for rule in rules if rule[1] & EXECUTE} == wanted
    for path in wanted:
        assert [path, EXECUTE | READ_FILE] in rules


def test_without_the_permission_none_may(tmp_path: Path) -> None:
    with plan_and_places(tmp_path) as plain:
        compiled = order(plain)
    assert not [rule for rule in compiled["landlock"]["rules"] if rule[1] & EXECUTE]
    assert SHARED_MEMORY not in {link for link, _ in compiled["root"]["links"]}
    assert not {"start-interpreter", "execute-own-file"} & set(compiled["probes"])
    assert [resource.RLIMIT_CORE, 0] in compiled["rlimits"]


def test_root_has_the_interpreter_and_a_place_for_semaphores(prepared: Any) -> None:
    _, places = prepared
    root = order(prepared)["root"]
    (mount,) = [m for m in root["mounts"] if m["path"] == programs(places.python).interpreter]
    assert mount["kind"] == "bind"
    assert not mount["flags"] & NOEXEC
    assert [SHARED_MEMORY, str(places.scratch_dir)] in root["links"]
    links = [link for link, _ in root["links"]]
    assert len(set(links)) == len(links)
    mounted = tuple(f"{m['path']}/" for m in root["mounts"])
    assert not [link for link in links if f"{link}/".startswith(mounted)]


def test_children_may_look_for_the_package(prepared: Any) -> None:
    _, places = prepared
    rules = order(prepared)["landlock"]["rules"]
    assert [str(places.package_dir.parent), READ] in rules


def test_filter_lets_it_fork_and_execute(prepared: Any) -> None:
    numbers = ARCHITECTURES["x86_64"]
    program = order(prepared)["seccomp"]
    for name in ("fork", "vfork", "execve"):
        assert run(program, Call(numbers.processes[name], numbers.audit)) == ALLOW


def test_what_it_executes_leaves_no_core_dump() -> None:
    """0 would let a program that takes them have them; 1 is no dump at all."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this process may have no core dump itself")
    assert rlimits(Limits(), own_count=True, processes=True)[resource.RLIMIT_CORE] == 1
    assert rlimits(Limits(), own_count=True)[resource.RLIMIT_CORE] == 0


def test_all_is_as_planned(case: Case) -> None:
    reports = {report.layer: report for report in attest(case.attested())}
    assert {report.status for report in reports.values()} == {LayerStatus.ACTIVE}
    assert reports[Layer.SECCOMP].detail == ("allowlist in force; socket, chown and SIGCONT denied")


@pytest.mark.parametrize(
    ("probe", "met"),
    [
        ("fork", "EPERM"),
        ("start-interpreter", "EACCES"),
        ("execute", "EPERM"),
        ("execute-own-file", "allowed"),
        ("execute-own-file", "EIO"),
        ("execute-library", "allowed"),
        ("signal-host", "allowed"),
        ("resume-self", "allowed"),
        ("socket", "allowed"),
    ],
)
def test_difference(case: Case, probe: str, met: str) -> None:
    case.report["probes"][probe] = met
    with pytest.raises(AttestationError, match=f"seccomp: the probe {probe} "):
        attest(case.attested())


def test_probe_that_was_not_made(case: Case) -> None:
    del case.report["probes"]["execute-library"]
    with pytest.raises(AttestationError, match="execute-library met not tried"):
        attest(case.attested())


def test_group_that_does_not_tell(case: Case) -> None:
    assert case.group is not None
    case.group.used = None
    with pytest.raises(AttestationError, match="cgroup: its group does not tell what"):
        attest(case.attested())


def test_receipt(case: Case) -> None:
    it = case.attested()
    receipt = write_receipt(it, PID, attest(it), ())
    (entry,) = [one for one in receipt.permissions if one.name == "subprocess"]
    assert entry.value == "forks, and its own interpreter"
    assert entry.mechanism == (
        "its interpreter, tried: allowed; other files: Landlock, tried: EACCES, EACCES; "
        "what they use: control group"
    )
    assert receipt.guarantees == standing(receipt.active, starts_processes=True)
    by_rlimit = {one.name: one.mechanism for one in receipt.limits if "RLIMIT" in one.mechanism}
    assert by_rlimit.pop("threads") == "RLIMIT_NPROC"  # which counts them all
    assert by_rlimit
    assert all(how.endswith(", for each process") for how in by_rlimit.values())

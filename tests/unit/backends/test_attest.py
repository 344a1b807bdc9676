"""Each difference between a process and its plan is named by the layer it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux.attest import attest
from sandbox_host.backends.linux.evidence import VISIBLE
from sandbox_host.backends.linux.procfs import MountLine
from sandbox_host.errors import AttestationError
from sandbox_host.model import Layer, LayerStatus, Permissions
from tests.support.attested import (
    ALL,
    CAPABILITIES,
    NURSERY,
    ORDINARY_HOST,
    OWN_UID,
    PID,
    ROOT_HOST,
    Case,
    FakeGroup,
    with_layers,
)
from tests.support.plans import plan_and_places

HOSTS = (ROOT_HOST, ORDINARY_HOST)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with plan_and_places(tmp_path_factory.mktemp("plans")) as made:
        yield made


@pytest.fixture(params=HOSTS)
def case(request: pytest.FixtureRequest, prepared: Any) -> Case:
    plan, places = prepared
    if request.param == ORDINARY_HOST:
        # An ordinary user's host cannot offer these.
        missing = {Layer.OWN_UID}
        plan = with_layers(plan, tuple(x for x in plan.layers if x not in missing))
    return Case(plan, places, request.param)


def details(case: Case) -> dict[Layer, str]:
    """Return what is told of each layer that was found in force."""
    reports = attest(case.attested())
    return {r.layer: r.detail for r in reports if r.status is LayerStatus.ACTIVE}


def test_all_is_as_planned(case: Case) -> None:
    reports = attest(case.attested())
    assert [report.layer for report in reports] == [
        layer for layer in case.plan.layers if layer is not Layer.WATCHDOG
    ]
    assert {report.status for report in reports} == {LayerStatus.ACTIVE}
    assert all(report.detail for report in reports)


def test_details_are_what_was_read(case: Case) -> None:
    told = details(case)
    assert "net:[32]" in told[Layer.NETWORK_NAMESPACE]
    assert f"user:[{case.evidence.namespaces['user']}]" in told[Layer.USER_NAMESPACE]
    assert "100 bytes, 9 tasks" in told[Layer.CGROUP]
    assert str(len(case.evidence.mounts)) in told[Layer.OWN_ROOT]
    assert "open files 1000" in told[Layer.RLIMITS]
    if Layer.OWN_UID in told:
        assert OWN_UID in told[Layer.OWN_UID]


def test_no_layer_is_reported_that_was_not_planned(case: Case) -> None:
    """What is in force without having been planned is no news of the plan's."""
    case.plan = with_layers(case.plan, (Layer.SECCOMP,))
    assert [report.layer for report in attest(case.attested())] == [Layer.SECCOMP]


# -- every check, one difference each ------------------------------------------------------------

Change = Callable[[Case], None]


def _evidence(**fields: Any) -> Change:
    def change(case: Case) -> None:
        case.evidence = replace(case.evidence, **fields)

    return change


def _within(name: str, **fields: Any) -> Change:
    def change(case: Case) -> None:
        changed = {**getattr(case.evidence, name), **fields}
        kept = {key: value for key, value in changed.items() if value is not None}
        case.evidence = replace(case.evidence, **{name: kept})

    return change


def _status(**fields: str | None) -> Change:
    return _within("status", **fields)


def _limit(name: str, value: Any) -> Change:
    return _within("limits", **{name: value})


def _report(**fields: Any) -> Change:
    def change(case: Case) -> None:
        case.report |= fields

    return change


def _handed(*names: str) -> Change:
    """A variable that the host itself handed over, against the plan."""

    def change(case: Case) -> None:
        case.environment = names
        case.report["environment"] = sorted(names)

    return change


def _without(key: str) -> Change:
    def change(case: Case) -> None:
        del case.report[key]

    return change


def _probe(name: str, met: str | None) -> Change:
    def change(case: Case) -> None:
        case.report["probes"] |= {name: met}
        if met is None:
            del case.report["probes"][name]

    return change


def _like(whose: str, link: str) -> Change:
    """Share a namespace with the host, or with the nursery."""

    def change(case: Case) -> None:
        inode = getattr(case.evidence, whose)[link]
        _within("namespaces", **{link: inode})(case)

    return change


def _group(**fields: Any) -> Change:
    def change(case: Case) -> None:
        case.group = FakeGroup(**fields)

    return change


def _no_group(case: Case) -> None:
    case.group = None


def _mounts(change_lines: Callable[[list[MountLine]], list[MountLine]]) -> Change:
    def change(case: Case) -> None:
        lines = change_lines(list(case.evidence.mounts))
        case.evidence = replace(case.evidence, mounts=tuple(lines))

    return change


def _less(point: str, word: str) -> Change:
    def weaken(lines: list[MountLine]) -> list[MountLine]:
        return [
            replace(line, options=line.options - {word}) if line.point.endswith(point) else line
            for line in lines
        ]

    return _mounts(weaken)


EXTRA = MountLine("/etc", frozenset({"ro", "nosuid", "nodev", "noexec"}), "ext4", "rw")

LINKS = {
    "network-namespace": "net",
    "ipc-namespace": "ipc",
    "uts-namespace": "uts",
    "cgroup-namespace": "cgroup",
    "pid-namespace": "pid",
    "own-root": "mnt",
}

DIFFERENCES: dict[str, list[tuple[str, Change]]] = {
    "threads": [("two threads", _status(Threads="2")), ("untold", _status(Threads=None))],
    "session": [
        ("the nursery's", _status(NSsid=f"{NURSERY}\t1\t0")),
        ("untold", _status(NSsid=None)),
    ],
    "umask": [("the host's", _status(Umask="0022")), ("untold", _status(Umask=None))],
    "parent-death": [
        ("another parent", _status(PPid="1")),
        ("no signal", _report(parent_death_signal=0)),
        ("another signal", _report(parent_death_signal=15)),
        ("signal untold", _without("parent_death_signal")),
    ],
    "environment": [
        ("one variable more", _report(environment=["HOME", "LANG", "SECRET"])),
        ("one that was handed over and not granted", _handed("HOME", "LANG", "SECRET")),
        ("none", _report(environment=[])),
        ("untold", _without("environment")),
    ],
    "cgroup": [
        ("none was made", _no_group),
        ("not a member", _evidence(membership="0::/")),
        ("no limit on memory", _group(values={"tasks": 9})),
        ("no limit on tasks", _group(values={"memory_bytes": 9})),
        ("the group is gone", _group(gone=True)),
    ],
    "user-namespace": [
        ("the host's", _like("own_namespaces", "user")),
        ("not shown", _evidence(namespaces={})),
    ],
    **{
        layer: [
            ("the host's", _like("own_namespaces", link)),
            ("the nursery's", _like("nursery_namespaces", link)),
            ("not shown", _within("namespaces", **{link: None})),
        ]
        for layer, link in LINKS.items()
    },
}
DIFFERENCES["pid-namespace"] += [
    ("not process 1", _status(NSpid=f"{PID}\t7\t2", NSsid=f"{PID}\t7\t2")),
    ("untold", _status(NSpid=None, NSsid=None)),
    ("not process 1 to itself", _report(pid=PID)),
]
DIFFERENCES["uts-namespace"] += [
    ("the machine's name", _report(hostname="vm")),
    ("name untold", _without("hostname")),
]
DIFFERENCES["own-root"] += [
    ("a mount more", _mounts(lambda lines: [*lines, EXTRA])),
    ("a mount less", _mounts(lambda lines: lines[:-1])),
    ("another root", _mounts(lambda lines: lines[1:])),
    ("nothing mounted", _mounts(lambda _: [])),
    ("writable root", _mounts(lambda lines: [replace(lines[0], options=frozenset()), *lines[1:]])),
    ("writable library", _less("/sdk", "ro")),
    ("executable code", _less("/sdk", "noexec")),
    ("devices", _less("/sdk", "nodev")),
    ("set-user-ID programs", _less("/proc", "nosuid")),
    ("canary seen from outside", _evidence(canary=VISIBLE)),
    ("canary hidden only by its mode", _evidence(canary="EACCES")),
    ("canary opened", _probe("open-canary", "allowed")),
    ("canary closed, but there", _probe("open-canary", "EACCES")),
    ("canary seen", _probe("stat-canary", "allowed")),
    ("root written", _probe("write-root", "allowed")),
    ("not tried", _probe("write-root", None)),
]
DIFFERENCES["rlimits"] = [
    ("hard one higher", _limit("Max open files", ("1000", "1001"))),
    ("soft one higher", _limit("Max open files", ("1001", "1001"))),
    ("unlimited", _limit("Max address space", ("unlimited", "unlimited"))),
    ("untold", _limit("Max processes", None)),
]
DIFFERENCES["inherited-descriptors"] = [
    ("one more", _report(descriptors=[0, 1, 2, 3, 4, 5, 9])),
    ("one less", _report(descriptors=[0, 1, 2, 3, 4])),
    ("one more seen from outside", _evidence(descriptors=7)),
    ("untold", _without("descriptors")),
]
DIFFERENCES["capabilities"] = [
    *[(name, _status(**{name: "0000000000000001"})) for name in CAPABILITIES],
    ("untold", _status(CapAmb=None)),
    ("uid 0 is worth something", _report(securebits=0)),
    ("securebits untold", _without("securebits")),
]
DIFFERENCES["no-new-privs"] = [
    ("not set", _status(NoNewPrivs="0")),
    ("untold", _status(NoNewPrivs=None)),
]
DIFFERENCES["landlock"] = [
    ("root listed", _probe("list-root", "allowed")),
    ("root not there", _probe("list-root", "ENOENT")),
    ("not tried", _probe("list-root", None)),
]
DIFFERENCES["seccomp"] = [
    ("no filter", _status(Seccomp="0")),
    ("strict mode", _status(Seccomp="1")),
    ("only what was there before", _status(Seccomp_filters="2")),
    ("one filter more", _status(Seccomp_filters="4")),
    *[
        (f"{name} {met}", _probe(name, met))
        for name in ("socket", "fork", "execute", "signal-host", "change-owner")
        for met in ("allowed", "EACCES")
    ],
    ("made code", _probe("writable-and-executable", "allowed")),
    ("not tried", _probe("socket", None)),
]
ROOT_ONLY = {
    "own-uid": [
        ("the host's", _status(Uid="0\t0\t0\t0")),
        ("one of four is another", _status(Uid=f"{OWN_UID}\t{OWN_UID}\t0\t{OWN_UID}")),
        ("untold", _status(Uid=None)),
        ("another than planned", _report(user=[2] * 6)),
        ("another group", _report(user=[1, 1, 1, 1, 1, 0])),
        ("supplementary groups", _status(Groups="0 4")),
        ("a group it sees", _report(user=[1, 1, 1, 1, 1, 1, 27])),
        ("user untold", _without("user")),
    ],
    "user-namespace": [("not the nursery's", _within("namespaces", user=77))],
}
ORDINARY_ONLY = {
    "user-namespace": [("the nursery's", _like("nursery_namespaces", "user"))],
}


def cases() -> Iterator[Any]:
    for host in HOSTS:
        more = ROOT_ONLY if host == ROOT_HOST else ORDINARY_ONLY
        for table in (DIFFERENCES, more):
            for layer, changes in table.items():
                for name, change in changes:
                    yield pytest.param(host, layer, change, id=f"{host}: {layer}: {name}")


@pytest.mark.parametrize(("case", "layer", "change"), list(cases()), indirect=["case"])
def test_difference_is_named(case: Case, layer: str, change: Change) -> None:
    change(case)
    with pytest.raises(AttestationError, match=f"^Attestation of sample failed at {layer}: "):
        attest(case.attested())


def test_every_layer_has_a_difference() -> None:
    assert {*DIFFERENCES, *ROOT_ONLY} >= {layer.value for layer in Layer} - {"watchdog"}


def test_refusal_says_whose_fault_it_is(case: Case) -> None:
    case.report["parent_death_signal"] = 0
    with pytest.raises(AttestationError) as caught:
        attest(case.attested())
    assert "a fault of the host, not of the plugin" in str(caught.value)
    assert "doctor" in caught.value.remedy


# -- what is no difference -----------------------------------------------------------------------


def test_bounding_set_where_nobody_could_have_emptied_it(prepared: Any) -> None:
    """Only a holder of CAP_SETPCAP can empty it; no_new_privs makes up for it."""
    plan, places = prepared
    namespaces = {Layer.USER_NAMESPACE, Layer.OWN_UID}
    case = Case(
        with_layers(plan, tuple(x for x in plan.layers if x not in namespaces)),
        places,
        ORDINARY_HOST,
    )
    _status(CapBnd=ALL)(case)
    case.report["securebits"] = 0
    assert Layer.CAPABILITIES in [report.layer for report in attest(case.attested())]


def test_kernel_that_does_not_tell_the_number_of_descriptors(case: Case) -> None:
    usual = details(case)
    _evidence(descriptors=0)(case)
    assert details(case) == usual


def test_kernel_that_does_not_tell_the_number_of_filters(case: Case) -> None:
    usual = details(case)
    _status(Seccomp_filters=None)(case)
    assert details(case) == usual


def test_landlock_alone_denies_the_canary_that_is_there(case: Case) -> None:
    case.plan = with_layers(case.plan, (Layer.LANDLOCK,))
    case.report["probes"] = {"open-canary": "EACCES", "list-root": "EACCES", "make-link": "EACCES"}
    assert "files outside the plan were denied" in details(case)[Layer.LANDLOCK]


def test_threads_that_nobody_granted(prepared: Any) -> None:
    case = Case(*prepared, ROOT_HOST)
    case.report["probes"]["start-thread"] = "allowed"
    with pytest.raises(AttestationError, match="seccomp: the probe start-thread succeeded"):
        attest(case.attested())


def test_native_code_may_make_code(tmp_path: Path) -> None:
    request = {"permissions": {"native_code": True}}
    with plan_and_places(tmp_path, grants=Permissions(native_code=True), **request) as prepared:
        case = Case(*prepared, ROOT_HOST)
        with pytest.raises(AttestationError, match="seccomp: the probe writable-and-executable"):
            attest(case.attested())
        case.report["probes"]["writable-and-executable"] = "allowed"
        assert "allowlist in force" in details(case)[Layer.SECCOMP]

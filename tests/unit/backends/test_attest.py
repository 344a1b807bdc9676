"""Each difference between a process and its plan is named by the layer it belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.backends.linux import attest as attestation
from sandbox_host.backends.linux.compile import LIMIT_NAMES, compile_plan
from sandbox_host.backends.linux.probe import Machine
from sandbox_host.errors import AttestationError
from sandbox_host.model import Layer
from tests.support.plans import plan_and_places

PID = 4_321
KEEP = [5, 6, 7]
MACHINE = Machine("x86_64", 7, "", seccomp=True, seccomp_reason="")
ENVIRONMENT = {"HOME": "/h", "LANG": "C.UTF-8"}


class Evidence:
    """What the kernel and the child say, good until a test changes it."""

    def __init__(self, compiled: dict[str, Any]) -> None:
        self.compiled = compiled
        self.status = {
            "PPid": str(os.getpid()),
            "Threads": "1",
            "NoNewPrivs": "1",
            "Seccomp": "2",
            "Seccomp_filters": "3",
            **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
        }
        self.own = {"Seccomp_filters": "2", "CapEff": "000001ffffffffff"}
        self.limits = {LIMIT_NAMES[n]: (str(v), str(v)) for n, v in compiled["rlimits"]}
        self.descriptors = 6
        self.report: dict[str, Any] = {
            "environment": sorted(ENVIRONMENT),
            "descriptors": [0, 1, 2, *KEEP],
            "parent_death_signal": 9,
            "probes": {
                "open-canary": "EACCES",
                **dict.fromkeys(("socket", "fork", "signal-host", "change-mode"), "EPERM"),
            },
        }

    def read(self, pid: int, name: str) -> str:
        if name == "status":
            fields = self.status if pid == PID else self.own
            return "".join(f"{key}:\t{value}\n" for key, value in fields.items())
        lines = [f"{key:<26}{soft:<21}{hard:<21}" for key, (soft, hard) in self.limits.items()]
        return "\n".join(["Limit", *lines])


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    with plan_and_places(tmp_path) as made:
        yield made


@pytest.fixture
def evidence(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    made = Evidence(compile_plan(*prepared, MACHINE, PID, KEEP))
    monkeypatch.setattr(attestation.procfs, "read", made.read)
    monkeypatch.setattr(attestation.procfs, "count_descriptors", lambda _: made.descriptors)
    return made


def attest(prepared: Any, evidence: Evidence) -> Any:
    plan, _ = prepared
    return attestation.attest(plan, PID, evidence.compiled, ENVIRONMENT, evidence.report, ())


def test_all_is_as_planned(prepared: Any, evidence: Evidence) -> None:
    receipt = attest(prepared, evidence)
    assert (receipt.plugin, receipt.pid) == ("sample", PID)
    assert set(receipt.active) == set(Layer) - {Layer.WATCHDOG}
    assert all(report.detail for report in receipt.layers)


def _status(**fields: str) -> Any:
    return lambda evidence: evidence.status.update(fields)


def _report(**fields: Any) -> Any:
    return lambda evidence: evidence.report.update(fields)


def _probe(name: str, met: str | None) -> Any:
    def change(evidence: Evidence) -> None:
        probes = evidence.report["probes"]
        if met is None:
            del probes[name]
        else:
            probes[name] = met

    return change


def _limit(name: str, value: tuple[str, str]) -> Any:
    return lambda evidence: evidence.limits.update({name: value})


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        (_status(PPid="1"), Layer.PARENT_DEATH),
        (_report(parent_death_signal=0), Layer.PARENT_DEATH),
        (_limit("Max open files", ("1000", "1001")), Layer.RLIMITS),
        (_limit("Max address space", ("unlimited", "unlimited")), Layer.RLIMITS),
        (_report(environment=["HOME", "LANG", "SECRET"]), Layer.ENVIRONMENT),
        (_report(environment=[]), Layer.ENVIRONMENT),
        (_report(descriptors=[0, 1, 2, *KEEP, 9]), Layer.DESCRIPTORS),
        (lambda evidence: setattr(evidence, "descriptors", 7), Layer.DESCRIPTORS),
        *[
            (_status(**{name: "0000000000000001"}), Layer.CAPABILITIES)
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")
        ],
        (_status(NoNewPrivs="0"), Layer.NO_NEW_PRIVS),
        (_probe("open-canary", "allowed"), Layer.LANDLOCK),
        (_probe("open-canary", "ENOENT"), Layer.LANDLOCK),
        (_probe("open-canary", None), Layer.LANDLOCK),
        (_status(Seccomp="0"), Layer.SECCOMP),
        (_status(Seccomp_filters="2"), Layer.SECCOMP),
        *[
            (_probe(name, "allowed"), Layer.SECCOMP)
            for name in ("socket", "fork", "signal-host", "change-mode")
        ],
        (_report(probes={}), Layer.LANDLOCK),
        (_status(Threads="2"), "threads"),
    ],
)
def test_difference_is_named(prepared: Any, evidence: Evidence, change: Any, layer: str) -> None:
    change(evidence)
    with pytest.raises(AttestationError, match=f"failed at {layer}: "):
        attest(prepared, evidence)


def test_bounding_set_of_an_ordinary_users_child(prepared: Any, evidence: Evidence) -> None:
    """Only a holder of CAP_SETPCAP can empty it; no_new_privs makes up for it."""
    evidence.own["CapEff"] = "0" * 16
    evidence.status["CapBnd"] = "000001ffffffffff"
    assert Layer.CAPABILITIES in attest(prepared, evidence).active


def test_kernel_that_does_not_tell_the_number_of_descriptors(
    prepared: Any, evidence: Evidence
) -> None:
    evidence.descriptors = 0
    assert Layer.DESCRIPTORS in attest(prepared, evidence).active


def test_process_that_is_gone(
    prepared: Any, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int, name: str) -> str:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(attestation.procfs, "read", gone)
    with pytest.raises(AttestationError, match="is gone"):
        attest(prepared, evidence)

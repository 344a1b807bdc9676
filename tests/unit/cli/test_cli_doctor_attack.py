from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import HostConfig
from sandbox_host.cli import doctor, doctor_attack
from sandbox_host.errors import AttestationError, StartError
from sandbox_host.guarantees import standing
from sandbox_host.model import Enforced, Layer, LayerReport, LayerStatus, Receipt
from sandbox_host.selftest.collection.registry import ATTACKS, SUCCEEDED, Boundary
from sandbox_host.selftest.report import (
    NOT_MADE,
    Aftermath,
    Attempt,
    AuditReport,
    Control,
    judge,
)
from tests.support.command_line import LocalCommandLine, Ran

LAYERS = tuple(LayerReport(layer, LayerStatus.ACTIVE, "fine") for layer in Layer)
RECEIPT = Receipt(
    "hostile",
    4711,
    LAYERS,
    standing(Layer),
    (Enforced("memory_bytes", "128 MiB", "control group"),),
    (Enforced("network", "none", "seccomp"),),
)


def attempt(name: str, met: str, *, outside: str = SUCCEEDED, bare: bool = False) -> Attempt:
    attack = ATTACKS[name]
    control = Control(outside, attack.ends_parent)
    return judge(name, attack, control, met, () if bare else [one.layer for one in LAYERS])


HELD = (attempt("fork", "EPERM"), attempt("tcp_connect", "EPERM"))


def report(*attempts: Attempt, **changes: Any) -> AuditReport:
    given: dict[str, Any] = {
        "user": "somebody (uid 7)",
        "system": "Linux 9 x86_64",
        "python": "3.11",
        "seconds": 12.34,
        "receipt": RECEIPT,
        "attempts": (*HELD, *attempts),
        "aftermath": (Aftermath("all is quiet", True),),
    }
    return AuditReport(**{**given, **changes})


@pytest.fixture
def run(cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the doctor on a machine where the attacks have a given result."""

    def run_doctor(result: AuditReport | Exception, *arguments: str) -> Ran:
        def audit(_: HostConfig, progress: Any) -> AuditReport:
            progress("attack 1 of 2")
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(doctor, "machine_offers", lambda _: LAYERS)
        monkeypatch.setattr(doctor_attack, "audit", audit)
        return cli("doctor", "--attack", "--trust-store", store, *arguments)

    return run_doctor


def test_all_held(run: Any) -> None:
    ran = run(report())
    assert (ran.code, ran.err) == (0, "")
    words = " ".join(ran.out.split())
    for told in ("somebody (uid 7)", "Linux 9 x86_64", "hostile: process 4711", "12 s"):
        assert told in words
    assert all(boundary in ran.out for boundary in Boundary)
    assert "all 2 2 0 0 0 0" in words
    assert "DID NOT HOLD" not in ran.out
    assert ran.out.splitlines()[-1] == report().summary()


def test_lines_fit_a_terminal(run: Any) -> None:
    others = (attempt("execute", SUCCEEDED), attempt("make_device", "EPERM", outside="EPERM"))
    told = report(*others)
    lines = run(told).out.splitlines()
    assert all(len(line) <= 80 for line in lines if line != told.summary() and "/" not in line)


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (attempt("execute", SUCCEEDED), "not stopped"),
        (attempt("execute", "ENOSYS"), "unclear"),
        (attempt("execute", NOT_MADE), "not made"),
    ],
)
def test_one_that_did_not_hold_is_exit_1(run: Any, one: Attempt, verdict: str) -> None:
    ran = run(report(one))
    assert ran.code == 1
    assert ran.err == (
        "sandbox-host: the sandbox did not hold, or that could not be shown: execute.\n"
    )
    table = ran.out.split("DID NOT HOLD")[1]
    for told in ("execute", "processes", verdict, one.met):
        assert told in table


def test_an_aftermath_that_does_not_hold_is_exit_1(run: Any) -> None:
    ran = run(report(aftermath=(Aftermath("all is quiet", False, "a noise"),)))
    assert ran.code == 1
    assert "see the last table" in ran.err
    assert "a noise" in ran.out


def test_what_is_accepted_and_what_has_no_control_is_told_by_name(run: Any) -> None:
    accepted = attempt("learn_host_name", SUCCEEDED, bare=True)
    ran = run(report(accepted, attempt("make_device", "EPERM", outside="EACCES")))
    assert (ran.code, ran.err) == (0, "")
    words = " ".join(ran.out.split())
    assert "uts-namespace: learn_host_name" in words
    assert "met EACCES: make_device" in words


def test_a_name_is_never_broken(run: Any) -> None:
    names = sorted(name for name in ATTACKS if name not in {"fork", "tcp_connect"})
    for met, ways in ((SUCCEEDED, {}), ("EPERM", {"outside": "EPERM"}), ("x", {"bare": True})):
        out = run(report(*(attempt(name, met, **ways) for name in names))).out
        words = set(out.replace(",", " ").split())
        assert words >= set(names)


def test_the_document_has_every_attack(run: Any) -> None:
    ran = run(report(attempt("execute", SUCCEEDED)), "--format", "json")
    told = json.loads(ran.out)["attack"]
    assert (ran.code, told["holds"]) == (1, False)
    assert told["summary"] == report(attempt("execute", SUCCEEDED)).summary()
    assert [one["name"] for one in told["attacks"]] == ["fork", "tcp_connect", "execute"]
    assert told["attacks"][2] == {
        "name": "execute",
        "class": "processes",
        "verdict": "not stopped",
        "met": SUCCEEDED,
        "expected": list(ATTACKS["execute"].expected),
        "control": "",
        "needs": [],
    }
    assert [one["class"] for one in told["classes"]] == list(Boundary)
    assert told["total"] == {
        "attempted": 3,
        "held": 2,
        "not_stopped": 1,
        "unclear": 0,
        "accepted": 0,
        "no_control": 0,
    }
    assert told["receipt"]["pid"] == 4711
    assert told["receipt"]["limits"][0]["mechanism"] == "control group"
    assert len(told["receipt"]["guarantees"]) == len(RECEIPT.guarantees)
    assert told["aftermath"] == [{"what": "all is quiet", "holds": True, "detail": ""}]


@pytest.mark.parametrize("as_format", ["text", "json"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AttestationError("It was not confined."), 6),
        (StartError("It did not start.", plugin="hostile"), 1),
    ],
)
def test_attacks_that_could_not_be_made(
    run: Any, error: Exception, code: int, as_format: str
) -> None:
    ran = run(error, "--format", as_format)
    assert ran.code == code
    assert str(error) in ran.err
    if as_format == "json":
        assert json.loads(ran.out)["attack"] == {"error": str(error)}


def test_none_is_made_where_no_plugin_can_be_loaded(
    run: Any, cli: LocalCommandLine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(report())
    monkeypatch.setattr(doctor, "machine_offers", lambda _: LAYERS[:1])
    ran = cli("doctor", "--attack", "--trust-store", store)
    assert ran.code == 6
    assert "no attack was made" in ran.err
    document = json.loads(cli("doctor", "--attack", "--format", "json").out)
    assert document["attack"] is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        with doctor_attack._progress() as progress:
            progress("attack 1 of 2: [bold]")
        assert bool(stream.getvalue()) is shown

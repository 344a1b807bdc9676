"""Confirms from outside that what was planned is in force, and writes the receipt from it.

Two sources, and neither is the plan: the kernel's own account of the process in ``/proc``, and
live probes that the still trusted child made of itself *after* it had locked itself down. No
plugin byte has been imported at this point, so the child's word is our own code's word.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.compile import LIMIT_NAMES
from sandbox_host.errors import AttestationError
from sandbox_host.model import Layer, LayerReport, LayerStatus, Receipt

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan

_PASSED: Final = "allowed"
_NO_CAPABILITIES: Final = "0" * 16
_UNLIMITED: Final = str(2**64 - 1)

# What each live probe must have met, by the layer that is to stop it.
_PROBES: Final = {
    Layer.LANDLOCK: {"open-canary": {"EACCES"}},
    Layer.SECCOMP: {
        "socket": {"EPERM"},
        "fork": {"EPERM"},
        "signal-host": {"EPERM"},
        "change-mode": {"EPERM"},
    },
}


def attest(
    plan: SandboxPlan,
    pid: int,
    compiled: dict[str, Any],
    environment: dict[str, str],
    report: dict[str, Any],
    missing: tuple[LayerReport, ...],
) -> Receipt:
    """Compare the process with the plan.

    Args:
        plan: what was to be applied.
        pid: the child.
        compiled: the data that the child was given.
        environment: the environment that it was started with.
        report: what it read back itself.
        missing: reports of layers this machine lacks and the operator accepted to miss.

    Raises:
        AttestationError: the first difference, by layer.
    """
    try:
        status = procfs.parse_status(procfs.read(pid, "status"))
        limits = procfs.parse_limits(procfs.read(pid, "limits"))
        own = procfs.parse_status(procfs.read(os.getpid(), "status"))
        descriptors = procfs.count_descriptors(pid)
    except OSError as error:
        text = (
            f"Attestation of {plan.identity}: the kernel's account of pid {pid} is gone: {error}."
        )
        raise AttestationError(text) from error
    checks = {
        Layer.PARENT_DEATH: lambda: _parent_death(status, report),
        Layer.RLIMITS: lambda: _rlimits(limits, compiled),
        Layer.ENVIRONMENT: lambda: _environment(report, environment),
        Layer.DESCRIPTORS: lambda: _descriptors(report, compiled, descriptors),
        Layer.CAPABILITIES: lambda: _capabilities(status, own),
        Layer.NO_NEW_PRIVS: lambda: _no_new_privs(status),
        Layer.LANDLOCK: lambda: _landlock(report, compiled),
        Layer.SECCOMP: lambda: _seccomp(status, own, report),
    }
    if status.get("Threads") != "1":
        _fail(plan, "threads", f"{status.get('Threads')} threads before the lock-down was done")
    reports: list[LayerReport] = []
    for layer in (planned for planned in plan.layers if planned in checks):
        try:
            reports.append(LayerReport(layer, LayerStatus.ACTIVE, checks[layer]()))
        except _DifferenceError as difference:
            _fail(plan, layer, str(difference))
    return Receipt(plan.identity, pid, (*reports, *missing))


class _DifferenceError(Exception):
    """Something is not as planned."""


def _fail(plan: SandboxPlan, layer: str, difference: str) -> None:
    text = (
        f"Attestation of {plan.identity} failed at {layer}: {difference}. The child was killed "
        f"before it imported anything; this is a fault of the host, not of the plugin."
    )
    raise AttestationError(text, remedy="Run `sandbox-host doctor` and report this.")


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        text = f"{what} is {found!r}, not {wanted!r}"
        raise _DifferenceError(text)


def _parent_death(status: dict[str, str], report: dict[str, Any]) -> str:
    _expect("PPid", status.get("PPid"), str(os.getpid()))
    _expect("parent death signal", report.get("parent_death_signal"), 9)
    return "SIGKILL when the host's process ends"


def _rlimits(limits: dict[str, tuple[str, str]], compiled: dict[str, Any]) -> str:
    for number, value in compiled["rlimits"]:
        name, text = LIMIT_NAMES[number], str(value)
        _expect(name, limits.get(name), (text, text))
    return ", ".join(
        f"{LIMIT_NAMES[number].removeprefix('Max ')} {value}"
        for number, value in compiled["rlimits"]
    )


def _environment(report: dict[str, Any], environment: dict[str, str]) -> str:
    _expect("environment", sorted(report.get("environment", ())), sorted(environment))
    return f"{len(environment)} variables, none of the host's"


def _descriptors(report: dict[str, Any], compiled: dict[str, Any], outside: int) -> str:
    kept = [0, 1, 2, *compiled["keep"]]
    _expect("open descriptors", report.get("descriptors"), sorted(kept))
    if outside:
        _expect("number of descriptors seen from outside", outside, len(kept))
    return f"{len(kept)} open: standard streams, the protocol, the trace pipe"


def _capabilities(status: dict[str, str], own: dict[str, str]) -> str:
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        _expect(name, status.get(name), _NO_CAPABILITIES)
    # The bounding set can be emptied only by who holds CAP_SETPCAP; no_new_privs makes up for it.
    if int(own.get("CapEff", "0"), 16) & (1 << 8):
        _expect("CapBnd", status.get("CapBnd"), _NO_CAPABILITIES)
    return "none, in every set"


def _no_new_privs(status: dict[str, str]) -> str:
    _expect("NoNewPrivs", status.get("NoNewPrivs"), "1")
    return "set"


def _landlock(report: dict[str, Any], compiled: dict[str, Any]) -> str:
    _probes(report, Layer.LANDLOCK)
    return f"a file outside the plan was denied (ABI {compiled['landlock']['abi']})"


def _seccomp(status: dict[str, str], own: dict[str, str], report: dict[str, Any]) -> str:
    _expect("Seccomp", status.get("Seccomp"), "2")
    if "Seccomp_filters" in status:
        filters = int(status["Seccomp_filters"]) - int(own.get("Seccomp_filters", "0"))
        _expect("number of our filters", filters, 1)
    _probes(report, Layer.SECCOMP)
    return "allowlist in force; socket, fork, signal and chmod denied"


def _probes(report: dict[str, Any], layer: Layer) -> None:
    met = report.get("probes", {})
    for probe, wanted in _PROBES[layer].items():
        found = met.get(probe, "not tried")
        if found not in wanted:
            verdict = "succeeded" if found == _PASSED else f"met {found}"
            text = f"the probe {probe} {verdict}, not {' or '.join(sorted(wanted))}"
            raise _DifferenceError(text)

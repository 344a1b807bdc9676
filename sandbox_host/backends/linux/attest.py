"""Confirms from outside that what was planned is in force.

Two sources, and neither is the plan: the kernel's own account of the process in ``/proc``, and
live probes that the still trusted child made of itself *after* it had locked itself down. No
plugin byte has been imported at this point, so the child's word is our own code's word.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.backends.linux.compile import HOSTNAME, LIMIT_NAMES
from sandbox_host.backends.linux.environment import OWN_VARIABLES
from sandbox_host.backends.linux.expectations import PASSED, expected
from sandbox_host.backends.linux.mounts import NODEV, NOEXEC, NOSUID, RDONLY, Mount
from sandbox_host.backends.linux.procfs import PAGE_BYTES, size_of_tmpfs
from sandbox_host.errors import AttestationError
from sandbox_host.model import Layer, LayerReport, LayerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.linux.cgroup import Cgroup
    from sandbox_host.backends.linux.compile import Compiled, Ids
    from sandbox_host.backends.linux.evidence import Evidence
    from sandbox_host.backends.linux.procfs import MountLine

_NO_CAPABILITIES: Final = "0" * 16
_CAP_SETPCAP: Final = 1 << 8
_SECUREBITS: Final = 0b1110_1111
_UMASK: Final = "0077"
_ROOT_FLAGS: Final = RDONLY | NOSUID | NODEV | NOEXEC

_LINKS: Final = {
    Layer.NETWORK_NAMESPACE: "net",
    Layer.IPC_NAMESPACE: "ipc",
    Layer.UTS_NAMESPACE: "uts",
    Layer.CGROUP_NAMESPACE: "cgroup",
    Layer.PID_NAMESPACE: "pid",
    Layer.OWN_ROOT: "mnt",
}


class _DifferenceError(Exception):
    """Something is not as planned."""


@dataclass(frozen=True, slots=True)
class Attested:
    """Everything that is compared.

    Attributes:
        environment: that it was to have.
        report: what the child read back itself.
        cgroup: that it was put into, or None.
    """

    plan: SandboxPlan
    ids: Ids
    compiled: Compiled
    evidence: Evidence
    report: dict[str, Any]
    environment: Collection[str]
    cgroup: Cgroup | None


def attest(it: Attested) -> tuple[LayerReport, ...]:
    """Compare the process with the plan, and return the report of each planned layer.

    Raises:
        AttestationError: the first difference, by layer.
    """
    status = it.evidence.status
    if status.get("Threads") != "1":
        threads = status.get("Threads")
        _fail(it.plan, "threads", f"{threads} threads before the lock-down was done")
    if status.get("NSsid") != status.get("NSpid"):
        session = " ".join(status.get("NSsid", "").split())
        _fail(it.plan, "session", f"it is in the session {session}, not in its own")
    if status.get("Umask") != _UMASK:
        _fail(it.plan, "umask", f"the files that it makes lose {status.get('Umask')}, not {_UMASK}")
    reports: list[LayerReport] = []
    for layer in (planned for planned in it.plan.layers if planned in _CHECKS):
        try:
            reports.append(LayerReport(layer, LayerStatus.ACTIVE, _CHECKS[layer](it)))
        except _DifferenceError as difference:
            _fail(it.plan, layer, str(difference))
    return tuple(reports)


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


# -- one check for each layer; each returns what it read back ----------------------------------


def _parent_death(it: Attested) -> str:
    _expect("PPid", it.evidence.status.get("PPid"), str(it.evidence.nursery_pid))
    _expect("parent death signal", it.report.get("parent_death_signal"), 9)
    return "SIGKILL when its nursery ends, which ends with the host"


def _environment(it: Attested) -> str:
    _expect("environment", sorted(it.report.get("environment", ())), sorted(it.environment))
    handed = sorted(set(it.environment) - OWN_VARIABLES)
    if more := set(handed) - set(it.plan.permissions.env):
        text = f"{', '.join(sorted(more))} of the host's environment was not granted"
        raise _DifferenceError(text)
    hosts = f"of the host's {', '.join(handed)}" if handed else "none of the host's"
    return f"{len(it.environment)} variables, {hosts}"


def _cgroup(it: Attested) -> str:
    if it.cgroup is None or not it.cgroup.is_member(it.evidence.membership):
        text = f"the process is not in the group made for it ({it.evidence.membership.strip()!r})"
        raise _DifferenceError(text)
    try:
        limits = it.cgroup.limits()
    except OSError as error:
        text = f"the limits of its group cannot be read: {error}"
        raise _DifferenceError(text) from error
    for name in ("memory_bytes", "tasks"):
        if name not in limits:
            text = f"its group has no limit on {name}"
            raise _DifferenceError(text)
    if it.plan.permissions.subprocess and it.cgroup.usage() is None:
        text = "its group does not tell what its processes use"
        raise _DifferenceError(text)
    return f"{limits['memory_bytes']} bytes, {limits['tasks']} tasks; {it.cgroup.paths[0].name}"


def _user_namespace(it: Attested) -> str:
    mine, nursery = _shown(it.evidence.namespaces, "user"), it.evidence.nursery_namespaces["user"]
    if mine == it.evidence.own_namespaces["user"]:
        text = "it is in the host's user namespace"
        raise _DifferenceError(text)
    if it.ids.nested_user:
        if mine == nursery:
            text = "it is in its nursery's user namespace, not in one of its own"
            raise _DifferenceError(text)
        return f"of its own, user:[{mine}]"
    _expect("user namespace", mine, nursery)
    return f"its nursery's, user:[{mine}]"


def _pid_namespace(it: Attested) -> str:
    told = _own_namespace(it, Layer.PID_NAMESPACE)
    numbers = it.evidence.status.get("NSpid", "").split()
    _expect("process id inside", numbers[-1:], ["1"])
    _expect("process id that it sees", it.report.get("pid"), 1)
    return f"{told}; it is process 1 there"


def _uts_namespace(it: Attested) -> str:
    told = _own_namespace(it, Layer.UTS_NAMESPACE)
    _expect("host name", it.report.get("hostname"), HOSTNAME)
    return f'{told}; its host name is "{HOSTNAME}"'


def _own_namespace(it: Attested, layer: Layer) -> str:
    link = _LINKS[layer]
    mine = _shown(it.evidence.namespaces, link)
    if mine in {it.evidence.own_namespaces[link], it.evidence.nursery_namespaces[link]}:
        text = f"its {link} namespace is not its own"
        raise _DifferenceError(text)
    return f"of its own, {link}:[{mine}]"


def _shown(namespaces: Mapping[str, int], link: str) -> int:
    if link not in namespaces:
        text = f"the kernel does not show its {link} namespace"
        raise _DifferenceError(text)
    return namespaces[link]


def _own_root(it: Attested) -> str:
    told = _own_namespace(it, Layer.OWN_ROOT)
    evidence = it.evidence
    if unplanned := compare_mounts(
        it.compiled.mounts, evidence.mounts, evidence.nursery_mount_points
    ):
        raise _DifferenceError(unplanned)
    for mount in it.compiled.mounts:
        if mount.kind == "bind":
            found = evidence.sources.get(mount.path)
            _expect(f"what is mounted on {mount.path}", found, mount.source)
    _expect("the canary, looked for from outside", it.evidence.canary, "ENOENT")
    _probes(it, Layer.OWN_ROOT)
    return f"{told}; {len(it.evidence.mounts)} mounts, all planned; no other file is there"


def compare_mounts(
    planned: Collection[Mount], found: Sequence[MountLine], outside: Collection[str]
) -> str:
    """Return the first difference between the mounts that there are and the plan, or "". Pure.

    Each planned one must be there, of its kind, on top, with at least its restrictions. Nothing
    else may be there but what a bind brought along, which must be restricted as that bind is.

    Args:
        planned: what the child was told to mount.
        found: in the order of ``mountinfo``, in which what is on top comes later.
        outside: where something is mounted in the nursery, once for each time.
    """
    root = Mount("tmpfs", "/", _ROOT_FLAGS)
    plan = {mount.path: mount for mount in (root, *planned)}
    binds = {mount.path: mount for mount in planned if mount.kind == "bind"}
    lines: dict[str, list[MountLine]] = {}
    for line in found:
        lines.setdefault(line.point, []).append(line)
    brought = Counter(outside)
    for path in plan:
        if path not in lines:
            return f"{path} is not mounted"
    for point, here in lines.items():
        along = here[:-1] if point in plan else here
        above = _bind_above(point, binds) if along else ""
        if len(along) > (brought[point] if above else 0):
            more = f", or only once of {len(here)} times" if point in plan else ""
            return f"{point} is mounted, and not in the plan{more}"
        words = [(line, binds[above].words) for line in along]
        if point in plan:
            words.append((here[-1], plan[point].words))
            if other := _other_kind(here[-1], plan[point]):
                return other
        for line, wanted in words:
            if lacking := wanted - line.options:
                return f"{point} is mounted without {', '.join(sorted(lacking))}"
    return ""


def _bind_above(point: str, binds: Collection[str]) -> str:
    """Return the nearest bind that a mount may have come along with, or ""."""
    return max(
        (path for path in binds if point != path and _below(point, path)), key=len, default=""
    )


def _other_kind(line: MountLine, mount: Mount) -> str:
    kind = {"hidden": "tmpfs", "bind": line.kind}.get(mount.kind, mount.kind)
    if line.kind != kind:
        return f"{line.point} is a mount of the kind {line.kind}, not {kind}"
    if mount.kind == "proc" and not set(mount.data.split(",")) <= set(line.data.split(",")):
        return f"{line.point} is mounted with {line.data}, not with {mount.data}"
    inodes = _option(mount.data, "nr_inodes")
    if inodes and inodes != _option(line.data, "nr_inodes"):
        return f"{line.point} is mounted with {line.data}, and {inodes} is planned"
    wanted, size = size_of_tmpfs(mount.data), size_of_tmpfs(line.data)
    if wanted is not None and (size is None or size > wanted + PAGE_BYTES):
        return f"{line.point} is mounted with {line.data}, and {wanted} bytes are planned"
    return ""


def _option(options: str, name: str) -> str:
    return next((o for o in options.split(",") if o.startswith(f"{name}=")), "")


def _below(path: str, other: str) -> bool:
    return path == other or path.startswith(other.rstrip("/") + "/")


def _own_uid(it: Attested) -> str:
    inside = it.ids.uid
    _expect("user and group ids it sees", set(it.report.get("user", ())), {inside})
    outside = it.evidence.status.get("Uid", "").split()
    own = it.evidence.own_status.get("Uid", "").split()
    if len(set(outside)) != 1 or outside[0] == own[0]:
        text = f"its user ids outside are {outside}, and the host's {own}"
        raise _DifferenceError(text)
    _expect("supplementary groups", it.evidence.status.get("Groups", "").split(), [])
    return f"user {outside[0]} outside, {inside} inside"


def _rlimits(it: Attested) -> str:
    told = []
    for number, value in it.compiled.order["rlimits"]:
        name, text = LIMIT_NAMES[number], str(value)
        _expect(name, it.evidence.limits.get(name), (text, text))
        told.append(f"{name.removeprefix('Max ')} {value}")
    if not told:
        text = "none was set"
        raise _DifferenceError(text)
    return ", ".join(told)


def _descriptors(it: Attested) -> str:
    kept = [0, 1, 2, *it.compiled.order["keep"]]
    _expect("open descriptors", it.report.get("descriptors"), sorted(kept))
    if it.evidence.descriptors:
        what = "number of descriptors seen from outside"
        _expect(what, it.evidence.descriptors, len(kept))
    return f"{len(kept)} open: standard streams, the protocol, the trace pipe"


def _capabilities(it: Attested) -> str:
    status = it.evidence.status
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        _expect(name, status.get(name), _NO_CAPABILITIES)
    # The bounding set can be emptied, and uid 0 made worthless, only by who holds CAP_SETPCAP, as
    # everybody does in a user namespace of his own; without one, no_new_privs makes up for it.
    could = int(it.evidence.own_status.get("CapEff", "0"), 16) & _CAP_SETPCAP
    if could or Layer.USER_NAMESPACE in it.plan.layers:
        _expect("CapBnd", status.get("CapBnd"), _NO_CAPABILITIES)
        _expect("securebits", it.report.get("securebits"), _SECUREBITS)
    return "none, in every set"


def _no_new_privs(it: Attested) -> str:
    _expect("NoNewPrivs", it.evidence.status.get("NoNewPrivs"), "1")
    return "set"


def _landlock(it: Attested) -> str:
    if it.compiled.order["landlock"] is None:
        text = "no rules were compiled"
        raise _DifferenceError(text)
    _probes(it, Layer.LANDLOCK)
    return f"files outside the plan were denied (ABI {it.compiled.order['landlock']['abi']})"


def _seccomp(it: Attested) -> str:
    status = it.evidence.status
    _expect("Seccomp", status.get("Seccomp"), "2")
    if "Seccomp_filters" in status:
        before = int(it.evidence.own_status.get("Seccomp_filters", "0"))
        _expect("number of our filters", int(status["Seccomp_filters"]) - before, 1)
    _probes(it, Layer.SECCOMP)
    denied = "socket, fork, exec, signal and chown"
    if it.plan.permissions.subprocess:
        denied = "socket, chown and SIGCONT"
    return f"allowlist in force; {denied} denied"


def _probes(it: Attested, layer: Layer) -> None:
    met = it.report.get("probes", {})
    for probe, wanted in expected(layer, it.plan.permissions).items():
        found = met.get(probe, "not tried")
        if found not in wanted:
            verdict = "succeeded" if found == PASSED else f"met {found}"
            text = f"the probe {probe} {verdict}, not {' or '.join(sorted(wanted))}"
            raise _DifferenceError(text)


_CHECKS: Final[dict[Layer, Callable[[Attested], str]]] = {
    Layer.PARENT_DEATH: _parent_death,
    Layer.ENVIRONMENT: _environment,
    Layer.CGROUP: _cgroup,
    Layer.USER_NAMESPACE: _user_namespace,
    Layer.PID_NAMESPACE: _pid_namespace,
    Layer.NETWORK_NAMESPACE: lambda it: _own_namespace(it, Layer.NETWORK_NAMESPACE),
    Layer.IPC_NAMESPACE: lambda it: _own_namespace(it, Layer.IPC_NAMESPACE),
    Layer.UTS_NAMESPACE: _uts_namespace,
    Layer.CGROUP_NAMESPACE: lambda it: _own_namespace(it, Layer.CGROUP_NAMESPACE),
    Layer.OWN_ROOT: _own_root,
    Layer.OWN_UID: _own_uid,
    Layer.RLIMITS: _rlimits,
    Layer.INHERITED_DESCRIPTORS: _descriptors,
    Layer.CAPABILITIES: _capabilities,
    Layer.NO_NEW_PRIVS: _no_new_privs,
    Layer.LANDLOCK: _landlock,
    Layer.SECCOMP: _seccomp,
}

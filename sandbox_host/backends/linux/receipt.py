"""Writes the receipt: each guarantee, limit and permission with what enforces it. Pure.

Values come from what was read back; a limit that nothing enforces here is not in the receipt, and
what the host itself enforces (deadlines, messages) is added by the host.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux.procfs import size_of_tmpfs
from sandbox_host.guarantees import standing
from sandbox_host.model import Enforced, Layer, LayerReport, LayerStatus, Receipt
from sandbox_host.reading import shown_bytes, shown_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox_host.backends.linux.attest import Attested
    from sandbox_host.backends.linux.procfs import MountLine

_BY_RLIMIT: Final = {
    "descriptors": ("Max open files", "RLIMIT_NOFILE"),
    "file_bytes": ("Max file size", "RLIMIT_FSIZE"),
    "cpu_total_seconds": ("Max cpu time", "RLIMIT_CPU"),
    "memory_bytes": ("Max address space", "RLIMIT_AS, address space"),
    "threads": ("Max processes", "RLIMIT_NPROC"),
}
_SHOWN: Final[dict[str, Callable[[int], str]]] = {
    "memory_bytes": shown_bytes,
    "cpu_total_seconds": shown_seconds,
    "descriptors": str,
    "threads": str,
    "cpu_weight": str,
    "file_bytes": shown_bytes,
    "scratch_bytes": shown_bytes,
}
"""How each limit is told, in this order."""


def write_receipt(
    it: Attested, pid: int, layers: tuple[LayerReport, ...], others: tuple[LayerReport, ...]
) -> Receipt:
    """Return the receipt of one attested process.

    Args:
        it: what was compared.
        pid: of the process, as the host sees it.
        layers: that were attested.
        others: reports of layers that are missing or switched off.
    """
    active = [report.layer for report in layers if report.status is LayerStatus.ACTIVE]
    return Receipt(
        plugin=it.plan.identity,
        pid=pid,
        layers=(*layers, *others),
        guarantees=standing(active, starts_processes=it.plan.permissions.subprocess),
        limits=_limits(it, active),
        permissions=_permissions(it, active),
    )


def _limits(it: Attested, active: list[Layer]) -> tuple[Enforced, ...]:
    found = []
    if Layer.RLIMITS in active:
        for name, (kernel_name, mechanism) in _BY_RLIMIT.items():
            soft, _ = it.evidence.limits.get(kernel_name, ("unlimited", ""))
            if soft != "unlimited" and (name != "threads" or _counted_alone(it)):
                found.append(Enforced(name, _SHOWN[name](int(soft)), mechanism))
    if it.plan.permissions.subprocess:
        found = [_for_each(one) for one in found]
    if it.cgroup is not None:
        limits = it.cgroup.limits()
        found += [
            Enforced("memory_bytes", shown_bytes(limits["memory_bytes"]), "control group, no swap"),
            Enforced("threads", str(limits["tasks"]), "control group, processes and threads"),
        ]
    found.append(_weight(it))
    for line in it.evidence.mounts:
        if line.kind == "tmpfs" and line.point == it.compiled.order["cwd"]:
            size = size_of_tmpfs(line.data)
            if size is not None:
                found.append(Enforced("scratch_bytes", shown_bytes(size), "tmpfs of its own"))
    return tuple(sorted(found, key=lambda one: list(_SHOWN).index(one.name)))


def _for_each(one: Enforced) -> Enforced:
    """Return a limit as it is where several processes have it: of each, unless they are counted."""
    counted = one.name == "threads"
    return one if counted else replace(one, mechanism=f"{one.mechanism}, for each process")


def _weight(it: Attested) -> Enforced:
    """Return the CPU weight, which is not a bound: it is told also where nothing makes it so."""
    weight = it.cgroup.limits().get("cpu_weight") if it.cgroup is not None else None
    if it.cgroup is None or weight is None:
        return Enforced("cpu_weight", "none", "no control group with the controller cpu")
    return Enforced("cpu_weight", str(weight), it.cgroup.weight_file)


def _counted_alone(it: Attested) -> bool:
    return it.ids.uid is not None or it.ids.nested_user


def _permissions(it: Attested, active: list[Layer]) -> tuple[Enforced, ...]:
    permissions = it.plan.permissions
    points = {line.point: line for line in it.evidence.mounts}
    found = []
    paths = [("read", path) for path in permissions.read]
    paths += [("write", path) for path in permissions.write]
    for name, path in paths:
        ways = []
        if path in points:
            ways.append(_mounted(points, path))
        if Layer.LANDLOCK in active:
            ways.append("Landlock rule")
        found.append(Enforced(name, path, ", ".join(ways)))
    there = it.report.get("environment", ())
    for name in permissions.env:
        how = "handed over at the start" if name in there else "not set in the host, and so absent"
        found.append(Enforced("env", name, how))
    for key in ("publish", "subscribe", "services", "calls"):
        names = getattr(permissions, key)
        found += [Enforced(key, name, "checked by the host") for name in names]
    met = it.report.get("probes", {}).get("writable-and-executable")
    if met is not None:
        granted = met == "allowed"
        how = "tried: memory for code was given" if granted else f"seccomp, tried: {met}"
        found.append(Enforced("native_code", "yes" if granted else "no", how))
    if Layer.SECCOMP in active:
        tried = it.report["probes"]
        found.append(_subprocess(tried, granted=permissions.subprocess))
        if not permissions.threads:
            met = "the interpreter could start none"
            found.append(Enforced("threads", "none", f"seccomp, tried: {met}"))
        if not permissions.network:
            found.append(Enforced("network", "none", f"seccomp, tried: {tried['socket']}"))
        desk = f"connected by the host; by itself: seccomp, tried: {tried.get('connect')}"
        found += [Enforced("network", entry, desk) for entry in permissions.network]
    return (*found, *_unix(it, points))


def _subprocess(tried: Mapping[str, str], *, granted: bool) -> Enforced:
    if not granted:
        return Enforced("subprocess", "none", f"seccomp, tried: {tried['execute']}")
    how = (
        f"its interpreter, tried: {tried['start-interpreter']}; other files: Landlock, tried: "
        f"{tried['execute-own-file']}, {tried['execute-library']}; what they use: control group"
    )
    return Enforced("subprocess", "forks, and its own interpreter", how)


def _unix(it: Attested, points: Mapping[str, MountLine]) -> list[Enforced]:
    """Return each Unix socket: the plugin connects there by itself, so that nothing is counted."""
    tried = it.report.get("probes", {})
    alone = (
        "connected by the plugin itself: the host counts neither connections nor bytes; to bind, "
        "or to send a descriptor: seccomp, tried: "
        f"{tried.get('unix-bind')}, {tried.get('unix-message')}"
    )
    return [
        Enforced("unix", path, f"{_mounted(points, path)}; {alone}")
        for path in it.plan.permissions.unix
    ]


def _mounted(points: Mapping[str, MountLine], path: str) -> str:
    return "mounted " + ",".join(sorted(points[path].options & {"ro", "rw", "noexec"}))

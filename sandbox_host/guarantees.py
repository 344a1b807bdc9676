"""What is promised of a confined plugin, and which layers keep each promise.

One table of data and pure functions. A guarantee is kept by the first of its ways whose layers are
all in force; admission asks this of what the machine offers, the receipt of what was attested.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sandbox_host.model import Guarantee, GuaranteeReport, Layer, LayerStatus

PROMISES: Final = MappingProxyType(
    {
        Guarantee.FILES: "no file outside the plan is read or changed",
        Guarantee.NETWORK: "no network but what it was granted, and no socket of another process",
        Guarantee.PROCESSES: "no other process is seen, signalled or traced",
        Guarantee.PROGRAMS: "no program is executed",
        Guarantee.KERNEL_SURFACE: "no system call beyond the allowlist, and no privilege",
        Guarantee.SECRETS: "nothing of the host's memory, descriptors and ungranted variables",
        Guarantee.LIFETIME: "it ends with the host",
        Guarantee.MEMORY: "memory is bounded",
        Guarantee.CPU: "CPU time is bounded",
        Guarantee.TASKS: "processes and threads are bounded",
        Guarantee.DESCRIPTORS: "open descriptors are bounded",
        Guarantee.DISK: "what it writes is bounded",
    }
)
"""Each guarantee as one line for a person."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to keep a guarantee.

    Attributes:
        layers: all of them have to be in force.
        restriction: what is less than promised this way, or "".
    """

    layers: tuple[Layer, ...]
    restriction: str = ""


_BEHIND_NAMES: Final = (
    "FIFOs in granted directories can be written, and the interpreter's program file can be read"
)
_OF_FILES: Final = "whether a file exists, its size and times can be found out"
_OF_PROCESSES: Final = "which process ids are in use can be found out"
_VSOCK: Final = "sockets that no namespace holds, such as vsock, are in reach"
_KEYRINGS: Final = "the kernel's keyrings are in reach"
_THREADS: Final = "threads are counted when they have started"
_NO_TOTAL: Final = "the scratch directory is bounded by the file, not in total"

_NOT_OUTSIDE: Final = "what it writes to granted paths is bounded by the file, not in total"

_WITH_PROCESSES: Final = MappingProxyType(
    {
        Guarantee.PROGRAMS: "its own interpreter only",
        Guarantee.DESCRIPTORS: "those of each of its processes",
    }
)
"""What is less than promised where a plugin may start processes."""

_CLEAN: Final = (Layer.ENVIRONMENT, Layer.INHERITED_DESCRIPTORS)

WAYS: Final = MappingProxyType(
    {
        Guarantee.FILES: (
            Way((Layer.OWN_ROOT, Layer.LANDLOCK)),
            # A read-only mount keeps nobody from writing to a FIFO, and /proc/self/exe leads out of
            # the root to one file; only Landlock rules on both.
            Way((Layer.OWN_ROOT, Layer.SECCOMP), _BEHIND_NAMES),
            # Landlock does not rule on stat, nor on chmod and the like: seccomp denies the latter.
            Way((Layer.LANDLOCK, Layer.SECCOMP), _OF_FILES),
        ),
        Guarantee.NETWORK: (
            Way((Layer.NETWORK_NAMESPACE, Layer.SECCOMP)),
            Way((Layer.SECCOMP,)),
            # The namespace holds abstract Unix sockets, the root those with a path.
            Way((Layer.NETWORK_NAMESPACE, Layer.OWN_ROOT), _VSOCK),
        ),
        Guarantee.PROCESSES: (
            Way((Layer.PID_NAMESPACE, Layer.OWN_ROOT, Layer.SECCOMP)),
            Way((Layer.PID_NAMESPACE, Layer.OWN_ROOT, Layer.IPC_NAMESPACE)),
            # Without a root of our own the host's /proc is there: Landlock keeps it shut.
            Way((Layer.SECCOMP, Layer.OWN_ROOT), _OF_PROCESSES),
            Way((Layer.SECCOMP, Layer.LANDLOCK), _OF_PROCESSES),
        ),
        # Landlock and noexec know nothing of a memfd.
        Guarantee.PROGRAMS: (Way((Layer.SECCOMP,)),),
        Guarantee.KERNEL_SURFACE: (Way((Layer.SECCOMP, Layer.NO_NEW_PRIVS, Layer.CAPABILITIES)),),
        # The memory and environment of a process of the same user are in /proc, and in reach of
        # ptrace; Landlock denies both, seccomp the latter.
        Guarantee.SECRETS: (
            Way((*_CLEAN, Layer.OWN_ROOT, Layer.SECCOMP)),
            Way((*_CLEAN, Layer.LANDLOCK, Layer.SECCOMP)),
            Way((*_CLEAN, Layer.PID_NAMESPACE, Layer.OWN_ROOT, Layer.IPC_NAMESPACE), _KEYRINGS),
            Way((*_CLEAN, Layer.LANDLOCK, Layer.IPC_NAMESPACE), _KEYRINGS),
        ),
        Guarantee.LIFETIME: (
            Way((Layer.PARENT_DEATH, Layer.PID_NAMESPACE)),
            # Whoever may call prctl or fork shakes the signal off.
            Way((Layer.PARENT_DEATH, Layer.SECCOMP)),
        ),
        # Who can write to the control groups' files leaves his own: hence a second layer.
        Guarantee.MEMORY: (
            Way((Layer.CGROUP, Layer.OWN_ROOT, Layer.WATCHDOG)),
            Way((Layer.CGROUP, Layer.LANDLOCK, Layer.WATCHDOG)),
            Way((Layer.SECCOMP, Layer.RLIMITS, Layer.WATCHDOG)),
        ),
        # RLIMIT_CPU begins anew with every process: seccomp denies fork.
        Guarantee.CPU: (Way((Layer.SECCOMP, Layer.RLIMITS, Layer.WATCHDOG)),),
        Guarantee.TASKS: (
            Way((Layer.CGROUP, Layer.OWN_ROOT, Layer.WATCHDOG)),
            Way((Layer.CGROUP, Layer.LANDLOCK, Layer.WATCHDOG)),
            # RLIMIT_NPROC counts per user id and user namespace: who shares one, shares the count.
            Way((Layer.OWN_UID, Layer.RLIMITS, Layer.WATCHDOG)),
            Way((Layer.USER_NAMESPACE, Layer.RLIMITS, Layer.SECCOMP, Layer.WATCHDOG)),
            Way((Layer.SECCOMP, Layer.WATCHDOG), _THREADS),
        ),
        Guarantee.DESCRIPTORS: (Way((Layer.RLIMITS,)),),
        Guarantee.DISK: (
            Way((Layer.OWN_ROOT, Layer.RLIMITS, Layer.WATCHDOG)),
            Way((Layer.RLIMITS, Layer.WATCHDOG), _NO_TOTAL),
        ),
    }
)
"""The ways to keep each guarantee, the strongest first, those with a restriction last."""

_WAYS_WITH_PROCESSES: Final = MappingProxyType(
    {
        **WAYS,
        # Landlock says which file is executed, and what the plugin writes is on mounts that are
        # noexec: the dynamic loader maps nothing of it.
        Guarantee.PROGRAMS: (Way((Layer.OWN_ROOT, Layer.LANDLOCK, Layer.SECCOMP)),),
        # RLIMIT_CPU begins anew with each process.
        Guarantee.CPU: (Way((Layer.CGROUP, Layer.WATCHDOG)),),
    }
)


def standing(
    in_force: Collection[Layer], *, writes_outside: bool = False, starts_processes: bool = False
) -> tuple[GuaranteeReport, ...]:
    """Return, guarantee by guarantee, by which layers it is kept, or that it is not.

    Args:
        in_force: the layers that are active, or that would be.
        writes_outside: the plugin may write to paths outside its own directories, where no layer
            bounds the total.
        starts_processes: it may fork, and execute its own interpreter.
    """
    layers = frozenset(in_force)
    less = {Guarantee.DISK: _NOT_OUTSIDE} if writes_outside else {}
    less |= _WITH_PROCESSES if starts_processes else {}
    ways = _WAYS_WITH_PROCESSES if starts_processes else WAYS
    reports = (_report(guarantee, layers, ways[guarantee]) for guarantee in Guarantee)
    return tuple(_less(r, less[r.guarantee]) if r.guarantee in less else r for r in reports)


def _less(report: GuaranteeReport, restriction: str) -> GuaranteeReport:
    if report.status is LayerStatus.UNAVAILABLE:
        return report
    detail = f"{report.detail}; {restriction}"
    return GuaranteeReport(report.guarantee, LayerStatus.DEGRADED, detail)


def missing(in_force: Collection[Layer]) -> tuple[Guarantee, ...]:
    """Return the guarantees that these layers do not keep."""
    reports = standing(in_force)
    return tuple(r.guarantee for r in reports if r.status is LayerStatus.UNAVAILABLE)


def restricted(in_force: Collection[Layer]) -> tuple[GuaranteeReport, ...]:
    """Return the guarantees that these layers keep with less than all layers together would.

    A restriction that even those have is no news about a machine.
    """
    layers = frozenset(in_force)
    return tuple(
        report
        for report in standing(layers)
        if report.status is LayerStatus.DEGRADED
        and _restriction(report.guarantee, layers) != _restriction(report.guarantee, _ALL)
    )


_ALL: Final = frozenset(Layer)


def _way(ways: tuple[Way, ...], in_force: frozenset[Layer]) -> Way | None:
    return next((way for way in ways if in_force.issuperset(way.layers)), None)


def _restriction(guarantee: Guarantee, in_force: frozenset[Layer]) -> str:
    way = _way(WAYS[guarantee], in_force)
    return way.restriction if way else ""


def _report(
    guarantee: Guarantee, in_force: frozenset[Layer], ways: tuple[Way, ...]
) -> GuaranteeReport:
    way = _way(ways, in_force)
    if way is None:
        detail = f"would take {_lacking(ways, in_force)}"
        return GuaranteeReport(guarantee, LayerStatus.UNAVAILABLE, detail)
    by = ", ".join(way.layers)
    if way.restriction:
        return GuaranteeReport(guarantee, LayerStatus.DEGRADED, f"{by}; {way.restriction}")
    return GuaranteeReport(guarantee, LayerStatus.ACTIVE, by)


def _lacking(ways: tuple[Way, ...], in_force: frozenset[Layer]) -> str:
    """Return what would have to be added, each alternative that asks for no more than another."""
    found = dict.fromkeys(
        tuple(layer for layer in way.layers if layer not in in_force) for way in ways
    )
    least = [one for one in found if not any(set(other) < set(one) for other in found)]
    return ", or ".join(" and ".join(one) for one in least)

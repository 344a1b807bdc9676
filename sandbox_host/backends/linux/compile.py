"""Compiles a plan to plain data: the child applies it in order and decides nothing.

The result is what travels in the `Confine` message, and what `attest` compares the kernel with.
"""

from __future__ import annotations

import functools
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire.nursery import CHILD_DESK, CHILD_IN, CHILD_OUT, CHILD_TRACE
from sandbox_host.backends.linux.environment import environment
from sandbox_host.backends.linux.expectations import probes_of
from sandbox_host.backends.linux.grants import check_beside_sockets, granted_place, granted_socket
from sandbox_host.backends.linux.interpreter import interpreter_places
from sandbox_host.backends.linux.landlock import OWN, READ, Place, rules_for, ruleset_for
from sandbox_host.backends.linux.mounts import Mount, identified, mounts_for, root_plan
from sandbox_host.backends.linux.programs import (
    check_core_dumps,
    programs,
    with_links,
    with_programs,
)
from sandbox_host.backends.linux.seccomp import ARCHITECTURES, build_filter, rules
from sandbox_host.model import MIB, Layer, Limits

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Places
    from sandbox_host.backends.linux.probe import Machine

_TRUNCATE_SINCE_ABI: Final = 3

ADDRESS_SPACE_HEADROOM: Final = 512 * MIB
"""Address space is not memory: an interpreter with numpy maps about 100 MiB that it never
touches, a thread 8. RLIMIT_AS only bounds how far a hog gets between two looks of the watchdog."""

TASKS_HEADROOM: Final = 32
"""Threads above the limit that the kernel lets pass: the watchdog, which can say what happened,
comes first; RLIMIT_NPROC and the control group bound how far a bomb gets between two looks."""

MEMORY_HEADROOM: Final = 32 * MIB
"""The same for the memory of the control group, which also counts files in the scratch directory
and what the kernel itself holds for the plugin."""

HOSTNAME: Final = "plugin"

KEEP: Final = (CHILD_IN, CHILD_OUT, CHILD_TRACE)
"""The child's descriptors above standard error."""

NAMESPACES: Final = {
    Layer.NETWORK_NAMESPACE: 0x4000_0000,
    Layer.IPC_NAMESPACE: 0x0800_0000,
    Layer.UTS_NAMESPACE: 0x0400_0000,
    Layer.CGROUP_NAMESPACE: 0x0200_0000,
    Layer.OWN_ROOT: 0x0002_0000,
}
"""The flag of clone(2) of each namespace that the child makes itself."""

LIMIT_NAMES: Final = {
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_CPU: "Max cpu time",
    resource.RLIMIT_AS: "Max address space",
    resource.RLIMIT_NPROC: "Max processes",
    resource.RLIMIT_MEMLOCK: "Max locked memory",
    resource.RLIMIT_MSGQUEUE: "Max msgqueue size",
    resource.RLIMIT_RTPRIO: "Max realtime priority",
    resource.RLIMIT_NICE: "Max nice priority",
    resource.RLIMIT_SIGPENDING: "Max pending signals",
}
"""As ``/proc/<pid>/limits`` calls them."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Who the child is.

    Attributes:
        host: the host's process id.
        own_pid: the child is pid 1 of a namespace of its own.
        pid: the child's number as the host sees it.
        uid: the user that it becomes, as it sees it, or None to stay who it is.
        nested_user: it enters a user namespace of its own, below the nursery's.
        proc: /proc can be mounted.
    """

    host: int
    pid: int
    own_pid: bool = False
    uid: int | None = None
    nested_user: bool = False
    proc: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """The lock-down of one process: what is sent, and what it was made of.

    Attributes:
        order: plain data for the child.
        mounts: of its root; empty where it has none of its own.
    """

    order: dict[str, Any]
    mounts: tuple[Mount, ...]


def rlimits(limits: Limits, *, own_count: bool, processes: bool = False) -> dict[int, int]:
    """Return each resource limit, soft and hard alike, never above what the host has itself.

    Args:
        limits: the budgets.
        own_count: the kernel counts this plugin's tasks apart from everybody else's, because of
            its user id or its user namespace; without, a limit on them would hit others.
        processes: it may start processes, each of which has all of this anew.
    """
    wanted = {
        # Where the kernel hands core dumps to a program, 0 means no limit, and 1 that there be none
        # (fs/coredump.c). A plugin is not dumpable (prctl(2)); what it executes is.
        resource.RLIMIT_CORE: int(processes),
        resource.RLIMIT_NOFILE: limits.descriptors,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CPU: limits.cpu_total_seconds,
        resource.RLIMIT_AS: limits.memory_bytes + max(limits.memory_bytes, ADDRESS_SPACE_HEADROOM),
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_SIGPENDING: 256,
    }
    if own_count:
        wanted[resource.RLIMIT_NPROC] = limits.threads + TASKS_HEADROOM
    return {number: _at_most(resource.getrlimit(number)[1], v) for number, v in wanted.items()}


def _at_most(hard: int, value: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(hard, value)


def compile_plan(plan: SandboxPlan, places: Places, machine: Machine, ids: Ids) -> Compiled:
    """Return the lock-down of one process.

    Args:
        plan: what admission decided.
        places: where the plugin's files are.
        machine: what this machine can enforce.
        ids: who the child is and will be.
    """
    layers = plan.layers
    mounts: tuple[Mount, ...] = ()
    granted = plan.permissions
    read = [granted_place(path, places) for path in granted.read]
    write = [granted_place(path, places, write=True) for path in granted.write]
    sockets = [granted_socket(path, places) for path in granted.unix]
    if sockets:
        check_beside_sockets((*read, *write))
    if Layer.OWN_ROOT in layers:
        planned = mounts_for(
            places,
            [place.path for place in read],
            [place.path for place in write],
            [place.path for place in sockets],
            native_code=granted.native_code,
            scratch_bytes=plan.limits.scratch_bytes,
            uid=ids.uid,
            with_proc=ids.proc,
        )
        if granted.subprocess:
            planned = with_programs(planned, places.python)
        found = (*read, *write, *sockets)
        mounts = identified(planned, {place.path: place.identity for place in found})
    own_count = ids.uid is not None or ids.nested_user
    if granted.subprocess:
        check_core_dumps(resource.getrlimit(resource.RLIMIT_CORE)[1])
    limits = rlimits(plan.limits, own_count=own_count, processes=granted.subprocess)
    root = root_plan(places, mounts) if mounts else None
    if root is not None and granted.subprocess:
        root = with_links(root, places)
    order = {
        "host_pid": ids.host,
        "groups": [],
        "namespaces": [[layer, flag] for layer, flag in NAMESPACES.items() if layer in layers],
        "hostname": HOSTNAME if Layer.UTS_NAMESPACE in layers else "",
        "root": root,
        "cwd": str(places.scratch_dir),
        "nested_user": ids.nested_user,
        "environment": environment(places, granted.env),
        "rlimits": [list(pair) for pair in limits.items()] if Layer.RLIMITS in layers else [],
        "keep": [*KEEP, *([CHILD_DESK] if plan.permissions.network else [])],
        "uid": ids.uid,
        "landlock": _landlock(plan, places, machine, read + write, proc=bool(mounts) and ids.proc),
        "seccomp": _seccomp(plan, machine, 1 if ids.own_pid else ids.pid),
        "canary": str(places.canary),
        "probes": probes_of(plan),
    }
    return Compiled(order, mounts)


def _landlock(
    plan: SandboxPlan, places: Places, machine: Machine, asked: list[Place], *, proc: bool
) -> dict[str, Any] | None:
    if Layer.LANDLOCK not in plan.layers:
        return None
    ruleset = ruleset_for(machine.landlock_abi)
    # In a root of its own, what is not the interpreter's is covered by other mounts; elsewhere it
    # takes a rule for every entry beside it, some two hundred.
    in_own_root = Layer.OWN_ROOT in plan.layers
    granted = list(interpreter_places(places.python, entry_by_entry=not in_own_root))
    readable = [places.sdk_dir, places.package_dir, *([Path("/proc")] if proc else [])]
    if places.plugin_environment is not None:
        readable.append(places.plugin_environment)
    granted += [Place(str(path), READ, is_directory=True) for path in readable]
    granted += asked
    if plan.permissions.subprocess:
        granted += programs(places.python).places()
        # Only its package is there, in a root of its own: children find it there by its name.
        granted.append(Place(str(places.package_dir.parent), READ, is_directory=True))
    own = (places.data_dir, places.scratch_dir)
    granted += [Place(str(path), OWN, is_directory=True) for path in own]
    return {
        "fs": ruleset.fs,
        "net": ruleset.net,
        "scoped": ruleset.scoped,
        "abi": ruleset.abi,
        "rules": rules_for(ruleset, granted),
    }


def _seccomp(plan: SandboxPlan, machine: Machine, pid: int) -> bytes | None:
    if Layer.SECCOMP not in plan.layers:
        return None
    own_root = Layer.OWN_ROOT in plan.layers
    truncate = own_root or machine.landlock_abi >= _TRUNCATE_SINCE_ABI
    may = plan.permissions
    granted = may.native_code, bool(may.network), bool(may.unix), may.threads, may.subprocess
    return _filter(machine.architecture, pid, *granted, truncate, own_root)


@functools.lru_cache(maxsize=16)
def _filter(
    architecture: str,
    pid: int,
    native_code: bool,
    network: bool,
    unix: bool,
    threads: bool,
    processes: bool,
    truncate: bool,
    own_root: bool,
) -> bytes:
    """Assemble it once for all plugins that are process 1 of a namespace and granted the same."""
    by_argument = rules(
        own_pid=pid,
        native_code=native_code,
        truncate_by_path=truncate,
        own_root=own_root,
        network=network,
        unix=unix,
        threads=threads,
        processes=processes,
    )
    numbers = ARCHITECTURES[architecture]
    return build_filter(numbers, by_argument, network=network, unix=unix, processes=processes)

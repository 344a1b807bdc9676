"""Compiles a plan to plain data: the child applies it in order and decides nothing.

The result is what travels in the `Confine` message, and what `attest` compares the kernel with.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.backends.linux.interpreter import interpreter_places
from sandbox_host.backends.linux.landlock import OWN, READ, Place, rules_for, ruleset_for
from sandbox_host.backends.linux.seccomp import ARCHITECTURES, build_filter, rules
from sandbox_host.errors import ConfinementError
from sandbox_host.model import MIB, Layer, Limits

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Places
    from sandbox_host.backends.linux.probe import Machine

_TRUNCATE_SINCE_ABI: Final = 3

_NEVER_GRANTED: Final = ("/proc", "/sys", "/dev")

ADDRESS_SPACE_HEADROOM: Final = 512 * MIB
"""Address space is not memory: an interpreter with numpy maps about 100 MiB that it never
touches, a thread 8. RLIMIT_AS only bounds how far a hog gets between two looks of the watchdog."""

LIMIT_NAMES: Final = {
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_CPU: "Max cpu time",
    resource.RLIMIT_AS: "Max address space",
    resource.RLIMIT_MEMLOCK: "Max locked memory",
    resource.RLIMIT_MSGQUEUE: "Max msgqueue size",
    resource.RLIMIT_RTPRIO: "Max realtime priority",
    resource.RLIMIT_NICE: "Max nice priority",
    resource.RLIMIT_SIGPENDING: "Max pending signals",
}
"""As ``/proc/<pid>/limits`` calls them."""


def rlimits(limits: Limits) -> dict[int, int]:
    """Return each resource limit, soft and hard alike, never above what the host has itself."""
    wanted = {
        resource.RLIMIT_CORE: 0,
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
    return {number: _at_most(resource.getrlimit(number)[1], v) for number, v in wanted.items()}


def _at_most(hard: int, value: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(hard, value)


def environment(places: Places) -> dict[str, str]:
    """Return the child's whole environment; nothing of the host's is in it."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        "HOME": str(places.data_dir),
        "LANG": "C.UTF-8",
        # One arena of the C library reserves 64 MiB of address space per thread.
        "MALLOC_ARENA_MAX": "2",
        "TMPDIR": str(places.scratch_dir),
        "TZ": "UTC",
        **threads,
    }


def compile_plan(
    plan: SandboxPlan, places: Places, machine: Machine, pid: int, keep: list[int]
) -> dict[str, Any]:
    """Return the lock-down of one process as plain data.

    Args:
        plan: what admission decided.
        places: where the plugin's files are.
        machine: what this machine can enforce.
        pid: the child's process id, which its filter names.
        keep: the child's descriptors above standard error.
    """
    return {
        "rlimits": [[number, value] for number, value in rlimits(plan.limits).items()],
        "keep": keep,
        "landlock": _landlock(plan, places, machine) if Layer.LANDLOCK in plan.layers else None,
        "seccomp": _seccomp(plan, machine, pid) if Layer.SECCOMP in plan.layers else None,
        "canary": str(places.canary),
    }


def _landlock(plan: SandboxPlan, places: Places, machine: Machine) -> dict[str, Any]:
    ruleset = ruleset_for(machine.landlock_abi)
    granted = [*interpreter_places(places.python)]
    readable = [places.sdk_dir, places.package_dir]
    if places.plugin_environment is not None:
        readable.append(places.plugin_environment)
    granted += [Place(str(path), READ, is_directory=True) for path in readable]
    granted += [_granted(path) for path in plan.permissions.read]
    own = (places.data_dir, places.scratch_dir)
    granted += [Place(str(path), OWN, is_directory=True) for path in own]
    return {
        "fs": ruleset.fs,
        "net": ruleset.net,
        "scoped": ruleset.scoped,
        "abi": ruleset.abi,
        "rules": rules_for(ruleset, granted),
    }


def _granted(path: str) -> Place:
    """Return a granted path, which must be what it says: a link could lead anywhere."""
    real = os.path.realpath(path)
    if real != os.path.normpath(path) or not os.path.exists(real):
        text = f"The granted path {path} does not exist or leads through a link to {real}."
        remedy = "Grant the real path."
        raise ConfinementError(text, layer=Layer.LANDLOCK, remedy=remedy)
    if real == "/" or any(Path(real).is_relative_to(kernel) for kernel in _NEVER_GRANTED):
        text = f"The granted path {path} cannot be granted: it shows the kernel, not files."
        raise ConfinementError(text, layer=Layer.LANDLOCK, remedy="Remove it from the grants.")
    return Place(real, READ, is_directory=os.path.isdir(real))


def _seccomp(plan: SandboxPlan, machine: Machine, pid: int) -> bytes:
    by_argument = rules(
        own_pid=pid,
        native_code=plan.permissions.native_code,
        truncate_by_path=machine.landlock_abi >= _TRUNCATE_SINCE_ABI,
    )
    return build_filter(ARCHITECTURES[machine.architecture], by_argument)

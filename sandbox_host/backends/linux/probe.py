"""Finds out what this machine offers, by trying; and says what to do where something is missing."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux import landlock
from sandbox_host.backends.linux.seccomp import ARCHITECTURES
from sandbox_host.backends.linux.surroundings import Surroundings, remedy, surroundings
from sandbox_host.model import Layer, LayerReport, LayerStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYS_LANDLOCK_CREATE_RULESET: Final = 444  # one number on every architecture
_LANDLOCK_VERSION: Final = 1
_SYS_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_KILL_PROCESS: Final = 0x8000_0000

_ALWAYS: Final = {
    Layer.PARENT_DEATH: "PR_SET_PDEATHSIG",
    Layer.ENVIRONMENT: "an environment of our own",
    Layer.RLIMITS: "setrlimit",
    Layer.INHERITED_DESCRIPTORS: "close_range",
    Layer.CAPABILITIES: "capset",
    Layer.NO_NEW_PRIVS: "PR_SET_NO_NEW_PRIVS",
}

# Files that restrict user namespaces, the value that does, and what to do about it.
_RESTRICTIONS: Final = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor restricts them: give this Python a profile that allows userns, or set it to 0.",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "This distribution switches them off: sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "They are limited to none: sysctl user.max_user_namespaces=10000",
    ),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kernel says when it is asked; needs no process to be tried in.

    Attributes:
        architecture: as uname says, such as "x86_64".
        landlock_abi: 0 where there is none.
        landlock_reason: why there is none.
        seccomp: filters can be loaded.
        seccomp_reason: why not.
    """

    architecture: str
    landlock_abi: int
    landlock_reason: str
    seccomp: bool
    seccomp_reason: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What a nursery found out by trying, and the control groups.

    Attributes:
        reasons: "" or why not, for each layer that was tried; "proc" beside them.
        user_namespace: the nursery is in one.
        root: the host's user is 0.
        has_range: it can give plugins user ids of their own.
        cgroup: what was found, or "".
        cgroup_reason: why nothing was.
        cgroup_remedy: what to do about it.
        around: what may have refused the rest.
    """

    reasons: Mapping[str, str]
    user_namespace: bool
    root: bool
    has_range: bool = True
    cgroup: str = ""
    cgroup_reason: str = ""
    cgroup_remedy: str = ""
    around: Surroundings = field(default_factory=surroundings)


def probe() -> Machine:
    """Ask the kernel. Needs no privilege and changes nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    architecture = platform.machine()
    abi = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    landlock_reason = "" if abi > 0 else os.strerror(ctypes.get_errno())
    seccomp, reason = False, f"no system call table for {architecture} in this version"
    if architecture in ARCHITECTURES:
        action = ctypes.c_uint32(_KILL_PROCESS)
        number = _SYS_SECCOMP[architecture]
        result = libc.syscall(number, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action))
        seccomp, reason = result == 0, os.strerror(ctypes.get_errno()) if result else ""
    return Machine(architecture, max(abi, 0), landlock_reason, seccomp, reason)


def offers(
    machine: Machine, tried: Tried, disabled: frozenset[Layer] = frozenset()
) -> tuple[LayerReport, ...]:
    """Return the standing of every layer but the watchdog, in the order they are applied."""
    special = {
        Layer.LANDLOCK: lambda: _landlock(machine),
        Layer.SECCOMP: lambda: _seccomp(machine),
        Layer.CGROUP: lambda: _cgroup(tried),
        Layer.USER_NAMESPACE: lambda: _user_namespace(tried),
        Layer.OWN_UID: lambda: _own_uid(tried, disabled),
        Layer.OWN_ROOT: lambda: _own_root(tried),
    }
    reports = []
    for layer in Layer:
        if layer is Layer.WATCHDOG:
            continue
        if layer in disabled:
            text = "switched off by disable_layers"
            reports.append(LayerReport(layer, LayerStatus.DISABLED, text, "Remove it there."))
        elif layer in _ALWAYS and not tried.reasons.get(layer):
            reports.append(LayerReport(layer, LayerStatus.ACTIVE, _ALWAYS[layer]))
        elif layer in _ALWAYS:
            reports.append(_refused(layer, tried))
        elif layer in special:
            reports.append(special[layer]())
        else:
            reports.append(_namespace(layer, tried))
    return tuple(reports)


def _refused(layer: Layer, tried: Tried) -> LayerReport:
    """Return that of what every system has, and something around the host refuses."""
    reason = tried.reasons[layer]
    return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, remedy(reason, tried.around))


def _landlock(machine: Machine) -> LayerReport:
    if machine.landlock_abi >= landlock.MINIMUM_ABI:
        return LayerReport(Layer.LANDLOCK, LayerStatus.ACTIVE, f"ABI {machine.landlock_abi}")
    if machine.landlock_abi:
        reason = f"ABI {machine.landlock_abi}; {landlock.MINIMUM_ABI} or later is needed"
    else:
        reason = f"landlock_create_ruleset: {machine.landlock_reason}"
    told = (
        "Use Linux 5.19 or later with CONFIG_SECURITY_LANDLOCK and `landlock` in the boot "
        "parameter lsm=. In a container, its seccomp profile has to allow the landlock_* calls; "
        "in a systemd unit, a SystemCallFilter= does."
    )
    return LayerReport(Layer.LANDLOCK, LayerStatus.UNAVAILABLE, reason, told)


def _seccomp(machine: Machine) -> LayerReport:
    if machine.seccomp:
        detail = f"filter mode, {machine.architecture}"
        return LayerReport(Layer.SECCOMP, LayerStatus.ACTIVE, detail)
    told = (
        "Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or aarch64. In a systemd unit, a "
        "SystemCallFilter= has to hold `seccomp`."
    )
    return LayerReport(Layer.SECCOMP, LayerStatus.UNAVAILABLE, machine.seccomp_reason, told)


def _cgroup(tried: Tried) -> LayerReport:
    if tried.cgroup:
        return LayerReport(Layer.CGROUP, LayerStatus.ACTIVE, tried.cgroup)
    return LayerReport(
        Layer.CGROUP, LayerStatus.UNAVAILABLE, tried.cgroup_reason, tried.cgroup_remedy
    )


def _user_namespace(tried: Tried) -> LayerReport:
    layer = Layer.USER_NAMESPACE
    reason = tried.reasons.get(layer, "")
    if reason or not tried.user_namespace:
        told = _userns_remedy(reason, tried.around)
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason or "not made", told)
    shared = tried.root and tried.has_range
    whose = "the nursery's, for all plugins" if shared else "one for each plugin"
    return LayerReport(layer, LayerStatus.ACTIVE, whose)


def _namespace(layer: Layer, tried: Tried) -> LayerReport:
    if not (tried.user_namespace or tried.root):
        reason = "an ordinary user needs a user namespace for it"
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, "See user-namespace.")
    reason = tried.reasons.get(layer, "not tried")
    if reason:
        told = remedy(reason, tried.around)
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, told)
    return LayerReport(layer, LayerStatus.ACTIVE, "tried in a process that ended")


def _own_root(tried: Tried) -> LayerReport:
    report = _namespace(Layer.OWN_ROOT, tried)
    if report.status is LayerStatus.ACTIVE:
        proc = tried.reasons.get("proc", "not tried")
        detail = f"without /proc: {proc}" if proc else "with /proc, subset=pid"
        return LayerReport(report.layer, report.status, detail)
    return report


def _own_uid(tried: Tried, disabled: frozenset[Layer]) -> LayerReport:
    layer = Layer.OWN_UID
    if not tried.root:
        reason = "only a host that is root can give plugins user ids of their own"
        told = "A user namespace for each plugin does the same for an ordinary user's host."
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, told)
    if not tried.has_range:
        reason = f"this root was not given the ids that plugin_uids names: {tried.reasons[layer]}"
        told = "Set plugin_uids to ids that /proc/self/uid_map of the host shows."
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, told)
    if Layer.OWN_ROOT in disabled or tried.reasons.get(Layer.OWN_ROOT, "not tried"):
        reason = "needs own-root: another user could not enter the host's directories"
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, "See own-root.")
    reason = tried.reasons.get(layer, "not tried")
    if reason:
        told = "Let the host keep CAP_SETUID and CAP_SETGID."
        return LayerReport(layer, LayerStatus.UNAVAILABLE, reason, told)
    return LayerReport(layer, LayerStatus.ACTIVE, "a user id for each plugin")


def _userns_remedy(reason: str, around: Surroundings) -> str:
    for path, value, told in _RESTRICTIONS:
        try:
            if Path(path).read_text(encoding="ascii").strip() == value:
                return f"{path} is {value}. {told}"
        except OSError:
            continue
    return f"Use a kernel with CONFIG_USER_NS. {remedy(reason, around)}"

"""Finds out what this machine offers, by trying; and says what to do where something is missing."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from typing import Final

from sandbox_host.backends.linux import landlock
from sandbox_host.backends.linux.seccomp import ARCHITECTURES
from sandbox_host.model import Layer, LayerReport, LayerStatus

_SYS_LANDLOCK_CREATE_RULESET: Final = 444  # one number on every architecture
_LANDLOCK_VERSION: Final = 1
_SYS_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_KILL_PROCESS: Final = 0x8000_0000


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found out.

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


def offers(machine: Machine) -> tuple[LayerReport, ...]:
    """Return the machine's standing, layer by layer, in the order they are applied."""
    always = {
        Layer.PARENT_DEATH: "PR_SET_PDEATHSIG",
        Layer.RLIMITS: "setrlimit",
        Layer.ENVIRONMENT: "execve with an environment of our own",
        Layer.DESCRIPTORS: "close_range",
        Layer.CAPABILITIES: "capset",
        Layer.NO_NEW_PRIVS: "PR_SET_NO_NEW_PRIVS",
    }
    active = tuple(LayerReport(k, LayerStatus.ACTIVE, text) for k, text in always.items())
    return (*active, _landlock(machine), _seccomp(machine))


def _landlock(machine: Machine) -> LayerReport:
    if machine.landlock_abi >= landlock.MINIMUM_ABI:
        return LayerReport(Layer.LANDLOCK, LayerStatus.ACTIVE, f"ABI {machine.landlock_abi}")
    if machine.landlock_abi:
        reason = f"ABI {machine.landlock_abi}; {landlock.MINIMUM_ABI} or later is needed"
    else:
        reason = f"landlock_create_ruleset: {machine.landlock_reason}"
    remedy = (
        "Use Linux 5.19 or later with CONFIG_SECURITY_LANDLOCK and `landlock` in the boot "
        "parameter lsm=; in a container, allow the landlock_* calls in its seccomp profile."
    )
    return LayerReport(Layer.LANDLOCK, LayerStatus.UNAVAILABLE, reason, remedy)


def _seccomp(machine: Machine) -> LayerReport:
    if machine.seccomp:
        detail = f"filter mode, {machine.architecture}"
        return LayerReport(Layer.SECCOMP, LayerStatus.ACTIVE, detail)
    remedy = "Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or aarch64."
    return LayerReport(Layer.SECCOMP, LayerStatus.UNAVAILABLE, machine.seccomp_reason, remedy)

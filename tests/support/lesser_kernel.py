"""A host on a kernel that lacks something: ``python -m tests.support.lesser_kernel JSON``.

A seccomp filter of this process answers the calls with ENOSYS or EPERM; what it starts inherits
that. The argument is an object: ``kernel`` (a name of `KERNELS`) and ``configs`` (fields of
`HostConfig`, one object for each attempt). Prints one line of JSON, a list of what came of each.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.backends.linux.bpf import Label, Program, assemble, give, if_equal, load, mask
from sandbox_host.backends.linux.surroundings import CONTAINER_CALLS
from sandbox_host.errors import ConfinementError, OperationError
from tests.support.host import Workshop
from tests.support.thrift import be_thrifty, spread

_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_FIRST_ARGUMENT = 16
_NAMESPACE_FLAGS = 0x7E02_0000
_X86 = os.uname().machine == "x86_64"

LANDLOCK = {"landlock_create_ruleset": 444}
LANDLOCK_IN_THE_CHILD = {"landlock_restrict_self": 446}
SECCOMP = {"seccomp": 317 if _X86 else 277}
MOUNTING = {
    "mount": 165 if _X86 else 40,
    "umount2": 166 if _X86 else 39,
    "pivot_root": 155 if _X86 else 41,
    "mount_setattr": 442,
}
NAMESPACES = {"unshare": 272 if _X86 else 97, "setns": 308 if _X86 else 268}
CLONE = 56 if _X86 else 220
CLONE3 = {"clone3": 435}
# What a container engine's default profile refuses beside those, to a process without capabilities.
CONTAINER = {
    "sethostname": 170 if _X86 else 161,
    "setdomainname": 171 if _X86 else 162,
    "chroot": 161 if _X86 else 51,
    "add_key": 248 if _X86 else 217,
    "request_key": 249 if _X86 else 218,
    "keyctl": 250 if _X86 else 219,
    "bpf": 321 if _X86 else 280,
    "perf_event_open": 298 if _X86 else 241,
    "userfaultfd": 323 if _X86 else 282,
    "kcmp": 312 if _X86 else 272,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
}
_REFUSED = {**MOUNTING, **NAMESPACES, **CONTAINER}

# By name: calls that are missing, calls that are forbidden, and whether clone may make namespaces.
KERNELS: dict[str, tuple[dict[str, int], dict[str, int], bool]] = {
    "whole": ({}, {}, True),
    "without landlock": (LANDLOCK, {}, True),
    "landlock fails late": (LANDLOCK_IN_THE_CHILD, {}, True),
    "without seccomp": (SECCOMP, {}, True),
    "before mount_setattr": ({"mount_setattr": 442}, {}, True),
    "without mount": ({}, MOUNTING, True),
    "container": (CLONE3, _REFUSED, False),
    "container, with what we need": (
        CLONE3,
        {name: number for name, number in _REFUSED.items() if name not in CONTAINER_CALLS},
        True,
    ),
    "container without landlock": ({**LANDLOCK, **CLONE3}, _REFUSED, False),
}

PASSWD = """
with open(context().data_dir + "/executed", "w") as marker:
    marker.write("yes")

@operation
def passwd():
    return open("/etc/passwd").read()
"""


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def become(kernel: str) -> None:
    """Be this kernel from now on."""
    missing, forbidden, may_clone = KERNELS[kernel]
    program: Program = [load(0)]
    program += [if_equal(number, then="missing") for number in missing.values()]
    program += [if_equal(number, then="forbidden") for number in forbidden.values()]
    if not may_clone:
        # A filter cannot see the flags of clone3: it is missing, and the C library falls back.
        program += [if_equal(CLONE, otherwise="allowed")]
        program += [load(_FIRST_ARGUMENT), mask(_NAMESPACE_FLAGS), if_equal(0, then="allowed")]
        program.append(give(_ERRNO | errno.EPERM))
    program += [Label("allowed"), give(_ALLOW)]
    program += [Label("missing"), give(_ERRNO | errno.ENOSYS)]
    program += [Label("forbidden"), give(_ERRNO | errno.EPERM)]
    code = assemble(program)
    libc = ctypes.CDLL(None, use_errno=True)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    loaded = _Filter(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, one, none, none, none) or libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(loaded), none, none
    ):
        raise OSError(ctypes.get_errno(), "the filter was refused")


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self.told.append(record.getMessage())


def main(argument: str) -> None:
    """Be the kernel; load a plugin with each configuration; print what came of it."""
    be_thrifty()
    asked = json.loads(argument)
    become(asked["kernel"])
    print(json.dumps([attempt(config) for config in asked["configs"]]))


def attempt(options: dict[str, Any]) -> dict[str, Any]:
    """Load a plugin in a host of this configuration, and call its ``passwd``."""
    warnings = _Warnings()
    log = logging.getLogger("sandbox_host")
    log.addHandler(warnings)
    with tempfile.TemporaryDirectory() as name:
        workshop = Workshop(spread(Path(name).resolve()))
        config = workshop.config(**options)
        with SandboxHost.blocking(config) as host:
            outcome = _outcome(host, workshop.write(PASSWD))
        executed = (workshop.data_dir("sample") / "executed").exists()
        lines = [json.loads(line) for line in config.journal_path.read_text().splitlines()]
    log.removeHandler(warnings)
    journal = [[line["event"], line["detail"]] for line in lines]
    return {**outcome, "executed": executed, "log": warnings.told, "journal": journal}


def _outcome(host: BlockingHost, bundle: Path) -> dict[str, Any]:
    try:
        plugin = host.load(bundle)
    except ConfinementError as error:
        return {"refused": error.layer, "text": str(error)}
    receipt = plugin.receipt
    told = {
        "refused": "",
        "layers": {one.layer: [one.status, one.detail, one.remedy] for one in receipt.layers},
        "guarantees": {one.guarantee: [one.status, one.detail] for one in receipt.guarantees},
        "limits": [[one.name, one.value, one.mechanism] for one in receipt.limits],
    }
    try:
        plugin.call("passwd")
    except OperationError as error:
        return {**told, "passwd": error.type_name}
    return {**told, "passwd": "read"}


if __name__ == "__main__":
    main(*sys.argv[1:])

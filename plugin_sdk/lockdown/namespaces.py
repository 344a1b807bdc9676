"""Namespaces: unshare, maps of ids, and the way back into a pid namespace (namespaces(7))."""

from __future__ import annotations

import ctypes
import os

from plugin_sdk.lockdown.libc import check, libc

NEWNS = 0x0002_0000
NEWCGROUP = 0x0200_0000
NEWUTS = 0x0400_0000
NEWIPC = 0x0800_0000
NEWUSER = 0x1000_0000
NEWPID = 0x2000_0000
NEWNET = 0x4000_0000

CLONE_PARENT = 0x0000_8000

NESTED_ID = 1
_SIGCHLD = 17
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}


def unshare(flags: int) -> None:
    """Leave the namespaces that ``flags`` name for new ones; NEWPID is for children to come."""
    if flags:
        check(libc.unshare(ctypes.c_int(flags)), "unshare")


def join(descriptor: int, kind: int) -> None:
    """Enter the namespace of this kind that a descriptor of ``/proc/<pid>/ns`` refers to."""
    check(libc.setns(descriptor, ctypes.c_int(kind)), "setns")


def set_hostname(name: str) -> None:
    """Take a name that says nothing of the machine; needs a UTS namespace of one's own."""
    encoded = name.encode()
    check(libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def nest(process: int) -> None:
    """Enter a user namespace below the present one, in which one is the user and group 1.

    It has its own count of processes (RLIMIT_NPROC), and no power over mounts made before.

    Args:
        process: a descriptor of ``/proc/self``, opened while it could be.
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEWUSER)
    # setgroups must be given up first, or the group map is refused (user_namespaces(7)).
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NESTED_ID} {uid} 1"),
        ("gid_map", f"{NESTED_ID} {gid} 1"),
    ):
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=process)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def fork_sibling(flags: int) -> int:
    """Fork a child whose parent is this process's own parent; return as fork(2) does.

    The child must go on to exec: the C library does not know that it is another thread now.
    """
    number = _SYS_CLONE[os.uname().machine]
    zero = ctypes.c_ulong(0)
    wanted = ctypes.c_ulong(flags | CLONE_PARENT | _SIGCHLD)
    return check(libc.syscall(number, wanted, zero, zero, zero, zero), "clone")

"""The Linux mechanisms, one function each. They apply what they are given and read it back.

Everything goes through the C library's ``syscall`` and ``prctl``; nothing decides. Each function
raises OSError where the kernel refuses. Numbers are from the kernel's uapi headers and, for the
calls that came after 2019, the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

# NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each locked: uid 0 is worth nothing.
_SECUREBITS = 0b1110_1111

_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_RULE_PATH_BENEATH = 1

_CAPABILITY_VERSION_3 = 0x2008_0522
_SIGKILL = 9

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, *arguments: int) -> int:
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *values), f"prctl({option})")


def die_with(host_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; leave if it has ended already.

    The parent is compared with the pid known at spawn time, never with 1: the host may be pid 1.
    """
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != host_pid:
        os._exit(72)


def parent_death_signal() -> int:
    """Return the signal that the parent's death sends."""
    value = ctypes.c_int(0)
    _check(_libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(value), 0, 0, 0), "prctl(PR_GET_PDEATHSIG)")
    return value.value


def set_rlimits(limits: Iterable[tuple[int, int]]) -> None:
    """Set each limit, soft and hard."""
    for number, value in limits:
        resource.setrlimit(number, (value, value))


def close_others(keep: Iterable[int]) -> list[int]:
    """Close every descriptor but the standard streams and ``keep``; return what is open."""
    start = 3
    for descriptor in sorted(keep):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 1 << 20)
    is_open = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the descriptor that listed the directory
        is_open.append(int(name))
    return sorted(is_open)


def drop_capabilities() -> None:
    """Empty every capability set. Only a holder of CAP_SETPCAP can empty the bounding set."""
    try:
        _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
        number = 0
        while _libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) >= 0:
            _prctl(_PR_CAPBSET_DROP, number)
            number += 1
    except PermissionError:
        pass
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, nothing), "capset")


def forbid_new_privileges() -> None:
    """Set no_new_privs, which Landlock and seccomp require, and become untraceable."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def restrict_with_landlock(
    fs: int, net: int, scoped: int, rules: Iterable[tuple[str, int]]
) -> None:
    """Deny every handled right but what ``rules`` grant below their paths."""
    attributes = (ctypes.c_uint64 * 3)(fs, net, scoped)
    # An older kernel takes a shorter structure, and rejects bytes that it does not know unless 0.
    ruleset = _check(
        _libc.syscall(
            _SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(24), ctypes.c_uint32(0)
        ),
        "landlock_create_ruleset",
    )
    try:
        for path, rights in rules:
            _allow_beneath(ruleset, path, rights)
        _check(
            _libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)),
            "landlock_restrict_self",
        )
    finally:
        os.close(ruleset)


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # struct landlock_path_beneath_attr is packed: 8 bytes of rights, 4 of descriptor.
        rule = rights.to_bytes(8, "little") + descriptor.to_bytes(4, "little")
        _check(
            _libc.syscall(
                _SYS_LANDLOCK_ADD_RULE,
                ruleset,
                _LANDLOCK_RULE_PATH_BENEATH,
                ctypes.c_char_p(rule),
                ctypes.c_uint32(0),
            ),
            f"landlock_add_rule({path})",
        )
    finally:
        os.close(descriptor)


def load_filter(instructions: bytes) -> None:
    """Install a seccomp filter given as an array of ``struct sock_filter``."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    program = Program(len(instructions) // 8, instructions)
    _check(
        _libc.prctl(
            _PR_SET_SECCOMP,
            ctypes.c_ulong(_SECCOMP_MODE_FILTER),
            ctypes.byref(program),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        "prctl(PR_SET_SECCOMP)",
    )

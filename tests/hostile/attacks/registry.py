"""What an attack is. Standard library only: this runs in a plain interpreter and in a plugin."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Target = dict[str, Any]
"""What to attack: paths, ports and descriptors that `tests.support.hostile` prepared."""

SUCCEEDED = "succeeded"


@dataclass(frozen=True)
class Attack:
    """One attempt: it returns where nothing stops it, and raises where something does.

    Attributes:
        expected: what it must meet inside: the name of an errno, or of an exception's class.
        root: an ordinary user cannot do it without the sandbox either.
        optional: a kernel may be built or set up without it.
        ends_parent: signal that ends the attacked parent where the attack succeeds; 0 for none.
    """

    run: Callable[[Target], object]
    expected: tuple[str, ...]
    root: bool = False
    optional: bool = False
    ends_parent: int = 0


ATTACKS: dict[str, Attack] = {}


def attack(*expected: str, **options: Any) -> Callable[..., Callable[[Target], object]]:
    """Register a function as an attack under its name; arguments as for `Attack`."""

    def register(function: Callable[[Target], object]) -> Callable[[Target], object]:
        assert function.__name__ not in ATTACKS, function.__name__
        ATTACKS[function.__name__] = Attack(function, expected, **options)
        return function

    return register


def outcome_of(name: str, target: Target) -> str:
    """Make the attempt; return `SUCCEEDED`, or the name of the errno or exception it met."""
    try:
        ATTACKS[name].run(target)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
        return type(error).__name__
    return SUCCEEDED


libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p


def check(result: int) -> int:
    """Return what the C library returned, or raise its errno."""
    if result in {-1, None, ctypes.c_void_p(-1).value}:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(name: str, *arguments: Any) -> int:
    """Make a system call by name, and raise OSError where it fails."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(libc.syscall(ctypes.c_long(NUMBERS[name][os.uname().machine]), *values))


def _both(x86_64: int, aarch64: int) -> dict[str, int]:
    return {"x86_64": x86_64, "aarch64": aarch64}


# From the kernel's own headers, not from the policy that is tested.
NUMBERS = {
    "acct": _both(163, 89),
    "add_key": _both(248, 217),
    "bpf": _both(321, 280),
    "capset": _both(126, 91),
    "chroot": _both(161, 51),
    "clone": _both(56, 220),
    "clone3": _both(435, 435),
    "fallocate": _both(285, 47),
    "fanotify_init": _both(300, 262),
    "getxattr": _both(191, 8),
    "inotify_init1": _both(294, 26),
    "io_uring_setup": _both(425, 425),
    "ioprio_set": _both(251, 30),
    "kcmp": _both(312, 272),
    "keyctl": _both(250, 219),
    "landlock_create_ruleset": _both(444, 444),
    "memfd_create": _both(319, 279),
    "memfd_secret": _both(447, 447),
    "mlock": _both(149, 228),
    "mount": _both(165, 40),
    "mq_open": _both(240, 180),
    "msgget": _both(68, 186),
    "name_to_handle_at": _both(303, 264),
    "perf_event_open": _both(298, 241),
    "personality": _both(135, 92),
    "pidfd_getfd": _both(438, 438),
    "pidfd_open": _both(434, 434),
    "pidfd_send_signal": _both(424, 424),
    "process_vm_readv": _both(310, 270),
    "ptrace": _both(101, 117),
    "quotactl": _both(179, 60),
    "rt_sigqueueinfo": _both(129, 138),
    "sched_setscheduler": _both(144, 119),
    "seccomp": _both(317, 277),
    "semget": _both(64, 190),
    "sethostname": _both(170, 161),
    "setns": _both(308, 268),
    "setsid": _both(112, 157),
    "setxattr": _both(188, 5),
    "shmget": _both(29, 194),
    "splice": _both(275, 76),
    "syslog": _both(103, 116),
    "tkill": _both(200, 130),
    "umount2": _both(166, 39),
    "unshare": _both(272, 97),
    "userfaultfd": _both(323, 282),
}

"""System calls that Python has no function for, by name, through the C library."""

from __future__ import annotations

import ctypes
import os
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p

NULL = ctypes.c_void_p()


def check(result: int | None) -> int:
    """Return what the C library returned, or raise its errno."""
    if result in {-1, None, ctypes.c_void_p(-1).value}:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    assert result is not None
    return result


def syscall(name: str, *arguments: Any) -> int:
    """Make a system call by name, and raise OSError where it fails."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(libc.syscall(ctypes.c_long(NUMBERS[name][os.uname().machine]), *values))


def zeros(size: int) -> ctypes.Array[ctypes.c_char]:
    """Return a buffer of zeros, for the kernel to read or fill."""
    return ctypes.create_string_buffer(size)


def text(value: str | bytes) -> ctypes.c_char_p:
    """Return a C string."""
    return ctypes.c_char_p(os.fsencode(value))


def _both(x86_64: int, aarch64: int) -> dict[str, int]:
    return {"x86_64": x86_64, "aarch64": aarch64}


# From the kernel's own headers, not from the policy that is tested.
NUMBERS = {
    "acct": _both(163, 89),
    "add_key": _both(248, 217),
    "adjtimex": _both(159, 171),
    "bpf": _both(321, 280),
    "capset": _both(126, 91),
    "clone": _both(56, 220),
    "clone3": _both(435, 435),
    "delete_module": _both(176, 106),
    "execveat": _both(322, 281),
    "fallocate": _both(285, 47),
    "fanotify_init": _both(300, 262),
    "fsopen": _both(430, 430),
    "getxattr": _both(191, 8),
    "init_module": _both(175, 105),
    "inotify_init1": _both(294, 26),
    "io_setup": _both(206, 0),
    "io_uring_setup": _both(425, 425),
    "ioprio_set": _both(251, 30),
    "kcmp": _both(312, 272),
    "keyctl": _both(250, 219),
    "landlock_create_ruleset": _both(444, 444),
    "memfd_secret": _both(447, 447),
    "mlock": _both(149, 228),
    "mount": _both(165, 40),
    "move_pages": _both(279, 239),
    "mq_open": _both(240, 180),
    "mq_unlink": _both(241, 181),
    "msgctl": _both(71, 187),
    "msgget": _both(68, 186),
    "name_to_handle_at": _both(303, 264),
    "open_by_handle_at": _both(304, 265),
    "open_tree": _both(428, 428),
    "perf_event_open": _both(298, 241),
    "personality": _both(135, 92),
    "pidfd_getfd": _both(438, 438),
    "pidfd_open": _both(434, 434),
    "pidfd_send_signal": _both(424, 424),
    "pivot_root": _both(155, 41),
    "pkey_mprotect": _both(329, 288),
    "process_madvise": _both(440, 440),
    "process_vm_readv": _both(310, 270),
    "process_vm_writev": _both(311, 271),
    "ptrace": _both(101, 117),
    "quotactl": _both(179, 60),
    "rt_sigqueueinfo": _both(129, 138),
    "rt_tgsigqueueinfo": _both(297, 240),
    "sched_setattr": _both(314, 274),
    "seccomp": _both(317, 277),
    "semctl": _both(66, 191),
    "semget": _both(64, 190),
    "sethostname": _both(170, 161),
    "setns": _both(308, 268),
    "setsid": _both(112, 157),
    "settimeofday": _both(164, 170),
    "setxattr": _both(188, 5),
    "shmctl": _both(31, 195),
    "shmget": _both(29, 194),
    "splice": _both(275, 76),
    "syslog": _both(103, 116),
    "timer_create": _both(222, 107),
    "timer_delete": _both(226, 111),
    "tkill": _both(200, 130),
    "umount2": _both(166, 39),
    "unshare": _both(272, 97),
    "userfaultfd": _both(323, 282),
    "vmsplice": _both(278, 75),
}

"""seccomp filter mode (Documentation/userspace-api/seccomp_filter.rst)."""

from __future__ import annotations

import ctypes

from plugin_sdk.lockdown.libc import check, libc

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load_filter(instructions: bytes) -> None:
    """Install a filter given as an array of ``struct sock_filter``."""
    program = _Program(len(instructions) // 8, instructions)
    zero = ctypes.c_ulong(0)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    result = libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(program), zero, zero)
    check(result, "prctl(PR_SET_SECCOMP)")

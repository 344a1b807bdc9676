"""The C library: system calls that Python has no name for, with errors as OSError."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def check(result: int, what: str) -> int:
    """Return what a function of the C library returned.

    Raises:
        OSError: it returned a negative number; ``what`` and the reason are in the message.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *arguments: int) -> int:
    """Set or read one property of the process, by up to four integers (prctl(2))."""
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return check(libc.prctl(option, *values), f"prctl({option})")

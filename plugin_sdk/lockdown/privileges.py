"""Capabilities, securebits, no_new_privs and dumpability (capabilities(7), prctl(2))."""

from __future__ import annotations

import ctypes

from plugin_sdk.lockdown.libc import check, libc, prctl

PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS = 27, 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_MOST_CAPABILITIES = 64
_NUMBERS = tuple(ctypes.c_ulong(number) for number in range(_MOST_CAPABILITIES))

# NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each locked: uid 0 is worth nothing.
_SECUREBITS = 0b1110_1111

_CAPABILITY_VERSION_3 = 0x2008_0522


def drop_bounding_set() -> None:
    """Empty the bounding set and make uid 0 worthless; only a holder of CAP_SETPCAP can."""
    try:
        zero = _NUMBERS[0]
        for number in _NUMBERS:
            there = libc.prctl(_PR_CAPBSET_READ, number, zero, zero, zero)
            if there < 0:
                break
            if there:
                dropped = libc.prctl(_PR_CAPBSET_DROP, number, zero, zero, zero)
                check(dropped, "prctl(PR_CAPBSET_DROP)")
        prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    except PermissionError:
        pass  # without CAP_SETPCAP there is nothing to lose either


def securebits() -> int:
    """Return what is set of the calling thread's securebits."""
    return prctl(_PR_GET_SECUREBITS)


def drop_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    check(libc.capset(header, nothing), "capset")


def forbid_new_privileges() -> None:
    """Set no_new_privs, which Landlock and seccomp require, and become untraceable."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)

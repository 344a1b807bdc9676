"""Dying with the parent: PR_SET_PDEATHSIG (prctl(2)).

The signal comes when the *thread* that forked ends. A change of credentials clears the setting.
"""

from __future__ import annotations

import ctypes
import os

from plugin_sdk.lockdown.libc import check, libc, prctl

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
SIGKILL = 9
EXIT_ORPHANED = 72


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; leave if it has ended already.

    Args:
        parent: what getppid returned when the process was made: 0 where the parent is outside
            this pid namespace. Never compared with 1: the parent may be pid 1.
    """
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_ORPHANED)


def parent_death_signal() -> int:
    """Return the signal that the parent's death sends."""
    value = ctypes.c_int(0)
    check(libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(value), 0, 0, 0), "prctl(PR_GET_PDEATHSIG)")
    return value.value

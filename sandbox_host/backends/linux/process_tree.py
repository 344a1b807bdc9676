"""Signals all processes of a group, each by a descriptor, until none is left that runs.

A number may be another process's by the time that a signal is sent. A descriptor that was opened
for it, and was still the group's after that, is not: it names a process of the group, or one that
has ended, which no signal reaches.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PASSES: Final = 50
_PAUSE_SECONDS: Final = 0.001
_HOLDS_STILL: Final = frozenset("TtZX")


def stop_all(listed: Callable[[], list[int]]) -> bool:
    """Stop every process (SIGSTOP); those too that they start meanwhile.

    None of them can continue another: seccomp lets no plugin send SIGCONT. One that waits in the
    kernel, for memory or for a disk, stops when it comes back from there.

    Args:
        listed: the processes of the group as they are now.

    Returns:
        Whether all were seen to stand still; what does not is given up after some 50 ms.
    """
    moving = listed()
    for _ in range(_PASSES):
        _send(moving, listed, signal.SIGSTOP)
        # Looked at twice: a stopped group whose parent ends between the looks at the one and at the
        # other becomes orphaned, and the kernel has it go on (setpgid(2), SIGCONT).
        moving = _moving(listed) or _moving(listed)
        if not moving:
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def continue_all(listed: Callable[[], list[int]]) -> None:
    """Have every process go on (SIGCONT)."""
    _send(listed(), listed, signal.SIGCONT)


def _send(pids: Iterable[int], listed: Callable[[], list[int]], number: signal.Signals) -> None:
    with contextlib.ExitStack() as opened:
        found = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                found[pid] = os.pidfd_open(pid)
                opened.callback(os.close, found[pid])
        members = set(listed())
        for pid in members & found.keys():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(found[pid], number)


def _moving(listed: Callable[[], list[int]]) -> list[int]:
    return [pid for pid in listed() if not _stands_still(pid)]


def _stands_still(pid: int) -> bool:
    """Tell whether a process is stopped; also, whether it has ended."""
    try:
        return procfs.parse_stat(procfs.read(pid, "stat")).state in _HOLDS_STILL
    except (OSError, ValueError, IndexError):
        return True

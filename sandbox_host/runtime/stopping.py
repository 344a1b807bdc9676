"""Stops many plugins within the time that one has for it, however many of them hang.

All are asked before one is waited for, and those that are left at the deadline are all ended before
one is waited for: who hangs takes nobody else's time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_host.model import Cause
    from sandbox_host.runtime.process import PluginProcess


def stop_together(processes: Sequence[PluginProcess], timeout: float, cause: Cause) -> None:
    """Let plugins finish what they have, clean up and leave; end those that have not.

    Args:
        processes: all of them are asked at the same time.
        timeout: seconds, for all of them together.
        cause: why.
    """
    deadline = time.monotonic() + timeout
    for process in processes:
        process.ask_to_leave(deadline, cause)
    _wait(processes, deadline)
    for process in processes:
        process.end_now(cause)
    _wait(processes, time.monotonic() + timeout + 1.0)


def _wait(processes: Sequence[PluginProcess], deadline: float) -> None:
    for process in processes:
        process.ended.wait(max(0.0, deadline - time.monotonic()))

"""What to do where the kernel refuses a process: by its own word for why (fork(2), unshare(2))."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from sandbox_host.errors import ConfinementError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROCESSES: Final = (
    "A limit of processes is reached: of the user (ulimit -u), of the unit (TasksMax=) or the "
    "container (pids.max of a control group), or of the machine (kernel.pid_max, "
    "kernel.threads-max). Raise it, or unload plugins."
)
_MEMORY: Final = (
    "The machine, or the control group of the host, has no memory for one more process. Unload "
    "plugins, or give it more (MemoryMax=)."
)
_DESCRIPTORS: Final = (
    "A plugin takes a dozen of the host's descriptors. Raise the hard limit (ulimit -Hn, "
    "LimitNOFILE=), or that of the machine (fs.file-max); or unload plugins."
)
_NAMESPACES: Final = (
    "Too many namespaces are there: raise user.max_pid_namespaces and its neighbours in "
    "/proc/sys/user, or unload plugins."
)
_ELSE: Final = "Something it needs was removed or changed meanwhile; load it again."

REMEDIES: Final[Mapping[int, str]] = {
    errno.EAGAIN: _PROCESSES,
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOSPC: _NAMESPACES,
    errno.EUSERS: _NAMESPACES,
}


def no_process(what: str, error: Exception) -> ConfinementError:
    """Return the error for a process that could not be made.

    Args:
        what: for whom, as in "The process for weather_model".
        error: what was met.
    """
    text = f"{what} could not be started: {error}."
    number = error.errno if isinstance(error, OSError) else None
    remedy = REMEDIES.get(number or 0, _ELSE)
    return ConfinementError(text, layer="process", remedy=remedy)

"""Control groups of version 1, entered from inside.

A process that moves itself, as its only thread, spares the kernel to wait until no process anywhere
is between fork and exit: milliseconds for each hierarchy (``cgroup_procs_write_start`` in
kernel/cgroup/cgroup.c; Documentation/admin-guide/cgroup-v1/cgroups.rst on ``tasks``).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SELF = b"0"


def join_groups(groups: Iterable[tuple[str, bool]]) -> list[str]:
    """Enter each group; return which were refused, of those that one need not get into.

    Args:
        groups: the file ``tasks`` of each, and whether one need not get in.

    Raises:
        OSError: a group that is no such one cannot be entered.
    """
    refused = []
    for path, optional in groups:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(descriptor, _SELF)
            finally:
                os.close(descriptor)
        except OSError as error:
            if not optional:
                number = error.errno or 0
                text = f"{os.strerror(number)} while entering {path}"
                raise OSError(number, text) from error
            refused.append(path)
    return refused

"""What the kernel says of a child, read from outside before it imports anything."""

from __future__ import annotations

import errno
import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.cgroup_group import read_membership

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMESPACES: Final = ("user", "pid", "net", "ipc", "uts", "cgroup", "mnt")
"""As ``/proc/<pid>/ns`` calls them."""

VISIBLE: Final = "visible"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The kernel's account of one process, beside the host's own.

    Attributes:
        status, own_status: fields of ``/proc/<pid>/status``.
        limits: ``{name: (soft, hard)}``.
        descriptors: open ones, 0 where the kernel does not tell.
        namespaces, own_namespaces, nursery_namespaces: inode by name of the link; empty where the
            kernel does not show them.
        mounts: of the process.
        nursery_mount_points: of the nursery, once for each mount: what a bind can bring along.
        sources: device and inode of what is at each path asked for, below the process's root.
        canary: what a look for the host's canary below the process's root met: `VISIBLE`, or the
            name of an errno.
        membership: ``/proc/<pid>/cgroup``.
        nursery_pid: of its parent, as the host sees it.
    """

    status: Mapping[str, str]
    own_status: Mapping[str, str]
    limits: Mapping[str, tuple[str, str]]
    descriptors: int
    namespaces: Mapping[str, int]
    own_namespaces: Mapping[str, int]
    nursery_namespaces: Mapping[str, int]
    mounts: tuple[procfs.MountLine, ...]
    nursery_mount_points: tuple[str, ...]
    sources: Mapping[str, tuple[int, int]]
    canary: str
    membership: str
    nursery_pid: int


def gather(pid: int, nursery_pid: int, canary: str, paths: Iterable[str] = ()) -> Evidence:
    """Read everything.

    Args:
        pid: the process.
        nursery_pid: its nursery's.
        canary: a file of the host's.
        paths: whose `sources` are wanted.

    Raises:
        OSError: the process has ended, or is not ours to look at.
        ValueError: the kernel writes something else than it documents.
    """
    return Evidence(
        status=procfs.parse_status(procfs.read(pid, "status")),
        own_status=procfs.parse_status(procfs.read(os.getpid(), "status")),
        limits=procfs.parse_limits(procfs.read(pid, "limits")),
        descriptors=procfs.count_descriptors(pid),
        namespaces=_namespaces(pid),
        own_namespaces=_namespaces(os.getpid()),
        nursery_namespaces=_namespaces(nursery_pid),
        mounts=procfs.parse_mounts(procfs.read(pid, "mountinfo")),
        nursery_mount_points=_mount_points(nursery_pid),
        sources={path: source for path in paths if (source := _source(pid, path))},
        canary=_look_for(canary, pid),
        membership=read_membership(pid),
        nursery_pid=nursery_pid,
    )


def _namespaces(pid: int) -> dict[str, int]:
    """Return what is shown: nothing, to an ordinary user whose host has no namespaces to look at.

    A process that is not dumpable is shown only to who has power over its user namespace
    (ptrace(2), PTRACE_MODE_READ).
    """
    try:
        return {name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in NAMESPACES}
    except PermissionError:
        return {}


def _source(pid: int, path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(f"/proc/{pid}/root{path}")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _mount_points(pid: int) -> tuple[str, ...]:
    return _points(procfs.read(pid, "mountinfo"))


@functools.lru_cache(maxsize=4)
def _points(mountinfo: str) -> tuple[str, ...]:
    """Read each time and parsed once: one nursery's hardly ever changes."""
    return tuple(line.point for line in procfs.parse_mounts(mountinfo))


def _look_for(canary: str, pid: int) -> str:
    try:
        os.lstat(f"/proc/{pid}/root{canary}")
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return VISIBLE

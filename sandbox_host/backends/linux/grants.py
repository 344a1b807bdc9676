"""What of the file system an operator may grant: files, and neither the kernel's nor the host's.

Source: proc(5), sysfs(5), Documentation/filesystems in the kernel's source. A granted directory is
bound with everything that is mounted in it: a /proc below it would show every process, whatever
the path is called.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.landlock import READ, Place
from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.backends.base import Places
    from sandbox_host.backends.linux.procfs import MountLine

_KERNEL_PATHS: Final = ("/proc", "/sys", "/dev")

_KERNEL_KINDS: Final = frozenset(
    {
        *("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "cpuset", "resctrl"),
        *("debugfs", "tracefs", "securityfs", "selinuxfs", "smackfs", "apparmorfs", "configfs"),
        *("mqueue", "bpf", "pstore", "efivarfs", "fusectl", "binfmt_misc", "hugetlbfs", "nsfs"),
        *("functionfs", "rpc_pipefs", "nfsd", "xenfs", "spufs", "openpromfs", "usbfs"),
    }
)
"""File systems whose files are the kernel itself, or a way to talk to it or to other processes."""


def granted_place(path: str, places: Places) -> Place:
    """Return a granted path, which must be what it says: a link could lead anywhere.

    Args:
        path: as the operator wrote it.
        places: the plugin's; the host's own directories are found by them.

    Raises:
        ConfinementError: it cannot be granted.
    """
    plain = os.path.normpath(path)
    plain = plain[1:] if plain.startswith("//") else plain  # POSIX lets two slashes be special
    if not os.path.isabs(plain):
        _refuse(path, "it does not say where it starts", "Grant an absolute path.")
    _check_real(path, plain)
    # data_dir is <state directory>/data/<identity>, below which is all that the host keeps.
    _check_not_the_hosts(path, plain, os.path.realpath(places.data_dir.parent.parent))
    _check_not_the_kernels(path, plain)
    return Place(plain, READ, is_directory=os.path.isdir(plain))


def _check_real(path: str, plain: str) -> None:
    link = _first_link(plain)
    if link:
        real = os.path.realpath(plain)
        text = f"{link} is a link to {os.readlink(link)}, and a link can be made to lead anywhere"
        remedy = f"Grant {real} instead." if os.path.exists(real) else "Grant a real path."
        _refuse(path, text, remedy)
    if not os.path.exists(plain):
        _refuse(path, "there is nothing of that name", "Make it, or remove it from the grants.")


def _first_link(path: str) -> str:
    for one in (*reversed(Path(path).parents), Path(path)):
        if os.path.islink(one):
            return str(one)
    return ""


def _check_not_the_hosts(path: str, plain: str, state_dir: str) -> None:
    why = ""
    if _within(plain, state_dir):
        why = f"it lies in the host's own state directory {state_dir}"
    elif _within(state_dir, plain) and plain != "/":
        why = f"it contains the host's own state directory {state_dir}"
    if why:
        remedy = "Grant what the plugin needs and nothing above it, or move state_dir elsewhere."
        _refuse(path, f"{why}, with the data of every plugin", remedy)


def _check_not_the_kernels(path: str, plain: str) -> None:
    remedy = "Grant the directories of the files that the plugin needs."
    if plain == "/":
        _refuse(path, "it is the whole file system, with what shows other processes", remedy)
    for kernel in _KERNEL_PATHS:
        if _within(plain, kernel):
            _refuse(path, f"{kernel} shows the machine and other processes, not files", remedy)
    try:
        mounts = procfs.parse_mounts(procfs.read(os.getpid(), "mountinfo"))
    except (OSError, ValueError) as error:
        _refuse(path, f"what is mounted there cannot be read: {error}", "Look at /proc.")
    for mount in _reached(plain, mounts):
        if mount.kind in _KERNEL_KINDS:
            text = (
                f"it reaches {mount.point}, where a file system of the type {mount.kind} is "
                "mounted: that shows the machine and other processes, not files"
            )
            _refuse(path, text, remedy)


def _reached(path: str, mounts: Iterable[MountLine]) -> list[MountLine]:
    """Return what is mounted at or below a path, and the mount that the path itself is in.

    What other mounts cover is among them: they may be taken off again.
    """
    around: list[MountLine] = []
    found = []
    for mount in mounts:
        if _within(mount.point, path):
            found.append(mount)
        elif _within(path, mount.point):
            around.append(mount)
    # Of several at one point, the last one is on top.
    innermost = max(reversed(around), key=lambda mount: len(mount.point), default=None)
    return [*found, *([innermost] if innermost else [])]


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _refuse(path: str, why: str, remedy: str) -> NoReturn:
    text = f"The granted path {path} cannot be granted: {why}."
    raise ConfinementError(text, layer=Layer.LANDLOCK, remedy=remedy)

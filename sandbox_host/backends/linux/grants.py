"""What of the file system an operator may grant: files, neither the kernel's nor the host's.

Source: proc(5), sysfs(5), Documentation/filesystems in the kernel's source. A granted directory is
bound with everything that is mounted in it: a /proc below it would show every process, whatever
the path is called.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from sandbox_host.backends.linux import procfs
from sandbox_host.backends.linux.control_sockets import control_of
from sandbox_host.backends.linux.interpreter import interpreter_paths
from sandbox_host.backends.linux.landlock import READ, WRITE, Place
from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.backends.base import Places
    from sandbox_host.backends.linux.procfs import MountLine

_NO_LINK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_REMEDY: Final = "Grant what the plugin needs and nothing above it"
_ELSE: Final = "or move its data elsewhere"
_MAX_SOCKET_PATH: Final = 107
"""Bytes of ``sun_path`` without the final zero."""

_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})

_HOST_CODE: Final = (Path(__file__).parents[2], Path(__file__).parents[3] / "plugin_sdk")

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


def granted_place(path: str, places: Places, *, write: bool = False) -> Place:
    """Return a granted path, which must be what it says: a link could lead anywhere.

    It is resolved here, once. What the process is given is what stood here now, by device and
    inode; whatever comes in its place later is another.

    Args:
        path: as the operator wrote it.
        places: the plugin's; the host's own directories are found by them.
        write: it is granted for writing, which what is run must not be.

    Raises:
        ConfinementError: it cannot be granted.
    """
    plain, status = _found(path, places)
    if write:
        _check_not_code(path, plain, places)
    is_directory = stat.S_ISDIR(status.st_mode)
    if not is_directory and not stat.S_ISREG(status.st_mode):
        text = "it is a socket, a FIFO or a device, by which others can be talked to"
        _refuse(path, text, "Grant a directory or a regular file.")
    rights, identity = WRITE if write else READ, (status.st_dev, status.st_ino)
    return Place(plain, rights, is_directory=is_directory, identity=identity)


def granted_socket(path: str, places: Places) -> Place:
    """Return a granted Unix socket, found as a granted path is; no right of Landlock's is with it.

    A server that starts again makes another socket, which is not the one that was granted.

    Args:
        path: as the operator wrote it.
        places: the plugin's.

    Raises:
        ConfinementError: it cannot be granted.
    """
    plain, status = _found(path, places)
    if not stat.S_ISSOCK(status.st_mode):
        _refuse(path, "it is no socket", "Grant the path of the server's socket itself.")
    if len(os.fsencode(plain)) > _MAX_SOCKET_PATH:
        text = f"nobody can connect to a path of more than {_MAX_SOCKET_PATH} bytes (unix(7))"
        _refuse(path, text, "Have the server make its socket at a shorter one.")
    identity = status.st_dev, status.st_ino
    if controlled := control_of(plain, identity):
        text = f"it leads to {controlled}"
        _refuse(path, text, "Offer the plugin what it needs of that as a service of yours.")
    return Place(plain, 0, is_directory=False, identity=identity)


def check_beside_sockets(granted: Iterable[Place]) -> None:
    """Refuse directories to a plugin that connects to Unix sockets.

    It could connect to whatever socket stands in one, or is made there later: neither a mount nor
    Landlock up to ABI 7 rules on that.

    Raises:
        ConfinementError: one is a directory.
    """
    for place in granted:
        if place.is_directory:
            text = (
                "it is a directory, and to a plugin with permissions.unix each socket that is made "
                "in one is open"
            )
            _refuse(place.path, text, "Grant the files one by one, or do without permissions.unix.")


def _found(path: str, places: Places) -> tuple[str, os.stat_result]:
    """Return a path in its plain form, and what stands there: not the host's, not the kernel's."""
    plain = os.path.normpath(path)
    plain = plain[1:] if plain.startswith("//") else plain  # POSIX lets two slashes be special
    if not os.path.isabs(plain):
        _refuse(path, "it does not say where it starts", "Grant an absolute path.")
    status = _resolve(path, plain)
    _check_not_the_hosts(path, plain, places)
    _check_not_the_kernels(path, plain)
    return plain, status


def _resolve(path: str, plain: str) -> os.stat_result:
    """Return what stands at a path, after a walk from the root that follows no link."""
    here, so_far = os.open("/", _NO_LINK), ""
    try:
        for name in plain.split("/")[1:] if plain != "/" else ():
            so_far = f"{so_far}/{name}"
            try:
                below = os.open(name, _NO_LINK, dir_fd=here)
            except FileNotFoundError:
                remedy = "Make it, or remove it from the grants."
                _refuse(path, "there is nothing of that name", remedy)
            except OSError as error:
                _refuse(path, f"{so_far} cannot be reached: {error.strerror}", "Grant a real path.")
            os.close(here)
            here = below
            if stat.S_ISLNK(os.fstat(here).st_mode):
                _refuse_link(path, plain, so_far)
        return os.fstat(here)
    finally:
        os.close(here)


def _refuse_link(path: str, plain: str, link: str) -> NoReturn:
    real = os.path.realpath(plain)
    text = f"{link} is a link to {os.readlink(link)}, and a link can be made to lead anywhere"
    _refuse(path, text, f"Grant {real} instead." if os.path.exists(real) else "Grant a real path.")


def _check_not_the_hosts(path: str, plain: str, places: Places) -> None:
    # data_dir is <state directory>/data/<identity>, below which is all that the host keeps.
    state_dir = os.path.realpath(places.data_dir.parent.parent)
    what = f"the host's own state directory {state_dir}, with the data of every plugin"
    _check_apart(path, plain, state_dir, what, "or move state_dir elsewhere")
    for one in map(os.path.realpath, places.private):
        what = f"{one}, which is of the host's configuration, trust store and keys"
        _check_apart(path, plain, one, what, "or move that elsewhere")


def _check_not_code(path: str, plain: str, places: Places) -> None:
    """Refuse to have written what somebody runs: the host, a plugin, or a user who logs in."""
    run: list[str | Path] = [*interpreter_paths(Path(os.path.realpath(places.python))).real]
    run += [places.python, places.sdk_dir, *places.code, *_HOST_CODE]
    run += [entry for entry in sys.path if os.path.basename(entry) in _PACKAGES]
    run += [places.plugin_environment] if places.plugin_environment is not None else []
    for one in dict.fromkeys(map(os.path.realpath, run)):
        _check_apart(path, plain, one, f"{one}, which the host or a plugin runs", _ELSE)
    # Below these there may well be data; in them, whoever writes decides what is run.
    around = [entry or os.curdir for entry in sys.path] + [sys.prefix, sys.base_prefix]
    for one in dict.fromkeys(map(os.path.realpath, [*around, os.path.expanduser("~")])):
        if _within(one, plain):
            what = f"{one}, where the host or a login looks for what it runs"
            _refuse(path, f"it contains {what}", f"{_REMEDY}.")


def _check_apart(path: str, plain: str, other: str, what: str, otherwise: str) -> None:
    remedy = f"{_REMEDY}, {otherwise}." if otherwise else f"{_REMEDY}."
    # By name, and by device and inode: a bind mount or a hard link has other names for the same.
    if _within(plain, other) or _is_reached(plain, other):
        _refuse(path, f"it lies in {what}", remedy)
    if plain != "/" and (_within(other, plain) or _is_reached(other, plain)):
        _refuse(path, f"it contains {what}", remedy)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_reached(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies in it, whatever that is called on the way."""
    wanted = _identity(directory)
    above = (path, *map(str, Path(path).parents))
    return wanted is not None and any(_identity(one) == wanted for one in above)


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

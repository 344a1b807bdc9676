"""A root of one's own: a small tmpfs with what the plan names in it, and nothing else to reach.

Source: mount_namespaces(7), pivot_root(2), mount_setattr(2), Documentation/filesystems/proc.rst.
A mount that came from a more privileged namespace keeps its restrictions whatever is asked here:
attributes are only ever added.
"""

from __future__ import annotations

import ctypes
import os
import stat

from plugin_sdk.lockdown.libc import check, libc
from plugin_sdk.lockdown.pinned import open_pinned

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4_096, 16_384, 1 << 18
_MNT_DETACH = 2

# One number on every architecture: they came after the tables were made one.
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_SIZE = 32

_EMPTY_TMPFS = "size=4k,nr_inodes=1,mode=500"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make_root(plan: dict[str, Any]) -> None:
    """Make the root that the plan describes, enter it, and let go of the old one.

    The mount namespace must be new. All paths are absolute and mean the same inside as outside,
    so that what was imported before still knows where it came from.

    Args:
        plan: ``at`` (an empty directory to build on), ``size``, ``links`` (path, target),
            ``mounts`` (kind, path, flags and options, parents before children), ``cwd``; where
            ``begun`` is true, `begin_root` was called before, and the mounts are the rest.
    """
    at = plan["at"]
    if plan.get("begun"):
        _mount_all(at, plan["mounts"])
    else:
        begin_root(plan)
    _enter(at)
    restrict("/", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, recursive=False)
    os.chdir(plan["cwd"])


def begin_root(plan: dict[str, Any]) -> None:
    """Do of `make_root` what can be done before everything is known: enter nothing yet.

    Args:
        plan: ``at``, ``size``, ``links`` and ``mounts``, as for `make_root`.
    """
    at = plan["at"]
    # The modes of what is made here must not depend on who started the host: a plugin that has a
    # user of its own has to pass these directories.
    os.umask(0o022)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("none", at, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, plan["size"])
    for path, target in plan["links"]:
        os.makedirs(at + os.path.dirname(path), exist_ok=True)
        os.symlink(target, at + path)
    _mount_all(at, plan["mounts"])


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or change one that is mounted (mount(2))."""
    result = libc.mount(
        source.encode() if source is not None else None,
        target.encode(),
        kind.encode() if kind is not None else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    check(result, f"mount {kind or source or 'propagation'} on {target}")


def restrict(path: str, flags: int, *, recursive: bool) -> None:
    """Add attributes to the mount at ``path``, and to those below it if ``recursive``."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd; the MS_ flags used here have
    # the numbers of the MOUNT_ATTR_ ones.
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
    result = libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        path.encode(),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        attributes,
        ctypes.c_size_t(_ATTR_SIZE),
    )
    check(result, f"mount_setattr {path}")


def _mount_all(at: str, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        _mount_entry(at, entry)


def _mount_entry(at: str, entry: dict[str, Any]) -> None:
    kind, path, flags = entry["kind"], entry["path"], entry["flags"]
    target = at + path
    if kind == "bind":
        _bind(path, target, entry["source"])
        restrict(target, flags, recursive=True)
        return
    os.makedirs(target, exist_ok=True)
    if kind == "tmpfs":
        mount("none", target, "tmpfs", flags, entry["data"])
    elif kind == "hidden":
        mount("none", target, "tmpfs", flags, _EMPTY_TMPFS)
    elif kind == "proc":
        # Before the old root is let go: the kernel mounts /proc in a user namespace only where
        # another /proc is in full view.
        mount("proc", target, "proc", flags, entry["data"])
    else:
        text = f"a mount of the unknown kind {kind}"
        raise ValueError(text)


def _bind(path: str, target: str, identity: list[int]) -> None:
    """Bind what is at ``path``, if it is still what the host looked at, and no link leads there."""
    source = open_pinned(path, identity)
    try:
        _make_target(target, stat.S_ISDIR(os.fstat(source).st_mode))
        mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)
    finally:
        os.close(source)


def _make_target(target: str, is_directory: bool) -> None:
    """Make what a bind needs below it, of the source's type, unless a mount brought it along."""
    if os.path.lexists(target):
        return
    if is_directory:
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))


def _enter(at: str) -> None:
    """Make ``at`` the root. The old one is put on top of it and taken off again (pivot_root(2))."""
    os.chdir(at)
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    check(libc.syscall(number, b".", b"."), "pivot_root")
    check(libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")

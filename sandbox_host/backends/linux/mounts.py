"""The plugin's own root as data: what is bound, hidden and new. Nothing is mounted here.

Paths mean the same inside as outside, so that what the interpreter knows of its library stays
true. Parents come before children, so that a later entry can stand in an earlier one. The code of
Python itself must be mappable as code; what a plugin brings or writes must not, unless it was
granted ``native_code``.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from sandbox_host.backends.linux.interpreter import DEVICES, interpreter_paths, is_foreign

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sandbox_host.backends.base import Places

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""Flags of mount(2)."""

_LIBRARY: Final = RDONLY | NOSUID | NODEV
_READ: Final = _LIBRARY | NOEXEC
_WRITE: Final = NOSUID | NODEV | NOEXEC
_DEVICE: Final = RDONLY | NOSUID | NOEXEC

PROC_OPTIONS: Final = "subset=pid,hidepid=ptraceable"
SKELETON: Final = "size=1m,nr_inodes=4096,mode=755"

SCRATCH_INODES: Final = 16_384
"""Files and directories in the scratch directory; each takes about a kilobyte of kernel memory."""

_WORD: Final = {RDONLY: "ro", NOSUID: "nosuid", NODEV: "nodev", NOEXEC: "noexec"}


class Shared(Protocol):
    """Where things are that every plugin of a host has; `Places` says it too."""

    @property
    def python(self) -> Path:
        """The interpreter."""

    @property
    def sdk_dir(self) -> Path:
        """The private copy of what its process imports."""

    @property
    def plugin_environment(self) -> Path | None:
        """What is installed for plugins."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of the plan.

    Attributes:
        kind: "bind", "tmpfs", "hidden" or "proc".
        flags: those of mount(2) that must be set; the kernel may have set more.
        data: options of a new file system.
        source: device and inode of what a bind shows, as the host saw it when it made the plan.
    """

    kind: str
    path: str
    flags: int
    data: str = ""
    source: tuple[int, int] = (0, 0)

    @property
    def words(self) -> frozenset[str]:
        """The flags as ``/proc/<pid>/mountinfo`` calls them."""
        return frozenset(word for flag, word in _WORD.items() if self.flags & flag)


def mounts_for(
    places: Places,
    read: Iterable[str],
    write: Iterable[str] = (),
    sockets: Iterable[str] = (),
    *,
    native_code: bool,
    scratch_bytes: int,
    uid: int | None,
    with_proc: bool,
) -> tuple[Mount, ...]:
    """Return every mount of the plugin's root, parents first.

    Args:
        places: where the plugin's files are.
        read: granted paths, real ones.
        write: the same; what is at or below one can be written, by whatever grant it is there.
        sockets: granted Unix sockets. Connecting takes no writable mount (path_resolution(7)).
        native_code: granted: what the plugin brings and writes may be mapped as code.
        scratch_bytes: size of the scratch file system.
        uid: owner of the scratch file system as the plugin sees it, or None for who mounts it.
        with_proc: /proc can be mounted here.
    """
    code = 0 if native_code else NOEXEC
    found = shared_mounts(places, with_proc=with_proc)
    found.append(Mount("bind", str(places.package_dir), _LIBRARY | code))
    writable = tuple(write)
    found += [Mount("bind", path, _granted(path, writable)) for path in (*read, *writable)]
    found += [Mount("bind", path, _READ) for path in sockets]
    found.append(Mount("bind", str(places.data_dir), NOSUID | NODEV | code))
    owner = "" if uid is None else f",uid={uid},gid={uid}"
    size = f"size={scratch_bytes},nr_inodes={SCRATCH_INODES},mode=700{owner}"
    found.append(Mount("tmpfs", str(places.scratch_dir), NOSUID | NODEV | code, size))
    return _parents_first(found)


def shared_mounts(shared: Shared, *, with_proc: bool) -> list[Mount]:
    """Return what every plugin of a host has in its root.

    Args:
        shared: where it is.
        with_proc: /proc can be mounted here.
    """
    found = list(_library(shared.python))
    found += [Mount("bind", device, _DEVICE) for device in DEVICES if os.path.exists(device)]
    if shared.plugin_environment is not None:
        found.append(Mount("bind", os.path.realpath(shared.plugin_environment), _LIBRARY))
    found.append(Mount("bind", str(shared.sdk_dir), _READ))
    if with_proc:
        found.append(Mount("proc", "/proc", _READ, PROC_OPTIONS))
    return list(_parents_first(found))


def _parents_first(mounts: list[Mount]) -> tuple[Mount, ...]:
    last = {mount.path: mount for mount in mounts}
    return tuple(sorted(last.values(), key=lambda mount: mount.path.count("/")))


def _granted(path: str, writable: tuple[str, ...]) -> int:
    """Return the flags of a granted path. Code is never run from one, ``native_code`` or not."""
    return _WRITE if any(f"{path}/".startswith(f"{one}/") for one in writable) else _READ


def identified(
    mounts: Iterable[Mount], known: Mapping[str, tuple[int, int] | None] | None = None
) -> tuple[Mount, ...]:
    """Return the mounts, each bind with what stands at its path: nothing else may be bound.

    Args:
        mounts: the plan.
        known: device and inode by path, of what was looked at before; the others are, now.

    Raises:
        OSError: nothing stands there.
    """
    found = []
    for mount in mounts:
        if mount.kind == "bind" and known and (source := known.get(mount.path)):
            found.append(replace(mount, source=source))
        elif mount.kind == "bind":
            status = os.lstat(mount.path)
            found.append(replace(mount, source=(status.st_dev, status.st_ino)))
        else:
            found.append(mount)
    return tuple(found)


@functools.cache
def _library(python: Path) -> tuple[Mount, ...]:
    """Return the interpreter's own, which no plugin changes: looked at once in a host's life."""
    bound = [Mount("bind", path, _LIBRARY) for path in interpreter_paths(python).real]
    return (*bound, *_hidden(bound))


def _hidden(bound: list[Mount]) -> list[Mount]:
    """Return a cover for each directory that must not be seen inside one that is bound."""
    paths = {mount.path for mount in bound}
    covers = []
    for mount in bound:
        if not os.path.isdir(mount.path):
            continue
        with os.scandir(mount.path) as entries:
            covers += [
                Mount("hidden", entry.path, _READ)
                for entry in entries
                if is_foreign(entry.name)
                and entry.is_dir(follow_symlinks=False)
                and entry.path not in paths
            ]
    return covers


def links_for(shared: Shared, mounts: Iterable[Mount]) -> list[tuple[str, str]]:
    """Return the symbolic links that lead from a usual path to a mounted one.

    A link is left out where it would stand inside a mount: there it is already.
    """
    mounted = tuple(f"{mount.path}/" for mount in mounts)
    links = interpreter_paths(shared.python).links
    return [(link, target) for link, target in links if not f"{link}/".startswith(mounted)]


def root_plan(places: Places, mounts: Iterable[Mount]) -> dict[str, Any]:
    """Return what `plugin_sdk.lockdown.root.make_root` takes."""
    return {
        # Empty, the plugin's own, and not needed outside: its place inside is another mount.
        "at": str(places.scratch_dir),
        "size": SKELETON,
        "links": [list(pair) for pair in links_for(places, mounts)],
        "mounts": [entry_of(mount) for mount in mounts],
        "cwd": str(places.scratch_dir),
    }


def entry_of(mount: Mount) -> dict[str, Any]:
    """Return a mount as `plugin_sdk.lockdown.root` takes it."""
    return {
        "kind": mount.kind,
        "path": mount.path,
        "flags": mount.flags,
        "data": mount.data,
        "source": list(mount.source),
    }

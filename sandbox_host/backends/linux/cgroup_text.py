"""Parses what the kernel writes about control groups. Pure: nothing here opens a file.

Sources: Documentation/filesystems/proc.rst (``mountinfo``), cgroups(7) (``/proc/<pid>/cgroup``),
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. A line that is not understood is
left out: in a container these files may be made by somebody else than the kernel.

``/proc/<pid>/cgroup`` and the root of a mount are told relative to the control group namespace of
whoever reads them; they agree with each other as long as one process reads both.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_ESCAPE: Final = re.compile(r"\\([0-3][0-7]{2})")
_MOUNT_FIELDS: Final = 6  # before the optional ones, which end at a lone "-"
_SOURCE_FIELDS: Final = 3
_START_TIME: Final = 19  # field 22 of stat, counted from 0 behind the name
_MAX_DIGITS: Final = 20  # of an unsigned 64-bit number


@dataclass(frozen=True, slots=True)
class Mount:
    """A control group hierarchy where it is mounted.

    Attributes:
        device: as `os.stat` numbers the file system.
        root: the control group that the mount shows, as ``/proc/<pid>/cgroup`` would name it.
        point: the directory that shows it.
        kind: the type of the file system: "cgroup" is version 1, "cgroup2" version 2.
        options: of the file system; in version 1, its controllers are among them.
    """

    device: int
    root: str
    point: Path
    kind: Literal["cgroup", "cgroup2"]
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class Membership:
    """A line of ``/proc/<pid>/cgroup``: the control group of a process in one hierarchy.

    Attributes:
        prefix: what stands before the path, such as ``0:`` or ``4:memory``.
        controllers: those of the hierarchy; empty for version 2.
        path: of the group, ``/`` for the root.
    """

    prefix: str
    controllers: frozenset[str]
    path: str

    @property
    def unified(self) -> bool:
        """Whether the hierarchy is that of version 2."""
        return self.prefix == "0:"


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Return the control group mounts of ``/proc/<pid>/mountinfo``, in its order."""
    mounts = (_mount(line.split(" ")) for line in text.split("\n"))
    return tuple(mount for mount in mounts if mount)


def _mount(fields: list[str]) -> Mount | None:
    try:
        behind = fields.index("-", _MOUNT_FIELDS) + 1
        major, minor = (int(number) for number in fields[2].split(":"))
        device = os.makedev(major, minor)
    except (ValueError, OverflowError):
        return None
    kind, point = fields[behind : behind + 1], unescape(fields[4])
    options = fields[behind + 2 : behind + _SOURCE_FIELDS]
    if kind not in (["cgroup"], ["cgroup2"]) or not options or not point.startswith("/"):
        return None
    return Mount(
        device=device,
        root=unescape(fields[3]),
        point=Path(point),
        kind="cgroup2" if kind == ["cgroup2"] else "cgroup",
        options=frozenset(options[0].split(",")),
    )


def unescape(field: str) -> str:
    r"""Return a field of ``mountinfo`` without its octal escapes: ``\040`` is a space."""
    raw = re.sub(_ESCAPE.pattern.encode(), lambda m: bytes([int(m[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)


def parse_membership(text: str) -> tuple[Membership, ...]:
    """Return the lines of ``/proc/<pid>/cgroup``."""
    found: list[Membership] = []
    for line in text.split("\n"):
        number, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if not (first and second and number.isdecimal() and path.startswith("/")):
            continue
        names = frozenset(controllers.split(",")) if controllers else frozenset[str]()
        found.append(Membership(f"{number}:{controllers}", names, path))
    return tuple(found)


def directory_of(mount: Mount, path: str) -> Path | None:
    """Return the directory in which a mount shows a control group, or None where it does not.

    Args:
        mount: the mount.
        path: the control group, as ``/proc/<pid>/cgroup`` names it.
    """
    root = mount.root.rstrip("/")
    if path != root and not path.startswith(f"{root}/"):
        return None
    parts = [part for part in path[len(root) :].split("/") if part]
    # Beyond the namespace's root the kernel writes "/..": no directory of this mount.
    return None if ".." in parts else mount.point.joinpath(*parts)


def path_of(mount: Mount, directory: Path) -> str:
    """Return the control group that a directory below a mount shows: `directory_of` backwards.

    Raises:
        ValueError: the directory is not below the mount.
    """
    inner = directory.relative_to(mount.point).as_posix()
    root = mount.root.rstrip("/")
    return (root or "/") if inner == "." else f"{root}/{inner}"


def parse_counters(text: str) -> dict[str, int]:
    """Parse the ``name number`` lines of ``memory.events`` and ``memory.oom_control``."""
    pairs = (line.partition(" ") for line in text.split("\n"))
    return {name: int(value) for name, _, value in pairs if name and _is_number(value)}


def parse_limit(text: str) -> int | None:
    """Parse a limit; None means that there is none (``max``).

    Raises:
        ValueError: neither ``max`` nor a number.
    """
    value = text.strip()
    if value == "max":
        return None
    if not _is_number(value):
        detail = f"expected a number or max, got {value[:40]!r}"
        raise ValueError(detail)
    return int(value)


def parse_start_time(stat: str) -> int:
    """Return when a process started, in clock ticks since boot, from ``/proc/<pid>/stat``.

    Together with the pid it names a process: pids are used again.

    Raises:
        ValueError: the text is cut off.
    """
    fields = stat[stat.rindex(")") + 2 :].split()
    if len(fields) <= _START_TIME:
        detail = "the text of stat is cut off"
        raise ValueError(detail)
    return int(fields[_START_TIME])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS

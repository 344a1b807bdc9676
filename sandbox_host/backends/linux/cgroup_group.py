"""One control group for one plugin, in one hierarchy or in several: what both versions share."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.base import OutOfMemory
from sandbox_host.backends.linux import cgroup_directory, cgroup_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sandbox_host.backends.linux.cgroup_directory import Place

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
DEFAULT_WEIGHT: Final = 100
"""The CPU weight of what nobody gave one, in both versions."""

_NAME: Final = re.compile(r"[a-z0-9_@-]{1,192}")


def directory_name(name: str) -> str:
    """Return the name of a group's directory.

    The prefix keeps a plugin named ``tasks`` from meeting the kernel's file of that name.

    Raises:
        ValueError: the name has other characters than ``a-z``, ``0-9``, ``_`` and ``-``, or more
            than 128.
    """
    if not _NAME.fullmatch(name):
        detail = f"not a name for a control group: {name[:40]!r}"
        raise ValueError(detail)
    return f"sandbox-{name}"


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What all processes of a group use together, those that have ended included for the time.

    Attributes:
        cpu_seconds: since the group was made; behind by a tick of the kernel's at most.
        memory_bytes: that no file stands behind, each page once however many share it.
        tasks: processes and threads, also those that have ended and nobody has waited for.
    """

    cpu_seconds: float
    memory_bytes: int
    tasks: int


class Group:
    """A control group. Versions differ in the files, which the classes derived from this know.

    Attributes:
        name: as it was asked for.
        paths: its directories, one for each hierarchy.
        lines: what ``/proc/<pid>/cgroup`` has for a member, as the host reads it.
    """

    def __init__(
        self,
        name: str,
        places: Sequence[tuple[Place, Path]],
        optional: Collection[Path] = frozenset(),
    ) -> None:
        """Make the group's directories.

        Args:
            name: the host's own word.
            places: each hierarchy, and the host's directory in it.
            optional: those of the host's directories that processes need not get into.

        Raises:
            OSError: one cannot be made; none is left then.
            ValueError: not a name for a control group.
        """
        self.name = name
        directory = directory_name(name)
        self.paths = tuple(own / directory for _, own in places)
        pairs = zip(places, self.paths, strict=True)
        self.lines = tuple(place.line(path) for (place, _), path in pairs)
        self._optional = frozenset(own / directory for own in optional)
        self._left_out: set[Path] = set()
        made: list[Path] = []
        try:
            for path in self.paths:
                path.mkdir()
                made.append(path)
        except OSError:
            for path in made:
                cgroup_directory.remove(path, 0.0)
            raise

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, into the group.

        Its children that exist already stay where they are: add it before it forks.

        Args:
            pid: as the host sees it. A process that the host has not reaped, or the number may be
                another's by now.

        Raises:
            OSError: the process is gone, or the kernel refuses.
            ValueError: not a pid; 0 would mean the host itself.
        """
        if pid <= 0:
            detail = f"not a pid: {pid}"
            raise ValueError(detail)
        for path, line in zip(self.paths, self.lines, strict=True):
            try:
                cgroup_directory.write(path / "cgroup.procs", str(pid))
            except OSError:
                if path not in self._optional:
                    raise
                self._left_out.add(path)
                self.lines = tuple(other for other in self.lines if other != line)

    def ways_in(self) -> list[tuple[str, bool]]:
        """Return the files by which a process enters by itself, and whether one need not get in.

        None where the kernel has no cheaper way for that than `add`.
        """
        return []

    def entered(self, refused: Collection[str]) -> None:
        """Note what a process that has entered by `ways_in`, once, says that it was refused.

        Only what it need not get into: the others are looked for in its membership.
        """
        for path, line in tuple(zip(self.paths, self.lines, strict=True)):
            if path in self._optional and str(path / "tasks") in refused:
                self._left_out.add(path)
                self.lines = tuple(other for other in self.lines if other != line)

    def is_member(self, membership: str) -> bool:
        """Tell from the text of ``/proc/<pid>/cgroup`` whether a process is in the group. Pure.

        Args:
            membership: what `read_membership` of the process returned.
        """
        return set(self.lines) <= set(membership.split("\n"))

    def at_memory_limit(self) -> bool:
        """Tell whether a process is held at the group's limit; False where the kernel kills."""
        return False

    def reserve(self) -> None:
        """Get ready for `loosen`, where the kernel holds. Never raises."""

    def loosen(self, size: int) -> None:
        """Let a process that is held have a little more, where the kernel holds. Never raises."""

    def cpu_seconds(self) -> float | None:
        """Return `GroupUsage.cpu_seconds`; None where the kernel does not tell. Never raises."""
        return None

    def usage(self) -> GroupUsage | None:
        """Return what its processes use; None where the kernel does not tell it. Never raises."""
        return None

    def processes(self) -> list[int]:
        """Return its processes, as the host numbers them; none where it is gone. Never raises."""
        with suppress(OSError):
            listed = cgroup_directory.read(self.paths[0] / "cgroup.procs").split()
            return [pid for pid in map(int, listed) if pid > 0]
        return []

    def out_of_memory(self) -> OutOfMemory:
        """Tell whether the kernel ended a process of the group for want of memory. Never raises."""
        return OutOfMemory.NO

    def remove(self, timeout: float = 1.0) -> bool:
        """Remove the group; all its processes must have been ended. Never raises.

        Args:
            timeout: seconds to wait at most in each hierarchy, while the kernel still takes the
                last process away.

        Returns:
            Whether nothing is left.
        """
        gone = [cgroup_directory.remove(path, timeout) for path in self.paths]
        return all(gone)


def read_membership(pid: int) -> str:
    """Return the text of ``/proc/<pid>/cgroup``.

    Raises:
        OSError: the process is gone.
    """
    return cgroup_directory.read(Path(f"/proc/{pid}/cgroup"))


def limit(path: Path, value: int, slack: int = 0) -> None:
    """Set a limit and read it back.

    Args:
        path: the kernel's file.
        value: what is asked.
        slack: by how much the kernel's rounding may exceed it.

    Raises:
        OSError: the kernel refuses it, or what is in force is more than was asked.
    """
    cgroup_directory.write(path, str(value))
    found = read_limit(path)
    if found is None or found > value + slack:
        text = f"asked for {value}, and the kernel says {'max' if found is None else found}"
        raise OSError(errno.ERANGE, text, str(path))


def set_weight(path: Path, value: int) -> None:
    """Set a share of the CPU and see that it is in force.

    Raises:
        OSError: the kernel refuses it, or another one is in force.
    """
    cgroup_directory.write(path, str(value))
    found = read_limit(path)
    if found != value:
        text = f"asked for {value}, and the kernel says {found}"
        raise OSError(errno.ERANGE, text, str(path))


def read_limit(path: Path) -> int | None:
    """Return the limit in force; None means that there is none.

    Raises:
        OSError: the file cannot be read or holds no limit.
    """
    text = cgroup_directory.read(path)
    try:
        return cgroup_text.parse_limit(text)
    except ValueError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


def read_number(path: Path) -> int | None:
    """Return the number that a file of the kernel's holds; None where it holds none, or is gone."""
    with suppress(OSError, ValueError):
        return int(cgroup_directory.read(path))
    return None


def read_counters(path: Path) -> dict[str, int]:
    """Return the counters of a group that the kernel tells; none where it is gone."""
    with suppress(OSError):
        return cgroup_text.parse_counters(cgroup_directory.read(path))
    return {}

"""Control groups, version 1: a hierarchy for each controller, all written below the host's own.

Source: Documentation/admin-guide/cgroup-v1/memory.rst and pids.rst, Documentation/scheduler/
sched-design-CFS.rst. The host itself stays where it is: in version 1 a group may have processes
and groups in it at once.

A process that needs more memory than its group may have is *held* here, not killed: it waits in its
page fault until there is more, so that whoever ends it can ask it first where it stands ("OOM
Control" in memory.rst). Only a page fault is held; a system call that would need more fails, with
ENOMEM or EFAULT.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.base import OutOfMemory
from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup_directory import OwnDirectory
from sandbox_host.backends.linux.cgroup_group import (
    DEFAULT_WEIGHT,
    PAGE_BYTES,
    Group,
    GroupUsage,
    limit,
    read_counters,
    read_limit,
    read_number,
    set_weight,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from sandbox_host.backends.linux.cgroup_directory import Place

KIND: Final = "v1"
MAX_SLACK_BYTES: Final = 4 * 1024 * 1024
"""How much more than its limit a group ever gets; a dump of all stacks needs some pages of it."""

_MEMORY: Final = "memory.limit_in_bytes"
_MEMORY_USED: Final = "memory.usage_in_bytes"
_MEMORY_PEAK: Final = "memory.max_usage_in_bytes"
_MEMORY_AND_SWAP: Final = "memory.memsw.limit_in_bytes"
_MEMORY_AND_SWAP_PEAK: Final = "memory.memsw.max_usage_in_bytes"
_OOM: Final = "memory.oom_control"
_OOM_BYTES: Final = 128
_HELD: Final = b"under_oom 1"
_TASKS: Final = "pids.max"
_SHARES: Final = "cpu.shares"
_SHARES_OF_DEFAULT: Final = 1_024  # sched_prio_to_weight of nice 0, kernel/sched/core.c
_ACCOUNTING: Final = "cpuacct"
_NEAR_BYTES: Final = 2 * 1024 * 1024  # what did not fit may have been a huge page


class GroupV1(Group):
    """A plugin's group in the hierarchies of version 1.

    Attributes:
        weight_file: what the CPU weight is told by.
    """

    weight_file: Final = f"cgroup {KIND}, {_SHARES}"

    def __init__(
        self,
        name: str,
        owns: Mapping[str, tuple[Place, Path]],
        optional: Collection[str] = frozenset(),
    ) -> None:
        """Make the directories; see `Group`.

        Args:
            name: the host's own word.
            owns: by controller, its hierarchy and the host's directory there. Controllers that
                are mounted together have the same.
            optional: controllers that processes need not get into.
        """
        demanded = {own for controller, (_, own) in owns.items() if controller not in optional}
        places = {own: (place, own) for place, own in owns.values()}
        super().__init__(name, list(places.values()), places.keys() - demanded)
        self._by_controller = {
            controller: next(path for path in self.paths if path.parent == own)
            for controller, (_, own) in owns.items()
        }
        self._lock = threading.Lock()
        self._oom: int | None = None
        self._slack = MAX_SLACK_BYTES
        self._has_reserve = False

    def set_limits(self, memory_bytes: int, tasks: int, cpu_weight: int = DEFAULT_WEIGHT) -> None:
        """Set the limits of the controllers that are there, and read them back.

        Raises:
            OSError: the kernel refuses one, or what is in force is more than was asked.
        """
        if memory := self._by_controller.get("memory"):
            limit(memory / _MEMORY, memory_bytes, PAGE_BYTES)
            # Not there where the kernel does not account for swap. The sum may not be set first:
            # it must never be less than the memory.
            if (memory / _MEMORY_AND_SWAP).exists():
                limit(memory / _MEMORY_AND_SWAP, memory_bytes, PAGE_BYTES)
            self._hold(memory / _OOM)
        if pids := self._by_controller.get("pids"):
            limit(pids / _TASKS, tasks)
        if cpu := self._by_controller.get("cpu"):
            set_weight(cpu / _SHARES, shares_of(cpu_weight))

    def ways_in(self) -> list[tuple[str, bool]]:
        """Return the file ``tasks`` of each hierarchy; see `Group.ways_in`."""
        return [(str(path / "tasks"), path in self._optional) for path in self.paths]

    def _hold(self, path: Path) -> None:
        # A kernel that has no more of this kills instead, which bounds a plugin as well. The file
        # stays open, to be read at every look of the watchdog: what nobody sees must not be held.
        with suppress(OSError):
            self._oom = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(self._oom, b"1")
            except OSError:
                self._forget()

    def _forget(self) -> None:
        if self._oom is not None:
            with suppress(OSError):  # the application has closed it
                os.close(self._oom)
            self._oom = None

    def limits(self) -> dict[str, int]:
        """Return what is in force, read now; see `sandbox_host.backends.linux.cgroup.Cgroup`.

        One that the kernel does not enforce is left out.

        Raises:
            OSError: the group is gone.
        """
        found: dict[str, int | None] = {}
        if memory := self._by_controller.get("memory"):
            found["memory_bytes"] = held = read_limit(memory / _MEMORY)
            if held is not None and (memory / _MEMORY_AND_SWAP).exists():
                both = read_limit(memory / _MEMORY_AND_SWAP)
                found["swap_bytes"] = None if both is None else both - held
        if pids := self._by_controller.get("pids"):
            found["tasks"] = read_limit(pids / _TASKS)
        cpu = self._by_controller.get("cpu")
        if cpu and cpu not in self._left_out:
            shares = read_limit(cpu / _SHARES)
            found["cpu_weight"] = None if shares is None else weight_of(shares)
        return {name: value for name, value in found.items() if value is not None}

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of all its processes; see `Group.cpu_seconds`."""
        directory = self._by_controller.get(_ACCOUNTING)
        if directory is None or directory in self._left_out:
            return None
        used = read_number(directory / "cpuacct.usage")
        return None if used is None else used / 1e9

    def usage(self) -> GroupUsage | None:
        """Return what its processes use; see `Group.usage`."""
        memory, pids = self._by_controller.get("memory"), self._by_controller.get("pids")
        cpu = self.cpu_seconds()
        if memory is None or pids is None or cpu is None:
            return None
        held = read_counters(memory / "memory.stat").get("total_rss")
        tasks = read_number(pids / "pids.current")
        return None if held is None or tasks is None else GroupUsage(cpu, held, tasks)

    def at_memory_limit(self) -> bool:
        """Tell whether a process is held at the group's own limit, in about 1.5 µs. Never raises.

        A group is also told to be short when one above it is; that is not its own limit.
        """
        with self._lock:
            if self._oom is None:
                return False
            try:
                if _HELD not in os.pread(self._oom, _OOM_BYTES, 0):
                    return False
                memory = self._by_controller["memory"]
                held, used = read_limit(memory / _MEMORY), read_limit(memory / _MEMORY_USED)
            except OSError:
                return False
        return held is not None and used is not None and used + _NEAR_BYTES >= held

    def reserve(self) -> None:
        """Get ready for `loosen`, so that it takes one step. Never raises.

        Memory and swap together must be allowed more first. That wakes what is held, and gives it
        nothing: it is held again.
        """
        with self._lock:
            self._reserve()

    def _reserve(self) -> None:
        memory = self._by_controller.get("memory")
        if memory is None or self._oom is None or self._has_reserve:
            return
        self._has_reserve = True
        if (memory / _MEMORY_AND_SWAP).exists():
            _raise(memory / _MEMORY_AND_SWAP, MAX_SLACK_BYTES)

    def loosen(self, size: int) -> None:
        """Let what is held have ``size`` bytes more, in all up to `MAX_SLACK_BYTES`. Never raises.

        It goes on at once, until that is used up as well.
        """
        memory = self._by_controller.get("memory")
        with self._lock:
            size = max(0, min(size, self._slack))
            self._slack -= size
            if memory is not None and self._oom is not None and size:
                self._reserve()
                _raise(memory / _MEMORY, size)

    def out_of_memory(self) -> OutOfMemory:
        """Tell whether the kernel ended a process of the group for want of memory.

        ``oom_kill`` also counts what was chosen because the machine, or a group above, was short.
        A group that holds never kills, so it was that. Else it was that only if the group never
        came near its limit; ``failcnt`` proves nothing, as page cache that is reclaimed counts
        too, and some kernels leave it at 0. `NO` also where the kernel does not tell: before Linux
        4.13, or when the group is gone.
        """
        memory = self._by_controller.get("memory")
        told = read_counters(memory / _OOM) if memory else {}
        if memory is None or not told.get("oom_kill"):
            return OutOfMemory.NO
        if told.get("oom_kill_disable") or not _came_near(memory):
            return OutOfMemory.ABOVE
        return OutOfMemory.UNTOLD

    def kill(self) -> bool:
        """Version 1 has no order to end a group: returns False, and does nothing."""
        return False

    def remove(self, timeout: float = 1.0) -> bool:
        """Remove the group; see `Group.remove`."""
        with self._lock:
            self._forget()
        return super().remove(timeout)


def _raise(path: Path, size: int) -> None:
    with suppress(OSError):
        if (held := read_limit(path)) is not None:
            cgroup_directory.write(path, str(held + size))


def _came_near(memory: Path) -> bool:
    with suppress(OSError):
        for limits, peaks in ((_MEMORY, _MEMORY_PEAK), (_MEMORY_AND_SWAP, _MEMORY_AND_SWAP_PEAK)):
            if (memory / limits).exists():
                held, peak = read_limit(memory / limits), read_limit(memory / peaks)
                if held is not None and peak is not None and peak + _NEAR_BYTES >= held:
                    return True
        return False
    return True


def shares_of(weight: int) -> int:
    """Return version 1's number for a weight, of which 100 is an ordinary process's."""
    return round(weight * _SHARES_OF_DEFAULT / DEFAULT_WEIGHT)


def weight_of(shares: int) -> int:
    """Return the weight of a number of version 1's: `shares_of` backwards."""
    return round(shares * DEFAULT_WEIGHT / _SHARES_OF_DEFAULT)


class CgroupsV1:
    """The groups of one host in the hierarchies of version 1.

    Attributes:
        kind: "v1".
        detail: for a person, which controllers below which group.
    """

    kind: Final = KIND

    def __init__(
        self, places: Mapping[str, Place], optional: Mapping[str, Place] | None = None
    ) -> None:
        """Make the host's own directory in each hierarchy, and try a group with limits in them.

        Args:
            places: by controller, the group below which the host makes its own.
            optional: the same of controllers that are used where that can be done.

        Raises:
            OSError: one is not writable, or its limits cannot be set; nothing is left then.
        """
        self._directories: dict[Path, OwnDirectory] = {}
        self._owns: dict[str, tuple[Place, Path]] = {}
        self._optional: set[str] = set()
        try:
            for controller, place in places.items():
                self._own(controller, place)
            for controller, place in (optional or {}).items():
                with suppress(OSError):
                    self._own(controller, place)
                    self._optional.add(controller)
            self.create("trial", 16 * PAGE_BYTES, 1).remove()
        except OSError:
            self.close()
            raise
        by_path: dict[str, list[str]] = {}
        for controller, (place, own) in self._owns.items():
            by_path.setdefault(place.path(own), []).append(controller)
        told = (f"{', '.join(names)} below {path}" for path, names in by_path.items())
        self.detail = f"{KIND}: {'; '.join(told)}"

    def _own(self, controller: str, place: Place) -> None:
        if place.directory not in self._directories:
            self._directories[place.directory] = OwnDirectory(place.directory)
        self._owns[controller] = (place, self._directories[place.directory].path)

    def create(
        self,
        name: str,
        memory_bytes: int,
        tasks: int,
        cpu_weight: int = DEFAULT_WEIGHT,
        *,
        processes: bool = False,
    ) -> GroupV1:
        """Make a group with its limits; see `sandbox_host.backends.linux.cgroup.Cgroups`."""
        owns = self._owns
        if not processes:
            # One process has a clock of its own: a hierarchy less to make and to leave.
            owns = {name: own for name, own in owns.items() if name != _ACCOUNTING}
        group = GroupV1(name, owns, self._optional)
        try:
            group.set_limits(memory_bytes, tasks, cpu_weight)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> bool:
        """Remove the host's own directories; False where something is left. Never raises."""
        gone = [directory.close() for directory in self._directories.values()]
        return all(gone)

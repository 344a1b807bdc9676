"""Control groups, version 2: one hierarchy, below a group that is delegated to the host.

Source: Documentation/admin-guide/cgroup-v2.rst. Its "no internal processes" rule: a group other
than the root can hand out memory to the groups in it only while no process is in the group itself.
Where that is the host's own group and the host is alone in it, it steps aside, into a leaf ``host``
below, and back when it closes. It moves nobody else.

A process that needs more memory than its group may have is killed: version 2 cannot hold it.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.base import OutOfMemory
from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup_directory import OwnDirectory, UnusableError
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
    from collections.abc import Collection
    from pathlib import Path

    from sandbox_host.backends.linux.cgroup_directory import Place

KIND: Final = "v2"
_LEAF: Final = "host"
_PROCESSES: Final = "cgroup.procs"
_HANDED_OUT: Final = "cgroup.subtree_control"
_MEMORY: Final = "memory.max"
_SWAP: Final = "memory.swap.max"
_TASKS: Final = "pids.max"
_WEIGHT: Final = "cpu.weight"
_MAX_TOLD: Final = 5


class GroupV2(Group):
    """A plugin's group in the hierarchy of version 2.

    Attributes:
        weight_file: what the CPU weight is told by.
    """

    weight_file: Final = f"cgroup {KIND}, {_WEIGHT}"

    def __init__(self, name: str, place: Place, own: Path, controllers: Collection[str]) -> None:
        """Make the directory; see `Group`."""
        super().__init__(name, [(place, own)])
        self._path = self.paths[0]
        self._controllers = frozenset(controllers)

    def set_limits(self, memory_bytes: int, tasks: int, cpu_weight: int = DEFAULT_WEIGHT) -> None:
        """Set the limits of the controllers that are there, and read them back.

        Raises:
            OSError: the kernel refuses one, or what is in force is more than was asked.
        """
        if "memory" in self._controllers:
            limit(self._path / _MEMORY, memory_bytes, PAGE_BYTES)
            # Not there where the kernel does not account for swap.
            if (self._path / _SWAP).exists():
                limit(self._path / _SWAP, 0)
            group_kill = self._path / "memory.oom.group"
            if group_kill.exists():
                cgroup_directory.write(group_kill, "1")
        if "pids" in self._controllers:
            limit(self._path / _TASKS, tasks)
        if "cpu" in self._controllers:
            set_weight(self._path / _WEIGHT, cpu_weight)

    def limits(self) -> dict[str, int]:
        """Return what is in force, read now; see `sandbox_host.backends.linux.cgroup.Cgroup`.

        One that the kernel does not enforce is left out.

        Raises:
            OSError: the group is gone.
        """
        found: dict[str, int | None] = {}
        if "memory" in self._controllers:
            found["memory_bytes"] = read_limit(self._path / _MEMORY)
            if (self._path / _SWAP).exists():
                found["swap_bytes"] = read_limit(self._path / _SWAP)
        if "pids" in self._controllers:
            found["tasks"] = read_limit(self._path / _TASKS)
        if "cpu" in self._controllers:
            found["cpu_weight"] = read_limit(self._path / _WEIGHT)
        return {name: value for name, value in found.items() if value is not None}

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of all its processes; see `Group.cpu_seconds`.

        ``cpu.stat`` has it in every group, also without the controller cpu.
        """
        used = read_counters(self._path / "cpu.stat").get("usage_usec")
        return None if used is None else used / 1e6

    def usage(self) -> GroupUsage | None:
        """Return what its processes use; see `Group.usage`."""
        cpu, tasks = self.cpu_seconds(), read_number(self._path / "pids.current")
        memory = read_counters(self._path / "memory.stat").get("anon")
        if cpu is None or memory is None or tasks is None:
            return None
        return GroupUsage(cpu, memory, tasks)

    def out_of_memory(self) -> OutOfMemory:
        """Tell whether the kernel ended a process of the group for want of memory.

        ``oom_kill`` counts what any shortage killed, and ``oom`` only this group's own: nothing is
        below the group, and what is above does not count here. `NO` also where the kernel does not
        tell, as when the group is gone.
        """
        told = read_counters(self._path / "memory.events")
        if not told.get("oom_kill"):
            return OutOfMemory.NO
        return OutOfMemory.OWN_LIMIT if told.get("oom") else OutOfMemory.ABOVE

    def kill(self) -> bool:
        """End every process in the group by one order to the kernel (Linux 5.14). Never raises.

        Returns:
            Whether the kernel took the order.
        """
        try:
            cgroup_directory.write(self._path / "cgroup.kill", "1")
        except OSError:
            return False
        return True


class CgroupsV2:
    """The groups of one host in the hierarchy of version 2.

    Attributes:
        kind: "v2".
        detail: for a person, which controllers below which group, and whether the host moved.
    """

    kind: Final = KIND

    def __init__(
        self, place: Place, controllers: Collection[str], optional: Collection[str] = ()
    ) -> None:
        """Make the host's own directory, and try a group with limits in it.

        Args:
            place: the group below which the host makes its own.
            controllers: what the groups must have.
            optional: what they get where it can be handed out to them.

        Raises:
            OSError: it is not writable, or limits cannot be set; nothing is left then.
            UnusableError: it lacks controllers, or processes live in it.
        """
        base = place.directory
        _demand(base, controllers)
        self._place, self._controllers = place, tuple(controllers)
        self._aside: _Aside | None = None
        self._directory: OwnDirectory | None = None
        try:
            self._directory = OwnDirectory(base)
            self._aside = _hand_out_from(base, self._controllers, optional)
            _hand_out(self._directory.path, self._controllers, optional)
            given = cgroup_directory.read(self._directory.path / _HANDED_OUT).split()
            self._controllers += tuple(name for name in optional if name in given)
            self.create("trial", 16 * PAGE_BYTES, 1).remove()
        except (OSError, UnusableError):
            self.close()
            raise
        moved = f"; the host moved itself to {place.path(base / _LEAF)}" if self._aside else ""
        below = place.path(self._directory.path)
        self.detail = f"{KIND}: {', '.join(self._controllers)} below {below}{moved}"

    def create(
        self,
        name: str,
        memory_bytes: int,
        tasks: int,
        cpu_weight: int = DEFAULT_WEIGHT,
        *,
        processes: bool = False,
    ) -> GroupV2:
        """Make a group with its limits; see `sandbox_host.backends.linux.cgroup.Cgroups`."""
        del processes  # every group of this version counts for all of them
        if self._directory is None:
            raise OSError(errno.ENOENT, "the control groups are closed", name)
        group = GroupV2(name, self._place, self._directory.path, self._controllers)
        try:
            group.set_limits(memory_bytes, tasks, cpu_weight)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> bool:
        """Remove the host's own directory and move the host back. Never raises.

        Returns:
            Whether nothing is left.
        """
        directory, self._directory = self._directory, None
        aside, self._aside = self._aside, None
        gone = directory is None or directory.close()
        back = aside is None or aside.release()
        return gone and back


def _demand(base: Path, controllers: Collection[str]) -> None:
    there = cgroup_directory.read(base / "cgroup.controllers").split()
    lacking = [name for name in controllers if name not in there]
    if lacking:
        offered = ", ".join(there) or "no controller"
        text = f"{base} offers {offered}, but not {', '.join(lacking)}"
        raise UnusableError(text)


def _hand_out(
    base: Path, controllers: Collection[str], optional: Collection[str]
) -> tuple[str, ...]:
    """Hand controllers out to the groups in ``base``, and return those that were not before."""
    before = cgroup_directory.read(base / _HANDED_OUT).split()
    lacking = tuple(name for name in controllers if name not in before)
    if lacking:
        cgroup_directory.write(base / _HANDED_OUT, " ".join(f"+{name}" for name in lacking))
    for name in (name for name in optional if name not in before):
        # Not offered here; or real-time processes are about, which no group may have then.
        with suppress(OSError):
            cgroup_directory.write(base / _HANDED_OUT, f"+{name}")
            lacking += (name,)
    return lacking


def _hand_out_from(
    base: Path, controllers: Collection[str], optional: Collection[str]
) -> _Aside | None:
    with _lock:
        aside = _asides.get(base)
        if aside is None:
            try:
                _hand_out(base, controllers, optional)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                return None
            aside = _step_aside(base, controllers, optional)
            _asides[base] = aside
        else:
            _hand_out(base, controllers, optional)
        aside.users += 1
        return aside


@dataclass(slots=True)
class _Aside:
    """That this process went into the leaf of ``base``; shared by all its hosts there."""

    base: Path
    handed_out: tuple[str, ...]
    users: int = 0

    def release(self) -> bool:
        """Go back, when the last host of this process closes."""
        with _lock:
            self.users -= 1
            if self.users:
                return True
            del _asides[self.base]
            return _go_back(self.base, self.handed_out)


_lock = threading.Lock()
_asides: dict[Path, _Aside] = {}


def home(directory: Path) -> Path:
    """Return the group that a host started in: the one above the leaf it went into, or itself."""
    with _lock:
        if directory.name == _LEAF and directory.parent in _asides:
            return directory.parent
    return directory


def _step_aside(base: Path, controllers: Collection[str], optional: Collection[str]) -> _Aside:
    own = str(os.getpid())
    members = cgroup_directory.read(base / _PROCESSES).split()
    others = [pid for pid in members if pid != own]
    if others or not members:
        raise UnusableError(*_others(base, others))
    leaf = base / _LEAF
    leaf.mkdir(exist_ok=True)
    try:
        cgroup_directory.write(leaf / _PROCESSES, own)
        return _Aside(base, _hand_out(base, controllers, optional))
    except OSError:
        _go_back(base, ())
        raise


def _others(base: Path, others: list[str]) -> tuple[str, str]:
    # A process of another pid namespace is listed as 0.
    pids = ", ".join(pid if pid != "0" else "unseen" for pid in others[:_MAX_TOLD])
    more = ", ..." if len(others) > _MAX_TOLD else ""
    who = f"processes other than the host live in it (pid {pids}{more})" if others else "it is busy"
    reason = f"{base} cannot hand out its controllers: {who}"
    remedy = (
        "Start the host as the only process of its unit or scope, without a shell or another "
        "program in front of it, or name an empty control group that is delegated to it."
    )
    return reason, remedy


def _go_back(base: Path, handed_out: Collection[str]) -> bool:
    with suppress(OSError):
        if handed_out:
            cgroup_directory.write(base / _HANDED_OUT, " ".join(f"-{name}" for name in handed_out))
    try:
        cgroup_directory.write(base / _PROCESSES, str(os.getpid()))
    except OSError:
        return False
    return cgroup_directory.remove(base / _LEAF, 0.0)

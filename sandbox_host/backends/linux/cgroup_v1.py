"""Control groups, version 1: a hierarchy for each controller, all written below the host's own.

Source: Documentation/admin-guide/cgroup-v1/memory.rst and pids.rst. The host itself stays where it
is: in version 1 a group may have processes and groups in it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux.cgroup_directory import OwnDirectory
from sandbox_host.backends.linux.cgroup_group import (
    PAGE_BYTES,
    Group,
    limit,
    read_counter,
    read_limit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox_host.backends.linux.cgroup_directory import Place

KIND: Final = "v1"
_MEMORY: Final = "memory.limit_in_bytes"
_MEMORY_AND_SWAP: Final = "memory.memsw.limit_in_bytes"
_OOM: Final = "memory.oom_control"
_TASKS: Final = "pids.max"


class GroupV1(Group):
    """A plugin's group in the hierarchies of version 1."""

    def __init__(self, name: str, owns: Mapping[str, tuple[Place, Path]]) -> None:
        """Make the directories; see `Group`.

        Args:
            name: the host's own word.
            owns: by controller, its hierarchy and the host's directory there. Controllers that
                are mounted together have the same.
        """
        super().__init__(name, list({own: (place, own) for place, own in owns.values()}.values()))
        self._by_controller = {
            controller: next(path for path in self.paths if path.parent == own)
            for controller, (_, own) in owns.items()
        }

    def set_limits(self, memory_bytes: int, tasks: int) -> None:
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
        if pids := self._by_controller.get("pids"):
            limit(pids / _TASKS, tasks)

    def limits(self) -> dict[str, int]:
        """Return the limits in force, read now: ``memory_bytes``, ``swap_bytes`` and ``tasks``.

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
        return {name: value for name, value in found.items() if value is not None}

    def out_of_memory(self) -> bool:
        """Whether the kernel ended a process of the group for its memory.

        False also where the kernel does not tell: before Linux 4.13, or when the group is gone.
        """
        memory = self._by_controller.get("memory")
        return memory is not None and read_counter(memory / _OOM, "oom_kill") > 0

    def kill(self) -> bool:
        """Version 1 has no order to end a group: returns False, and does nothing."""
        return False


class CgroupsV1:
    """The groups of one host in the hierarchies of version 1.

    Attributes:
        kind: "v1".
        detail: for a person, which controllers below which group.
    """

    kind: Final = KIND

    def __init__(self, places: Mapping[str, Place]) -> None:
        """Make the host's own directory in each hierarchy, and try a group with limits in them.

        Args:
            places: by controller, the group below which the host makes its own.

        Raises:
            OSError: one is not writable, or its limits cannot be set; nothing is left then.
        """
        self._directories: dict[Path, OwnDirectory] = {}
        self._owns: dict[str, tuple[Place, Path]] = {}
        try:
            for controller, place in places.items():
                if place.directory not in self._directories:
                    self._directories[place.directory] = OwnDirectory(place.directory)
                self._owns[controller] = (place, self._directories[place.directory].path)
            self.create("trial", 16 * PAGE_BYTES, 1).remove()
        except OSError:
            self.close()
            raise
        by_path: dict[str, list[str]] = {}
        for controller, (place, own) in self._owns.items():
            by_path.setdefault(place.path(own), []).append(controller)
        told = (f"{', '.join(names)} below {path}" for path, names in by_path.items())
        self.detail = f"{KIND}: {'; '.join(told)}"

    def create(self, name: str, memory_bytes: int, tasks: int) -> GroupV1:
        """Make a group with its limits; see `sandbox_host.backends.linux.cgroup.Cgroups`."""
        group = GroupV1(name, self._owns)
        try:
            group.set_limits(memory_bytes, tasks)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> bool:
        """Remove the host's own directories; False where something is left. Never raises."""
        gone = [directory.close() for directory in self._directories.values()]
        return all(gone)

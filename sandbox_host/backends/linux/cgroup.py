"""Finds the control groups that bound a plugin's memory and tasks, whatever it forks.

Version 2 comes first, where it is delegated to the host; then version 1, where it is writable. What
is found was tried: a group was made, its limits set and read back, and it was removed again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from sandbox_host.backends.linux import cgroup_directory, cgroup_text, cgroup_v2
from sandbox_host.backends.linux.cgroup_directory import Place, UnusableError
from sandbox_host.backends.linux.cgroup_group import DEFAULT_WEIGHT
from sandbox_host.backends.linux.cgroup_v1 import CgroupsV1
from sandbox_host.backends.linux.cgroup_v2 import CgroupsV2

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sandbox_host.backends.base import OutOfMemory
    from sandbox_host.backends.linux.cgroup_group import GroupUsage
    from sandbox_host.backends.linux.cgroup_text import Membership, Mount

CONTROLLERS: Final = ("memory", "pids")
"""What a group must bound."""

OPTIONAL: Final = ("cpu",)
"""What is used where it is there."""

ACCOUNTING: Final = ("cpuacct",)
"""The same of version 1 alone: version 2 counts CPU time without a controller."""

_MAX_MOUNTINFO_BYTES: Final = 4 * 1024 * 1024  # a machine full of containers has thousands
_REMEDY: Final = (
    "Run the host in a systemd unit with Delegate=yes, or by `systemd-run --user --scope -p "
    "Delegate=yes COMMAND`; in a container, with a control group namespace of its own and "
    "/sys/fs/cgroup writable; or name a directory that is delegated to it as `cgroup`."
)


@dataclass(frozen=True, slots=True)
class Lacking:
    """That no control group can be used.

    Attributes:
        reason: what was tried, and what stood in the way, each on the same line.
        remedy: what the operator can do.
    """

    reason: str
    remedy: str


class Cgroup(Protocol):
    """A control group for one plugin."""

    @property
    def name(self) -> str:
        """As it was asked for."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its directories, one for each hierarchy."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What ``/proc/<pid>/cgroup`` has for a member, as the host reads it."""

    @property
    def weight_file(self) -> str:
        """By what version and file the CPU weight is told."""

    def add(self, pid: int) -> None:
        """Move a process, as the host numbers it, into the group, before it forks.

        A process of a real-time policy may be kept out of the controller cpu (RT_GROUP_SCHED):
        it has no ``cpu_weight`` among its limits then.

        Raises:
            OSError: the process is gone, or the kernel refuses.
            ValueError: not a pid.
        """

    def ways_in(self) -> list[tuple[str, bool]]:
        """Return by which files a process enters by itself, where that costs less than `add`.

        With each, whether one need not get in.
        """

    def entered(self, refused: Collection[str]) -> None:
        """Note which of these refused a process that has entered by them."""

    def is_member(self, membership: str) -> bool:
        """Tell from `cgroup_group.read_membership` whether a process is in the group. Pure."""

    def limits(self) -> dict[str, int]:
        """Return what is in force, read now: memory_bytes, swap_bytes, tasks, cpu_weight.

        ``swap_bytes`` is left out where the kernel does not account for swap, and ``cpu_weight``
        where no group has the controller cpu.

        Raises:
            OSError: the group is gone.
        """

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of all its processes; None where nobody tells. Never raises."""

    def usage(self) -> GroupUsage | None:
        """Return what all its processes use; None where the kernel does not tell. Never raises."""

    def processes(self) -> list[int]:
        """Return its processes, as the host numbers them. Never raises."""

    def out_of_memory(self) -> OutOfMemory:
        """Tell whether the kernel ended a process of the group for want of memory. Never raises."""

    def at_memory_limit(self) -> bool:
        """Tell whether a process is held at the group's limit. Never raises.

        Version 2 kills instead: False.
        """

    def reserve(self) -> None:
        """Get ready for `loosen`: what is held is woken, and held again. Never raises."""

    def loosen(self, size: int) -> None:
        """Let what is held have up to ``size`` bytes more: to be asked where it stands.

        Does nothing with version 2, and when a group has had its share. Never raises.
        """

    def kill(self) -> bool:
        """End all its processes at once, where the kernel can; False where not. Never raises."""

    def remove(self, timeout: float = 1.0) -> bool:
        """Remove it after its processes have ended; False where it is left. Never raises."""


class Cgroups(Protocol):
    """Where a host makes its control groups. Methods may be called from any thread."""

    @property
    def kind(self) -> Literal["v1", "v2"]:
        """The version."""

    @property
    def detail(self) -> str:
        """For a person: version, controllers, and below which group."""

    def create(
        self,
        name: str,
        memory_bytes: int,
        tasks: int,
        cpu_weight: int = DEFAULT_WEIGHT,
        *,
        processes: bool = False,
    ) -> Cgroup:
        """Make a group, set its limits and read them back.

        Args:
            name: the host's own word of ``a-z``, ``0-9``, ``_`` and ``-``, no group's of this host.
            memory_bytes: memory, page cache and tmpfs included; nothing of it goes to swap. The
                kernel rounds to whole pages.
            tasks: processes and threads together.
            cpu_weight: share of the CPU among this host's groups, from 1 to 10,000; where there is
                no controller cpu, nothing is done about it.
            processes: it is to tell what several processes use together, `Cgroup.usage`.

        Raises:
            OSError: the kernel refuses, or more is in force than was asked; nothing is left then.
            ValueError: not such a name.
        """

    def close(self) -> bool:
        """Undo what finding them did; False where something is left. Never raises."""


def find_cgroups(
    wanted: Path | None, controllers: Sequence[str] = CONTROLLERS
) -> Cgroups | Lacking:
    """Find control groups that this process may use, and make its own directory in them.

    Sweeps away what killed hosts left in the same place.

    Args:
        wanted: the directory of a group that the operator delegated, and then nothing else is
            tried; or None to look for one.
        controllers: what must be offered.

    Returns:
        What is to be closed, or why there is none.
    """
    reasons: list[str] = []
    remedies: list[str] = []
    try:
        view = _look()
        for version, open_one in _ways(view, wanted, tuple(controllers)):
            try:
                return open_one()
            except UnusableError as error:
                reasons.append(f"{version}: {error}")
                remedies.append(error.remedy)
            except OSError as error:
                reasons.append(f"{version}: {_told(error)}")
    except UnusableError as error:
        return Lacking(f"{error}.", error.remedy or _REMEDY)
    except OSError as error:
        return Lacking(f"{_told(error)}.", "Mount /proc.")
    remedy = next((text for text in remedies if text), "")
    return Lacking(f"{'; '.join(reasons)}.", f"{remedy} {_REMEDY}" if remedy else _REMEDY)


def _told(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


@dataclass(frozen=True, slots=True)
class _View:
    """The hierarchies as this process sees them, and where it is in each."""

    mounts: tuple[Mount, ...]
    memberships: tuple[Membership, ...]

    def place(self, membership: Membership, path: str) -> Place | None:
        """Return where a group of a hierarchy can be reached, or None."""
        # The last mount on a directory hides those before.
        for mount in reversed(self.mounts):
            if not _is_mount_of(mount, membership):
                continue
            directory = cgroup_text.directory_of(mount, path)
            if directory is not None and _shows(mount, directory):
                return Place(mount, membership.prefix, directory)
        return None

    def mount_of(self, directory: Path) -> Mount | None:
        """Return the mount that shows a directory, or None if it is no control group."""
        found = [m for m in self.mounts if directory.is_relative_to(m.point)]
        return max(
            (mount for mount in found if _shows(mount, directory)),
            key=lambda mount: len(mount.point.parts),
            default=None,
        )

    def unified(self) -> Membership | None:
        """Return where this process is in version 2's hierarchy."""
        return next((m for m in self.memberships if m.unified), None)


def _look() -> _View:
    mounts = cgroup_directory.read(Path("/proc/self/mountinfo"), _MAX_MOUNTINFO_BYTES)
    memberships = cgroup_directory.read(Path("/proc/self/cgroup"))
    return _View(cgroup_text.parse_mountinfo(mounts), cgroup_text.parse_membership(memberships))


def _is_mount_of(mount: Mount, membership: Membership) -> bool:
    if membership.unified:
        return mount.kind == "cgroup2"
    return mount.kind == "cgroup" and membership.controllers <= mount.options


def _shows(mount: Mount, directory: Path) -> bool:
    try:
        return directory.is_dir() and directory.stat().st_dev == mount.device
    except OSError:
        return False


def _ways(
    view: _View, wanted: Path | None, controllers: tuple[str, ...]
) -> Iterator[tuple[str, Callable[[], Cgroups]]]:
    """Yield the ways to get control groups, the best first, each with its name for a person."""
    if wanted is not None:
        mount, directory = _named(view, wanted)
        if mount.kind == "cgroup2":
            yield "v2", lambda: _open_v2(view, directory, controllers)
        else:
            path = cgroup_text.path_of(mount, directory)
            yield "v1", lambda: _open_v1(view, path, controllers)
        return
    yield "v2", lambda: _open_v2(view, None, controllers)
    if os.geteuid() == 0 and (root := _root_of_v2(view)):
        yield "v2, at the root", lambda: _open_v2(view, root, controllers)
    yield "v1", lambda: _open_v1(view, None, controllers)


def _named(view: _View, wanted: Path) -> tuple[Mount, Path]:
    directory = Path(os.path.realpath(wanted))
    if not directory.is_dir():
        text = f"{wanted} is no directory"
        raise UnusableError(text, "Make it, and delegate it to the host.")
    mount = view.mount_of(directory)
    if mount is None:
        text = f"{wanted} is not in a control group file system"
        raise UnusableError(text, "Name a directory below a mounted one, such as /sys/fs/cgroup.")
    return mount, directory


def _root_of_v2(view: _View) -> Path | None:
    own = view.unified()
    place = own and view.place(own, own.path)
    if not place or cgroup_v2.home(place.directory) == place.mount.point:
        return None
    return place.mount.point


def _open_v2(view: _View, directory: Path | None, controllers: tuple[str, ...]) -> CgroupsV2:
    own = view.unified()
    if own is None or not any(mount.kind == "cgroup2" for mount in view.mounts):
        text = "it is not mounted"
        raise UnusableError(text)
    here = view.place(own, own.path)
    if directory is None:
        if here is None:
            text = f"the host's own control group {own.path} is in no mounted hierarchy"
            raise UnusableError(text)
        directory = cgroup_v2.home(here.directory)
    mount = view.mount_of(directory)
    if mount is None:
        text = f"{directory} is gone"
        raise UnusableError(text)
    place = Place(mount, own.prefix, directory)
    _demand_way_there(view, own, place)
    return CgroupsV2(place, controllers, OPTIONAL)


def _demand_way_there(view: _View, own: Membership, place: Place) -> None:
    """Demand the right to move a process from the host's group to the place.

    It takes the right to write ``cgroup.procs`` of the group that both are in: "Delegation
    Containment" in cgroup-v2.rst.
    """
    both = os.path.commonpath([own.path, place.path(place.directory)])
    above = view.place(own, both)
    if above is None:
        allowed = os.geteuid() == 0
    else:
        path = above.directory / "cgroup.procs"
        allowed = os.access(path, os.W_OK, effective_ids=True)
    if not allowed:
        text = (
            f"no process can be moved from the host's control group {own.path} into "
            f"{place.directory}: that takes the right to write cgroup.procs of {both}"
        )
        raise UnusableError(text)


def _open_v1(view: _View, path: str | None, controllers: tuple[str, ...]) -> CgroupsV1:
    places = {controller: _place_v1(view, path, controller) for controller in controllers}
    optional: dict[str, Place] = {}
    for controller in (*OPTIONAL, *ACCOUNTING):
        with suppress(UnusableError):
            optional[controller] = _place_v1(view, path, controller)
    return CgroupsV1(places, optional)


def _place_v1(view: _View, path: str | None, controller: str) -> Place:
    own = next((m for m in view.memberships if controller in m.controllers), None)
    if own is None:
        text = f"no hierarchy has the controller {controller}"
        raise UnusableError(text)
    group = path or own.path
    place = view.place(own, group)
    if place is None:
        text = f"no mounted hierarchy of the controller {controller} shows the group {group}"
        raise UnusableError(text)
    return place

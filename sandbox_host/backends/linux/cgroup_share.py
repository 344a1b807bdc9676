"""The share of the CPU that a plugin at long work leaves to others, and takes again afterwards.

A process that wakes to answer a short call waits behind those that compute: with thirty of them on
two CPUs for some ten milliseconds. Where their groups have a smaller share, it is let in at once
(Documentation/scheduler/sched-eevdf.rst). What they have among each other stays as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox_host.backends.linux import cgroup_directory
from sandbox_host.backends.linux.cgroup_group import read_limit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FILES: Final = {"cpu.weight": 1, "cpu.shares": 2}
"""By version of control groups: the file, and the least that the kernel takes."""

LOWERED: Final = 10
"""The part of its share that a plugin at long work has."""


class Share:
    """That of one control group. Whatever the kernel refuses, nothing raises: the group is gone.

    Args:
        paths: the group's directories.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places = [
            (path / name, least)
            for path in paths
            for name, least in _FILES.items()
            if (path / name).exists()
        ]
        self._whole: dict[Path, int] = {}

    @property
    def lowered(self) -> bool:
        """It is lowered now."""
        return bool(self._whole)

    def lower(self) -> None:
        """Leave most of it to others."""
        for place, least in () if self._whole else self._places:
            try:
                whole = read_limit(place)
                if whole is not None:
                    cgroup_directory.write(place, str(max(least, whole // LOWERED)))
                    self._whole[place] = whole
            except OSError:
                continue

    def restore(self) -> None:
        """Take all of it again."""
        whole, self._whole = self._whole, {}
        for place, value in whole.items():
            try:
                cgroup_directory.write(place, str(value))
            except OSError:
                continue

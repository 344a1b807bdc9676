"""What a plugin's data directory holds, and whether that is too much.

What is counted is what the disk holds: allocated blocks, so that a sparse file is as small as it
is and one with several names counts once, and every name of whatever kind.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.model import Cause
from sandbox_host.trees import SETTLING_SECONDS, open_directory, walk

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_host.model import Limits

_BLOCK_BYTES: Final = 512  # st_blocks counts these, whatever the file system's own are (stat(2))


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a directory holds.

    Attributes:
        bytes: allocated on disk, directories included.
        files: names of every kind, directories included.
        complete: False where counting ended at its bound, the tree changed meanwhile, or a part of
            it could not be read: it may hold more, or less. Otherwise all names that were counted
            stood there at one moment, and no others.
    """

    bytes: int
    files: int
    complete: bool


def measure(directory: Path, max_files: int, looks: int = 3) -> DiskUse:
    """Return what a directory holds, itself not counted; nothing in it is followed or opened.

    Args:
        directory: whose path up to its last component is the host's own.
        max_files: counting ends behind this many names, which bounds the time that it takes.
        looks: how often it is counted, at most, until nothing changed meanwhile; the last counts.
            Between two of them the clock gets time to move on, a few milliseconds.

    Raises:
        OSError: it cannot be read, or this process has no descriptors left.
    """
    top = open_directory(directory, unlock=True)
    try:
        use = _count(top, max_files)
        for _ in range(looks - 1):
            if use.complete or use.files > max_files:
                break
            time.sleep(SETTLING_SECONDS)
            use = _count(top, max_files)
    finally:
        os.close(top)
    return use


def _count(top: int, max_files: int) -> DiskUse:
    total = 0
    linked: set[tuple[int, int]] = set()

    def count(_directory: int, _name: str, status: os.stat_result) -> None:
        nonlocal total
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity in linked:
                return
            linked.add(identity)
        total += status.st_blocks * _BLOCK_BYTES

    walked = walk(top, count, max_files + 1, unlock=True, verify=True)
    return DiskUse(total, walked.entries, walked.complete and not walked.unread)


def judge_disk(limits: Limits, use: DiskUse) -> Excess | None:
    """Return the excess of what a data directory holds, or None. Pure."""
    if use.bytes > limits.data_bytes:
        return Excess(Step.END, Cause.DISK, "data", limits.data_bytes, use.bytes, "bytes")
    if use.files > limits.data_files:
        return Excess(Step.END, Cause.DISK, "data_files", limits.data_files, use.files, "files")
    return None

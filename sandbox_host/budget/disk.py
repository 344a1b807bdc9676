"""What a plugin's data directory holds, and whether that is too much.

What is counted is what the disk holds: allocated blocks, so that a sparse file is as small as it
is, and every name of whatever kind.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox_host.budget.enforce import Excess, Step
from sandbox_host.model import Cause
from sandbox_host.trees import open_directory, walk

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
        complete: False where counting ended at its bound, or the tree was moved about meanwhile.
    """

    bytes: int
    files: int
    complete: bool


def measure(directory: Path, max_files: int) -> DiskUse:
    """Return what a directory holds, itself not counted; nothing in it is followed or opened.

    Args:
        directory: whose path up to its last component is the host's own.
        max_files: counting ends behind this many names, which bounds the time that it takes.

    Raises:
        OSError: it cannot be read.
    """
    total = 0

    def count(_directory: int, _name: str, status: os.stat_result) -> None:
        nonlocal total
        total += status.st_blocks * _BLOCK_BYTES

    top = open_directory(directory, unlock=True)
    try:
        walked = walk(top, count, max_files + 1, unlock=True)
    finally:
        os.close(top)
    return DiskUse(total, walked.entries, walked.complete)


def judge_disk(limits: Limits, use: DiskUse) -> Excess | None:
    """Return the excess of what a data directory holds, or None. Pure."""
    if use.bytes > limits.data_bytes:
        return Excess(Step.END, Cause.DISK, "data", limits.data_bytes, use.bytes, "bytes")
    if use.files > limits.data_files:
        return Excess(Step.END, Cause.DISK, "data_files", limits.data_files, use.files, "files")
    return None

"""Reads what the kernel says of a process; parsing is apart from opening, and never guesses.

Source: Documentation/filesystems/proc.rst. The text is the kernel's, but the process chooses its
own name, which stands in it: ``stat`` is cut behind the last parenthesis, ``status`` read by line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of ``/proc/<pid>/stat`` that accounting needs."""

    state: str
    cpu_seconds: float
    threads: int
    resident_bytes: int


def parse_stat(text: str) -> Stat:
    """Parse ``/proc/<pid>/stat``."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        state=fields[0],
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND,
        threads=int(fields[17]),
        resident_bytes=int(fields[21]) * PAGE_BYTES,
    )


def parse_status(text: str) -> dict[str, str]:
    """Parse ``/proc/<pid>/status`` into its fields."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def parse_limits(text: str) -> dict[str, tuple[str, str]]:
    """Parse ``/proc/<pid>/limits`` into ``{name: (soft, hard)}``."""
    limits: dict[str, tuple[str, str]] = {}
    for line in text.splitlines()[1:]:
        name, rest = line[:26].strip(), line[26:].split()
        limits[name] = (rest[0], rest[1])
    return limits


def read(pid: int, name: str) -> str:
    """Return the text of ``/proc/<pid>/<name>``.

    Raises:
        OSError: the process has ended, or is not ours to look at.
    """
    return Path(f"/proc/{pid}/{name}").read_text(encoding="ascii", errors="replace")


def count_descriptors(pid: int) -> int:
    """Return the number of open descriptors, or 0 where the kernel does not tell.

    The size of the directory is their number since Linux 6.2, for any reader; listing it needs
    the right to trace the process, which nobody has over one that is not dumpable.
    """
    try:
        size = os.stat(f"/proc/{pid}/fd").st_size
        return size or len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0

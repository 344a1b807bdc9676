"""Reads what the kernel says of a process; parsing is apart from opening, and never guesses.

Source: Documentation/filesystems/proc.rst. The text is the kernel's, but the process chooses its
own name, which stands in it: ``stat`` is cut behind the last parenthesis, ``status`` read by line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from sandbox_host.backends.linux.cgroup_text import unescape

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PIECE_BYTES: Final = 64 * 1024
_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of ``/proc/<pid>/stat`` that accounting needs."""

    state: str
    cpu_seconds: float
    threads: int


def parse_stat(text: str) -> Stat:
    """Parse ``/proc/<pid>/stat``."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        state=fields[0],
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND,
        threads=int(fields[17]),
    )


def parse_statm(text: str) -> int:
    """Return from ``/proc/<pid>/statm`` how many bytes are resident that no file stands behind.

    Pages of files, tmpfs included, are what the third field has: the kernel takes them back when
    it needs them, or a tmpfs has a size of its own.
    """
    fields = text.split()
    return (int(fields[1]) - int(fields[2])) * PAGE_BYTES


def parse_status(text: str) -> dict[str, str]:
    """Parse ``/proc/<pid>/status`` into its fields."""
    pairs = (line.partition(":") for line in text.split("\n"))
    return {name: value.strip() for name, _, value in pairs}


def parse_limits(text: str) -> dict[str, tuple[str, str]]:
    """Parse ``/proc/<pid>/limits`` into ``{name: (soft, hard)}``."""
    limits: dict[str, tuple[str, str]] = {}
    for line in text.splitlines()[1:]:
        name, rest = line[:26].strip(), line[26:].split()
        limits[name] = (rest[0], rest[1])
    return limits


def read(pid: int, name: str) -> str:
    """Return the text of ``/proc/<pid>/<name>``; paths in it may be any bytes, see `os.fsdecode`.

    Raises:
        OSError: the process has ended, or is not ours to look at.
    """
    # Not by pathlib: the watchdog reads two of these of each plugin at work, every 20 ms.
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, _PIECE_BYTES):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return os.fsdecode(b"".join(pieces))


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


@dataclass(frozen=True, slots=True)
class MountLine:
    """One line of ``/proc/<pid>/mountinfo``.

    Attributes:
        options: of the mount, such as "ro" and "nosuid".
        kind: the type of the file system.
        data: its own options, as one text.
    """

    point: str
    options: frozenset[str]
    kind: str
    data: str


def parse_mounts(text: str) -> tuple[MountLine, ...]:
    """Parse ``/proc/<pid>/mountinfo``; escapes in paths are resolved.

    Raises:
        ValueError: a line is not as proc.rst describes it.
    """
    found = []
    # Not splitlines: a path may hold what else Python takes for the end of a line.
    for line in text.rstrip("\n").split("\n") if text else ():
        before, dash, behind = line.partition(" - ")
        fields, more = before.split(" "), behind.split(" ")
        if not dash or len(fields) < 6 or len(more) < 3:  # noqa: PLR2004 - the fields before and behind
            text = f"mountinfo: {line[:200]!r}"
            raise ValueError(text)
        options = frozenset(fields[5].split(","))
        found.append(MountLine(unescape(fields[4]), options, more[0], more[2]))
    return tuple(found)


def size_of_tmpfs(data: str) -> int | None:
    """Return the size among a file system's own options, in bytes, or None if there is no limit.

    The kernel writes it as ``size=65536k``, and leaves out what is its default.
    """
    for option in data.split(","):
        name, _, value = option.partition("=")
        if name == "size" and (match := re.fullmatch(r"([0-9]+)([kmg]?)", value)):
            return int(match[1]) * _UNITS[match[2]]
    return None

"""What a plugin that may start processes executes: its own interpreter, and nothing else.

The kernel opens two files for that, the interpreter and the dynamic loader that its header names
(elf(5), PT_INTERP), and asks Landlock for the right to execute each. The loader could be executed
by itself, with another file to load: it maps that as any process would, so that what cannot be
mapped as code (whatever the plugin wrote or was granted, on mounts that are noexec) cannot be run
by it either.
"""

from __future__ import annotations

import functools
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sandbox_host.backends.linux.interpreter import interpreter_paths, resolve
from sandbox_host.backends.linux.landlock import EXECUTE, READ_FILE, Place
from sandbox_host.backends.linux.mounts import NODEV, NOSUID, RDONLY, Mount
from sandbox_host.errors import ConfinementError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.backends.base import Places

SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - the C library's own word for it
"""Where the C library makes semaphores and shared memory that have a name (shm_overview(7))."""

_CORE_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little-endian, as both architectures are
_PT_INTERP: Final = 3
_MAX_SEGMENTS: Final = 256
_MAX_PATH_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Programs:
    """What may be executed; paths without a link on the way.

    Attributes:
        interpreter: Python's program file.
        loader: the dynamic loader, or "" where the interpreter is linked statically.
        links: (path, target) of every link that leads to them by their usual names.
    """

    interpreter: str
    loader: str
    links: tuple[tuple[str, str], ...]

    def places(self) -> list[Place]:
        """Return the rules of Landlock: execute these files, which takes reading them."""
        paths = filter(None, (self.interpreter, self.loader))
        return [Place(path, EXECUTE | READ_FILE, is_directory=False) for path in paths]


@functools.cache
def programs(python: Path) -> Programs:
    """Return what the kernel executes when the interpreter is started.

    Args:
        python: the interpreter.

    Raises:
        ConfinementError: it is no ELF file of 64 bits, or its loader is none of the files that a
            plugin has in its root.
    """
    try:
        with open(python, "rb") as file:
            named = loader_of(file.read(_HEADER.size), lambda at, size: _read_at(file, at, size))
    except (OSError, ValueError) as error:
        _refuse(python, str(error))
    links: dict[str, str] = {}
    interpreter = resolve(str(python), links)
    loader = resolve(named, links) if named else ""
    if loader and not any(
        f"{loader}/".startswith(f"{path}/") for path in interpreter_paths(python).real
    ):
        _refuse(python, f"its loader {loader} is not among the libraries that plugins have")
    return Programs(interpreter, loader, tuple(links.items()))


def loader_of(header: bytes, read: Any) -> str:
    """Return the dynamic loader that an ELF header asks for, or "".

    Args:
        header: the first 64 bytes of the file.
        read: returns so many bytes of it, given an offset and a size.

    Raises:
        ValueError: it is no ELF file of 64 bits.
    """
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        text = "it is no ELF file of 64 bits"
        raise ValueError(text)
    fields = _HEADER.unpack(header)
    table, entry_size, count = fields[5], fields[9], fields[10]  # e_phoff, e_phentsize, e_phnum
    if entry_size != _SEGMENT.size or count > _MAX_SEGMENTS:
        text = "its program headers are not as elf(5) has them"
        raise ValueError(text)
    for number in range(count):
        entry = read(table + number * entry_size, entry_size)
        if len(entry) < entry_size:
            text = "it is cut short"
            raise ValueError(text)
        kind, _, offset, _, _, size, _, _ = _SEGMENT.unpack(entry)
        if kind == _PT_INTERP:
            name = read(offset, min(size, _MAX_PATH_BYTES))
            return os.fsdecode(name.rstrip(b"\0"))
    return ""


def _read_at(file: Any, at: int, size: int) -> bytes:
    found: bytes = os.pread(file.fileno(), size, at)
    return found


def check_core_dumps(hard: int) -> None:
    """Refuse where a program of the host's would be started for each process that crashes.

    What a plugin executes is dumpable. Where core dumps are handed to a program, as root and beyond
    every budget, only a limit of 1 byte prevents that, and not one of 0 (core(5), fs/coredump.c).

    Args:
        hard: the host's own hard limit of core dumps, above which no plugin's can be.

    Raises:
        ConfinementError: it is 0, and core dumps are handed to a program, or nobody can tell.
    """
    if hard:
        return
    try:
        piped = _CORE_PATTERN.read_bytes().startswith(b"|")
    except OSError:
        piped = True
    if piped:
        raise ConfinementError(
            "Plugins cannot be given the permission subprocess: this machine hands core dumps to "
            "a program, which a limit of 0 does not prevent, and the host's own hard limit is 0.",
            layer="process",
            remedy="Start the host with `ulimit -Hc 1` (LimitCORE=1), or do without it.",
        )


def with_programs(mounts: Iterable[Mount], python: Path) -> tuple[Mount, ...]:
    """Return the mounts with that of the interpreter's program file, parents first."""
    program = Mount("bind", programs(python).interpreter, RDONLY | NOSUID | NODEV)
    return tuple(sorted((*mounts, program), key=lambda mount: mount.path.count("/")))


def with_links(root: dict[str, Any], places: Places) -> dict[str, Any]:
    """Return what `root_plan` returned with the links that lead to programs and semaphores.

    Named semaphores are made in the scratch directory, whose size and number of files are bounded,
    and on the plugin's own account.
    """
    mounted = tuple(f"{mount['path']}/" for mount in root["mounts"])
    links = dict(map(tuple, root["links"]))
    links |= {SHARED_MEMORY: str(places.scratch_dir)}
    links |= {
        link: target
        for link, target in programs(places.python).links
        if not f"{link}/".startswith(mounted)
    }
    return {**root, "links": [list(pair) for pair in links.items()]}


def _refuse(python: Path, why: str) -> NoReturn:
    raise ConfinementError(
        f"Plugins cannot be given the permission subprocess, which is to start {python}: {why}.",
        layer="process",
        remedy="Name another interpreter with HostConfig(python=…), or do without the permission.",
    )

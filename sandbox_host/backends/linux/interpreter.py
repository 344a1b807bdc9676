"""What a confined interpreter has to read: its own library, shared objects, time zones.

The host's site-packages are not among it. Where they lie inside a directory that is needed (a
Python built from source keeps them below its standard library), that directory is listed entry by
entry without them, because Landlock can only add rights, never take a subtree away.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_host.backends.linux.landlock import READ, READ_FILE, WRITE_FILE, Place
from sandbox_host.errors import ConfinementError

_FOREIGN: Final = frozenset({"site-packages", "dist-packages", "test"})

_MAX_STEPS: Final = 400
"""Of resolving a path; the kernel gives up after 40 links."""

_SHARED: Final = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"),
    *("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/local/lib"),
    *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
    *("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"),
)
# Without /dev/zero: mapped shared, it is memory that the resident size does not show.
DEVICES: Final = ("/dev/null", "/dev/full", "/dev/urandom", "/dev/random")


@dataclass(frozen=True, slots=True)
class Paths:
    """What an interpreter has to reach.

    Attributes:
        real: files and directories, without a link on the way.
        links: (path, target) of every link that leads to them by a usual path.
    """

    real: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


@functools.cache
def interpreter_paths(python: Path) -> Paths:
    """Return what the interpreter reads to start and to import its standard library.

    Args:
        python: an interpreter of the version that runs the host, at its real path.

    Raises:
        ConfinementError: it is of another version.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = python.parent.parent
    library = prefix / "lib"
    homes = [library / version, prefix / "lib64" / version]
    if not any(home.is_dir() for home in homes):
        text = f"The interpreter {python} has no standard library of {version} beside it."
        remedy = "HostConfig(python=…) must be of the version that runs the host."
        raise ConfinementError(text, layer="process", remedy=remedy)
    wanted = [*homes, *map(Path, _SHARED), *sorted(library.glob("libpython*.so*"))]
    links: dict[str, str] = {}
    real = {resolve(str(path), links): None for path in wanted}
    return Paths(tuple(path for path in real if os.path.exists(path)), tuple(links.items()))


def resolve(path: str, links: dict[str, str]) -> str:
    """Return the real path, and add every link on the way to ``links``."""
    here = "/"
    waiting = list(reversed(Path(path).parts[1:]))
    for _ in range(_MAX_STEPS):
        if not waiting:
            return here
        here = os.path.normpath(os.path.join(here, waiting.pop()))
        if os.path.islink(here):
            target = os.readlink(here)
            links[here] = target
            whole = Path(os.path.normpath(os.path.join(os.path.dirname(here), target)))
            waiting += reversed(whole.parts[1:])
            here = "/"
    return os.path.realpath(path)


@functools.cache
def interpreter_places(python: Path, *, entry_by_entry: bool = True) -> tuple[Place, ...]:
    """Return the same as places for rules.

    Args:
        python: as for `interpreter_paths`.
        entry_by_entry: leave out what is foreign among the entries of a directory.

    Raises:
        ConfinementError: as `interpreter_paths`.
    """
    places: dict[str, Place] = {}
    for path in interpreter_paths(python).real:
        found = _readable(Path(path)) if entry_by_entry else [_whole(path)]
        for place in found:
            places.setdefault(place.path, place)
    for device in DEVICES:
        if os.path.exists(device):
            rights = READ_FILE | WRITE_FILE
            places[device] = Place(device, rights, is_directory=False)
    return tuple(places.values())


def _whole(path: str) -> Place:
    return Place(path, READ, is_directory=os.path.isdir(path))


def _readable(path: Path) -> list[Place]:
    """Return ``path`` as one place, or its entries where something foreign lies among them."""
    real = Path(os.path.realpath(path))
    if not real.is_dir():
        return [Place(str(real), READ, is_directory=False)] if real.exists() else []
    entries = list(os.scandir(real))
    if not any(is_foreign(entry.name) for entry in entries):
        return [Place(str(real), READ, is_directory=True)]
    return [
        Place(entry.path, READ, is_directory=entry.is_dir())
        for entry in entries
        # A link is no place: the rule would be about what it leads to, wherever that is. What it
        # leads to inside the directory has a rule of its own.
        if not is_foreign(entry.name)
        and not entry.is_symlink()
        and (entry.is_dir() or entry.is_file())
    ]


def is_foreign(name: str) -> bool:
    """Tell whether an entry of a library directory is another's: packages, another Python."""
    return name in _FOREIGN or name.startswith("python")

"""What a confined interpreter has to read: its own library, shared objects, time zones.

The host's site-packages are not among it. Where they lie inside a directory that is needed (a
Python built from source keeps them below its standard library), that directory is listed entry by
entry without them, because Landlock can only add rights, never take a subtree away.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Final

from sandbox_host.backends.linux.landlock import READ, READ_FILE, WRITE_FILE, Place
from sandbox_host.errors import ConfinementError

_FOREIGN: Final = frozenset({"site-packages", "dist-packages", "test"})

_SHARED: Final = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"),
    *("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/local/lib"),
    *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
    *("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"),
)
# Without /dev/zero: mapped shared, it is memory that the resident size does not show.
_DEVICES: Final = ("/dev/null", "/dev/full", "/dev/urandom", "/dev/random")


@functools.cache
def interpreter_places(python: Path) -> tuple[Place, ...]:
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
    wanted = [*homes, *map(Path, _SHARED)]
    wanted += sorted(library.glob("libpython*.so*"))
    places: dict[str, Place] = {}
    for path in wanted:
        for place in _readable(path):
            places.setdefault(place.path, place)
    for device in _DEVICES:
        if os.path.exists(device):
            rights = READ_FILE | WRITE_FILE
            places[device] = Place(device, rights, is_directory=False)
    return tuple(places.values())


def _readable(path: Path) -> list[Place]:
    """Return ``path`` as one place, or its entries where something foreign lies among them."""
    real = Path(os.path.realpath(path))
    if not real.is_dir():
        return [Place(str(real), READ, is_directory=False)] if real.exists() else []
    entries = list(os.scandir(real))
    if not any(_is_foreign(entry.name) for entry in entries):
        return [Place(str(real), READ, is_directory=True)]
    return [
        Place(entry.path, READ, is_directory=entry.is_dir())
        for entry in entries
        # A link is no place: the rule would be about what it leads to, wherever that is. What it
        # leads to inside the directory has a rule of its own.
        if not _is_foreign(entry.name)
        and not entry.is_symlink()
        and (entry.is_dir() or entry.is_file())
    ]


def _is_foreign(name: str) -> bool:
    return name in _FOREIGN or name.startswith("python")

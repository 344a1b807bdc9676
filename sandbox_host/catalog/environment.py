"""Whether a plugin environment fits this host: plugins could not import what is in it otherwise.

A directory that `pip install --target` filled for another Python looks the same from outside, and
what fails then is an import deep inside somebody's package, with a message about something else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_COMPILED: Final = re.compile(r".+\.cpython-(\d)(\d+)(t?)-?[\w-]*\.so")
"""Compiled modules say in their names which CPython they are for (PEP 3149)."""

_MAX_ENTRIES: Final = 50_000
"""Looked at, at most; hundreds of packages have fewer."""


def environment_fault(path: Path, python: str = "") -> str:
    """Return why plugins could not use a plugin environment, to be put after its path.

    Only names are looked at. Packages without compiled modules fit every Python.

    Args:
        path: the directory that `pip install --target` made.
        python: what it should be for, such as "3.12"; "" is the host's own version, in which
            plugins run too.

    Returns:
        A clause such as "is no directory", with what to do about it; "" where nothing is wrong.
    """
    wanted = python or _own_version()
    if not path.is_dir():
        return "is no directory: make it with `pip install --target`, or leave it out"
    try:
        os.scandir(path).close()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    found = set()
    for name in _names(path):
        if match := _COMPILED.fullmatch(name):
            version = f"{match[1]}.{match[2]}{match[3]}"
            if version == wanted:
                return ""
            found.add(version)
    if not found:
        return ""
    made = ", ".join(sorted(found))
    return f"was made for {made}, this host is {wanted}: make it again with `pip install --target`"


def _own_version() -> str:
    threads = "t" if "t" in getattr(sys, "abiflags", "") else ""
    return f"{sys.version_info[0]}.{sys.version_info[1]}{threads}"


def _names(path: Path) -> Iterator[str]:
    left = _MAX_ENTRIES
    for _, directories, names in os.walk(path):
        left -= len(directories) + len(names)
        if left < 0:
            return
        yield from names

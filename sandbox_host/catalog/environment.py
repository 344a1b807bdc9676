"""Whether a plugin environment fits this host, and whether plugins can read what they need.

A directory that `pip install --target` filled for another Python looks the same from outside, and
what fails then is an import deep inside somebody's package, with a message about something else.
The same is true of files that root installed for itself alone: where the host is root, its plugins
have other user ids.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_COMPILED: Final = re.compile(r".+\.cpython-(\d)(\d+)(t?)-?[\w-]*\.so")
"""Compiled modules say in their names which CPython they are for (PEP 3149)."""

_MAX_ENTRIES: Final = 50_000
"""Looked at, at most; hundreds of packages have fewer."""

_MAX_SAMPLE: Final = 2_000
"""Entries whose mode is looked at; a umask was in force for all of them."""

_LIBRARY_SAMPLE: Final = (".", "os.py", "encodings", "encodings/__init__.py", "lib-dynload")


def environment_fault(path: Path, python: str = "") -> str:
    """Return why plugins could not use a plugin environment, to be put after its path.

    Only names are looked at, and where the host is root, modes. Packages without compiled modules
    fit every Python.

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
    if fault := _version_fault(path, wanted):
        return fault
    if os.geteuid() == 0 and (closed := _closed_entry(path)):
        return f"is closed to plugins, which have user ids of their own: {_opening(closed, path)}"
    return ""


def interpreter_fault(python: Path) -> str:
    """Return why a plugin that has a user id of its own could not run an interpreter's library.

    Args:
        python: the interpreter, at its real path.

    Returns:
        A clause to be put after the interpreter's path; "" where nothing is wrong, or nothing can
        be told.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for directory in ("lib", "lib64"):
        library = python.parent.parent / directory / version
        for name in _LIBRARY_SAMPLE:
            closed = library / name
            if read_fault(closed):
                return (
                    "has a library that is closed to plugins, which have user ids of their own: "
                    f"{_opening(closed, library)}"
                )
    return ""


def read_fault(path: Path) -> str:
    """Return why others than its owner and its group cannot read a path, or ""; links are followed.

    Only the path itself is looked at, not what is above it or in it.
    """
    try:
        status = path.stat()
    except OSError:
        return ""  # what is not there is somebody else's to report
    if _is_open(status):
        return ""
    return f"it has mode {stat.S_IMODE(status.st_mode):04o} and belongs to user id {status.st_uid}"


def write_fault(path: Path) -> str:
    """Return why others than its owner and its group cannot write a path, or ""; as `read_fault`.

    In a directory that is to make, remove and rename.
    """
    try:
        status = path.stat()
    except OSError:
        return ""
    wanted = stat.S_IWOTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    if status.st_mode & wanted == wanted:
        return ""
    return f"it has mode {stat.S_IMODE(status.st_mode):04o} and belongs to user id {status.st_uid}"


def _is_open(status: os.stat_result) -> bool:
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    return status.st_mode & wanted == wanted


def _opening(closed: Path, whole: Path) -> str:
    return f"{os.path.normpath(closed)}: {read_fault(closed)}; run `chmod -R a+rX {whole}`"


def _closed_entry(path: Path) -> Path | None:
    """Return the first of some entries that others than its owner cannot read."""
    if read_fault(path):
        return path
    left = _MAX_SAMPLE
    for root, directories, names in os.walk(path):
        # Without its cache, a module is compiled again: nobody needs to read that.
        directories[:] = [name for name in directories if name != "__pycache__"]
        for name in (*directories, *names):
            entry = os.path.join(root, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(entry)
                if not stat.S_ISLNK(status.st_mode) and not _is_open(status):
                    return Path(entry)
            left -= 1
            if not left:
                return None
    return None


def _version_fault(path: Path, wanted: str) -> str:
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

"""The host's private copy of what a plugin's process imports, with byte code.

Compiling takes ten times as long as all the rest, so what was compiled before is taken: the byte
code beside the installed sources, which Python itself would load. It must be of those very sources
(PEP 3147, PEP 552: magic number, size and time of the source), and nobody may have been able to
write it who could not have written them; a plugin cannot write either. What is missing there is
compiled once, and left there where Python would have left it.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib.util
import os
import py_compile
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

PACKAGES: Final = ("plugin_sdk", "msgpack")
"""The child's third-party library, and nothing else."""

_MAX_BYTES: Final = 16 * 1024 * 1024
_HEADER_BYTES: Final = 16
_BY_TIME: Final = bytes(4)
_UNCHECKED_HASH: Final = (1).to_bytes(4, "little")
_WORD: Final = 0xFFFF_FFFF
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def copy_sdk(destination: Path) -> None:
    """Copy what the child imports, compiled: it writes nothing and starts in milliseconds.

    Args:
        destination: an existing directory, below one that is ours alone.

    Raises:
        OSError: a package is missing, or cannot be copied.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            text = f"the package {name} is not installed as a directory"
            raise OSError(text)
        source = Path(spec.submodule_search_locations[0])
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyx", "testing.py")
        shutil.copytree(source, destination / name, ignore=ignore)
        for copy in sorted((destination / name).rglob("*.py")):
            _add_bytecode(source / copy.relative_to(destination / name), copy)
    # The directory above is ours alone; a plugin that has another user must read these.
    for path in (destination, *destination.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _add_bytecode(source: Path, copy: Path) -> None:
    data = copy.read_bytes()
    body = installed_bytecode(source, data)
    if body is None and not sys.dont_write_bytecode:
        with contextlib.suppress(OSError, py_compile.PyCompileError):
            mode = py_compile.PycInvalidationMode.TIMESTAMP
            py_compile.compile(
                str(source), doraise=True, quiet=2, optimize=0, invalidation_mode=mode
            )
            body = installed_bytecode(source, data)
    if body is None:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_file(copy, quiet=2, force=True, invalidation_mode=mode)
        return
    target = Path(importlib.util.cache_from_source(str(copy.name), optimization=""))
    place = copy.parent / "__pycache__"
    place.mkdir(exist_ok=True)
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(data)
    (place / target.name).write_bytes(head + body)


def installed_bytecode(source: Path, data: bytes) -> bytes | None:
    """Return the byte code that lies beside an installed source, without its header, or None.

    Args:
        source: the installed file.
        data: what was read of it.
    """
    try:
        cached = Path(importlib.util.cache_from_source(str(source), optimization=""))
        with open(os.open(cached, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            status, of_source = os.fstat(file.fileno()), source.stat()
            beside, above = cached.parent.stat(), source.parent.stat()
            if not _as_safe(status, of_source) or not _as_safe(beside, above):
                return None
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
                return None
            found = file.read(_MAX_BYTES)
    except (OSError, NotImplementedError):
        return None
    times = (int(of_source.st_mtime) & _WORD).to_bytes(4, "little")
    sizes = (len(data) & _WORD).to_bytes(4, "little")
    head = importlib.util.MAGIC_NUMBER + _BY_TIME + times + sizes
    return found[_HEADER_BYTES:] if found[:_HEADER_BYTES] == head else None


def _as_safe(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether nobody can write ``one`` who could not write ``other``, but root and us."""
    owners = {other.st_uid, 0, os.geteuid()}
    more = one.st_mode & _OTHERS & ~other.st_mode
    same_group = one.st_gid == other.st_gid or not one.st_mode & stat.S_IWGRP
    return one.st_uid in owners and not more and same_group

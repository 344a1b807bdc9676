"""What a process saves that opens hundreds of hosts, one after the other.

Each host compiles its copy of the SDK for itself, and waits until its history is on the disk: it
has a machine's life for that, and a test a tenth of a second. Both are as they are delivered in
every process that tests start, but for those that open many hosts of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import py_compile
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_GET_FLAGS, _SET_FLAGS, _TOP = 0x8008_6601, 0x4008_6602, 0x0002_0000
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS where a long has 64 bits, and FS_TOPDIR_FL: linux/fs.h."""

_COMPILED: dict[tuple[bytes, int], bytes] = {}
_compile = py_compile.compile


def be_thrifty() -> None:
    """Compile equal sources once, and wait for no disk, from now on in this process."""
    py_compile.compile = compile_once  # type: ignore[assignment]
    os.fsync = _flushed(os.fsync)
    os.fdatasync = _flushed(os.fdatasync)


def spread(directory: Path) -> Path:
    """Have directories that are made in this one share no block group, where that can be said.

    Without a journal, ext4 passes over each inode of a block group that was freed in the last
    minutes to find one for a new file (``recently_deleted`` in fs/ext4/ialloc.c). Tests that make
    and remove a hundred files each would spend half of their time with that.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags | _TOP))
    finally:
        os.close(descriptor)
    return directory


def compile_once(
    file: str,
    cfile: str | None = None,
    dfile: str | None = None,
    doraise: bool = False,
    optimize: int = -1,
    invalidation_mode: py_compile.PycInvalidationMode | None = None,
    quiet: int = 0,
) -> str | None:
    """Compile as `py_compile.compile` does, or write what came of an equal source.

    The path in it is that of the first; the import system puts the right one in its place when
    it loads byte code beside its source (``_fix_co_filename``). What is bound to a file's time
    instead of its content (PEP 552) is compiled each time.
    """
    every_time = functools.partial(
        _compile, file, cfile, dfile, doraise, optimize, invalidation_mode, quiet
    )
    if cfile is None or invalidation_mode is not py_compile.PycInvalidationMode.UNCHECKED_HASH:
        return every_time()
    key = (Path(file).read_bytes(), optimize)
    if key in _COMPILED:
        Path(cfile).parent.mkdir(exist_ok=True)
        Path(cfile).write_bytes(_COMPILED[key])
        return cfile
    made = every_time()
    if made is not None:
        code = Path(made).read_bytes()
        # The source's hash is in it, behind the magic number and the flags.
        assert code[8:16] == importlib.util.source_hash(key[0])
        _COMPILED[key] = code
    return made


def _flushed(flush: Callable[[int], None]) -> Callable[[Any], None]:
    @functools.wraps(flush)
    def checked(descriptor: Any) -> None:
        os.fstat(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    return checked

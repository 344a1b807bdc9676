"""Machine code that nobody signed: made in memory, or brought in a file and loaded."""

from __future__ import annotations

import _ctypes
import ctypes
import importlib.machinery
import importlib.util
import mmap
import os

from .native import check, libc, syscall
from .registry import Boundary, Target, against

attack = against(Boundary.NATIVE_CODE)

_PAGE = 4_096
_READ, _WRITE, _EXECUTE = 1, 2, 4
_SHARED, _PRIVATE, _ANONYMOUS = 1, 2, 0x20
_READ_IMPLIES_EXEC = 0x0400000

_NOEXEC = ("own-root",)
"""Its mounts are noexec: without them, Landlock and seccomp hold what the code can do instead."""


def _map(protection: int, flags: int, descriptor: int = -1) -> int:
    size, offset = ctypes.c_size_t(_PAGE), ctypes.c_long(0)
    return check(libc.mmap(None, size, protection, flags, descriptor, offset))


def _protect(address: int, protection: int) -> None:
    check(libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), protection))


def _code_file(target: Target, room: str, name: str = "code") -> str:
    path = f"{target[room]}/{name}"
    with open(path, "wb") as file:
        file.write(b"\xc3" * _PAGE)
    return path


# -- made in memory -------------------------------------------------------------------------------


@attack("EPERM")
def executable_memory(_: Target) -> None:
    _map(_READ | _WRITE | _EXECUTE, _PRIVATE | _ANONYMOUS)


@attack("EPERM")
def executable_memory_that_is_not_writable(_: Target) -> None:
    _map(_READ | _EXECUTE, _PRIVATE | _ANONYMOUS)


@attack("EPERM")
def executable_memory_from_python(_: Target) -> None:
    mmap.mmap(-1, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


@attack("EPERM")
def memory_made_executable(_: Target) -> None:
    start = _map(_READ | _WRITE, _PRIVATE | _ANONYMOUS)
    ctypes.memset(start, 0xC3, 1)
    _protect(start, _READ | _EXECUTE)


@attack("EPERM", optional=True)
def memory_made_executable_with_a_key(_: Target) -> None:
    start = _map(_READ | _WRITE, _PRIVATE | _ANONYMOUS)
    syscall("pkey_mprotect", ctypes.c_void_p(start), _PAGE, _READ | _EXECUTE, -1)


@attack("EPERM")
def data_that_reads_as_code(_: Target) -> None:
    syscall("personality", _READ_IMPLIES_EXEC)


@attack("EPERM")
def code_in_a_memory_file(_: Target) -> None:
    descriptor = os.memfd_create("code")
    try:
        os.write(descriptor, b"\xc3" * _PAGE)
        _map(_READ | _EXECUTE, _PRIVATE, descriptor)
    finally:
        os.close(descriptor)


# -- brought in a file ----------------------------------------------------------------------------


@attack("EPERM")
def writable_executable_file_map(target: Target) -> None:
    descriptor = os.open(_code_file(target, "own"), os.O_RDWR)
    try:
        _map(_READ | _WRITE | _EXECUTE, _SHARED, descriptor)
    finally:
        os.close(descriptor)


@attack("EPERM", "EACCES")
def file_map_made_executable(target: Target) -> None:
    descriptor = os.open(_code_file(target, "own"), os.O_RDONLY)
    try:
        _protect(_map(_READ, _PRIVATE, descriptor), _READ | _EXECUTE)
    finally:
        os.close(descriptor)


def _map_code(target: Target, room: str) -> None:
    descriptor = os.open(_code_file(target, room), os.O_RDONLY)
    try:
        _map(_READ | _EXECUTE, _PRIVATE, descriptor)
    finally:
        os.close(descriptor)


@attack("EPERM", needs=_NOEXEC)
def code_in_a_scratch_file(target: Target) -> None:
    _map_code(target, "own")


@attack("EPERM", needs=_NOEXEC)
def code_in_a_data_file(target: Target) -> None:
    _map_code(target, "data")


def _library(target: Target, name: str) -> str:
    """Copy a shared object that this interpreter has loaded already."""
    with open(_ctypes.__file__, "rb") as file:
        content = file.read()
    path = f"{target['data']}/{name}"
    with open(path, "wb") as file:
        file.write(content)
    return path


@attack("OSError", needs=_NOEXEC, optional=True)
def load_a_library(target: Target) -> None:
    ctypes.CDLL(_library(target, "brought.so"))


@attack("ImportError", needs=_NOEXEC, optional=True)
def import_an_extension(target: Target) -> None:
    loader = importlib.machinery.ExtensionFileLoader("_ctypes", _library(target, "_ctypes.so"))
    importlib.util.module_from_spec(importlib.util.spec_from_loader("_ctypes", loader))  # type: ignore[arg-type]

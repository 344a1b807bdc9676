"""What an attack is. Standard library only: this runs in a plain interpreter and in a plugin."""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Target = dict[str, Any]
"""What to attack: the paths, ports, descriptors and facts that `selftest.targets` prepares."""

Run = Callable[[Target], object]

SUCCEEDED = "succeeded"

UNREACHABLE = ("EACCES", "ENOENT")
"""A file that Landlock closes, or that is not there in a root of one's own."""

HIDDEN = ("EPERM", "ESRCH")
"""A process that must not be touched, or that has no number in a namespace of one's own."""

UNWRITABLE = ("EACCES", "ENOENT", "EROFS")
"""The same for writing, where the file may also be there read-only."""


class Boundary(enum.StrEnum):
    """What an attack tries to cross. Each is also the name of a module, with underscores."""

    FILESYSTEM = "filesystem"
    NETWORK = "network"
    PROCESSES = "processes"
    SIGNALS = "signals"
    DESCRIPTORS = "descriptors"
    KERNEL_SURFACE = "kernel-surface"
    NATIVE_CODE = "native-code"
    INFORMATION_LEAKS = "information-leaks"
    PERSISTENCE = "persistence"
    HOST_RESOURCES = "host-resources"


MODULES = tuple(boundary.replace("-", "_") for boundary in Boundary)


class NothingThereError(Exception):
    """The attempt was not refused, and brought nothing: what it looked for is not there."""


@dataclass(frozen=True)
class Attack:
    """One attempt: it returns where nothing stops it, and raises where something does.

    Attributes:
        expected: what it may meet inside: the name of an errno, of an exception's class, or
            ``ended:`` and the cause where the host ends the plugin.
        root: an ordinary user cannot do it without the sandbox either.
        optional: a kernel may be built or set up without it.
        needs: the layers of confinement without which nothing stops it.
        ends_parent: signal that ends the attacked parent where the attack succeeds; 0 for none.
    """

    run: Run
    boundary: Boundary
    expected: tuple[str, ...]
    root: bool = False
    optional: bool = False
    needs: tuple[str, ...] = ()
    ends_parent: int = 0


ATTACKS: dict[str, Attack] = {}


def against(boundary: Boundary) -> Callable[..., Callable[[Run], Run]]:
    """Return a decorator that registers a function as an attack against `boundary`.

    The decorator's arguments are the `Attack.expected`, and its other fields by name.
    """

    def attack(*expected: str, **options: Any) -> Callable[[Run], Run]:
        def register(function: Run) -> Run:
            name = getattr(function, "__name__", "")
            assert name not in ATTACKS, name
            ATTACKS[name] = Attack(function, boundary, expected, **options)
            return function

        return register

    return attack


def named(name: str, call: Callable[[], object]) -> Run:
    """Return a call that needs no target as an attack of that name."""

    def run(_: Target) -> object:
        return call()

    run.__name__ = name
    return run


def outcome_of(name: str, target: Target) -> str:
    """Make the attempt; return `SUCCEEDED`, or the name of the errno or exception it met."""
    try:
        ATTACKS[name].run(target)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
        return type(error).__name__
    return SUCCEEDED


def host(target: Target) -> int:
    """Return the process that is attacked: the parent, or the host where that is hidden.

    Raises:
        ProcessLookupError: in here, its number is our own.
    """
    pid = os.getppid() or int(target["host_pid"])
    if pid == os.getpid():
        raise ProcessLookupError(errno.ESRCH, "the host's number is our own in here")
    return pid


@contextmanager
def counts_as_success(*numbers: int) -> Iterator[None]:
    """Swallow errors that only a caller meets whom the kernel has not refused.

    For calls that would do harm with sensible arguments, and are made with senseless ones.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def read_some(path: str) -> None:
    """Read one byte of a file."""
    with open(path, "rb") as file:
        if not file.read(1):
            raise NothingThereError(path)


def can_add_to(directory: str) -> None:
    """Make a file without a name in a directory: it is gone when it is closed."""
    os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600))


def can_change(path: str) -> None:
    """Open a file for writing, and write nothing."""
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))

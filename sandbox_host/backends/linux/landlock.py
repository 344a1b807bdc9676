"""Landlock as data: which rights are handled on which ABI, and which a place is given.

Source: Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. A right that
is handled is denied everywhere but below a rule that grants it; a right that the kernel does not
know yet cannot be handled, so each ABI has its own mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14

READ: Final = READ_FILE | READ_DIR
"""Read below a directory; no EXECUTE, ever: a plugin starts no program."""

OWN: Final = READ | WRITE_FILE | TRUNCATE | MAKE_DIR | MAKE_REG | REMOVE_DIR | REMOVE_FILE | REFER
"""A directory of one's own. Not among them: links, sockets, FIFOs and devices."""

WRITE: Final = OWN & ~READ
"""Change what is below a directory, and read neither files nor lists of names. REFER is safe to
give: what is moved never gains a right by it, the kernel refuses that (EXDEV)."""

_FILE_RIGHTS: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
"""What the kernel accepts in a rule for something that is no directory (EINVAL otherwise)."""

MINIMUM_ABI: Final = 2
"""Without REFER (ABI 1) every rename between directories fails; Debian 12's kernel has ABI 2."""

_FS_BY_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BY_ABI: Final = {4: 0b11}
_SCOPED_BY_ABI: Final = {6: 0b11}


@dataclass(frozen=True, slots=True)
class Place:
    """A path and the rights that hold at and below it.

    Attributes:
        identity: device and inode of what the host found there, and no link on the way to it: a
            rule is made for nothing else. None for the host's own, which nobody else moves about.
    """

    path: str
    rights: int
    is_directory: bool
    identity: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What one ABI can handle: file system rights, TCP rights, scopes."""

    abi: int
    fs: int
    net: int
    scoped: int


def ruleset_for(abi: int) -> Ruleset:
    """Return everything that the ABI can deny: bind and connect, abstract sockets, signals too."""
    return Ruleset(abi, _upto(_FS_BY_ABI, abi), _upto(_NET_BY_ABI, abi), _upto(_SCOPED_BY_ABI, abi))


def rules_for(ruleset: Ruleset, places: list[Place]) -> list[list[Any]]:
    """Return ``[path, rights]`` per place, cut to what the kernel accepts for it.

    A place with an identity has that as a third, ``[device, inode]``.
    """
    rules: list[list[Any]] = []
    for place in places:
        rights = place.rights & ruleset.fs
        rule = [place.path, rights if place.is_directory else rights & _FILE_RIGHTS]
        rules.append([*rule, *([list(place.identity)] if place.identity else [])])
    return rules


def _upto(table: dict[int, int], abi: int) -> int:
    known = [bits for since, bits in table.items() if since <= abi]
    return known[-1] if known else 0

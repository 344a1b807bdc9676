"""The operator's words about confinement: what may be missing, what is switched off, whose ids.

Readers of single fields of `HostConfig`; what they return is right, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Any, Final

from sandbox_host.errors import ConfigError
from sandbox_host.model import FIXED_LAYERS, Guarantee, Layer
from sandbox_host.reading import BadValueError, expected, read_list, read_match

_UID_RANGE: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_MAX_UID: Final = 2**31 - 1
_MAX_UIDS: Final = 100_000
_NOBODY_UIDS: Final = (65_534, 65_535)
"""The overflow id, which stands for everybody who is not mapped, and (uid_t)-1 of 16 bits."""


_SWITCHABLE: Final = tuple(layer for layer in Layer if layer not in FIXED_LAYERS)


def _listed(words: Iterable[StrEnum]) -> str:
    return ", ".join(words)


def _read_names(
    value: object, field: str, known: Collection[StrEnum], expectation: str
) -> frozenset[Any]:
    """Return the members that a list, or a set, of names stands for.

    Args:
        value: what was given.
        field: where.
        known: what can be named.
        expectation: the same in words, for whoever named something else.
    """
    members = {str(member): member for member in known}

    def read(entry: object, path: str) -> StrEnum:
        if not isinstance(entry, str) or entry not in members:
            raise expected(path, expectation, entry)
        return members[entry]

    given = sorted(value, key=str) if isinstance(value, frozenset | set) else value
    return frozenset(read_list(given, field, read))


def read_accepted(value: object) -> frozenset[Guarantee | Layer]:
    """Return what ``accept_missing`` names, given as a list or set of names.

    Raises:
        BadValueError: something is the name of neither a guarantee nor a layer.
    """
    told = f"the name of a guarantee ({_listed(Guarantee)}) or a layer ({_listed(Layer)})"
    return _read_names(value, "accept_missing", (*Guarantee, *Layer), told)


def read_disabled(value: object) -> frozenset[Layer]:
    """Return the layers that ``disable_layers`` names, given as a list or set of names.

    Raises:
        BadValueError: something is no layer's name.
        ConfigError: a layer is one of `FIXED_LAYERS`.
    """
    told = f"the name of a layer that can be switched off ({_listed(_SWITCHABLE)})"
    layers: frozenset[Layer] = _read_names(value, "disable_layers", tuple(Layer), told)
    if fixed := [layer for layer in Layer if layer in layers & FIXED_LAYERS]:
        raise ConfigError(
            f"disable_layers: {_listed(fixed)} cannot be switched off, and this host has no such "
            "switch: every system has it, no plugin needs less, and without it no promise of the "
            "other layers would hold.",
            remedy=f"Remove it from the list. What can be switched off: {_listed(_SWITCHABLE)}.",
        )
    return layers


def read_uids(value: object) -> tuple[int, int]:
    """Return the user ids of ``plugin_uids`` as (first, how many), given so or as "first-last".

    A list is refused: nobody could tell which of the two it is.

    Raises:
        BadValueError: it is neither; or the range is empty, too large, or has an id in it that is
            somebody's on every system.
    """
    path = "plugin_uids"
    if isinstance(value, str):
        what = 'user ids as "first-last", such as "61184-65183"'
        read_match(value, path, _UID_RANGE, what)
        first, last = map(int, value.split("-"))
    elif isinstance(value, tuple) and list(map(type, value)) == [int, int]:
        first, last = value[0], value[0] + value[1] - 1
    else:
        what = 'user ids as "first-last", in Python also the tuple (first, how many)'
        raise expected(path, what, value)
    if not 1 <= first <= last <= _MAX_UID:
        problem = f"expected a range that is not empty, from 1 to {_MAX_UID}; 0 is root"
        raise BadValueError(path, f"{problem}; got {first} to {last}")
    if last - first + 1 > _MAX_UIDS:
        raise BadValueError(path, f"expected at most {_MAX_UIDS} ids, got {last - first + 1}")
    for uid in _NOBODY_UIDS:
        if first <= uid <= last:
            problem = f"the range {first} to {last} includes {uid}"
            raise BadValueError(path, f"{problem}, which stands for users that are not known")
    return first, last - first + 1

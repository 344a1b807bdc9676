"""A manifest's and a plan's numbers and permissions, in a reader's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox_host.model import MIB
from sandbox_host.terms import LIMIT_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_host.model import Permissions

_KIB: Final = 1024


def size(count: int) -> str:
    """Return a number of bytes, such as ``1.5 KiB``."""
    if count < _KIB:
        return f"{count} B"
    if count < MIB:
        return f"{count / _KIB:.1f} KiB"
    return f"{count / MIB:.1f} MiB"


def counted(count: int, noun: str) -> str:
    """Return a number of things, such as ``1 key`` or ``2 keys``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def permission_lines(permissions: Permissions) -> list[str]:
    """Return one line for each permission; a single "nothing" where there is none."""
    lines = []
    for verb, values in (
        ("publish", permissions.publish),
        ("handle", permissions.subscribe),
        ("read", permissions.read),
        ("write", permissions.write),
        ("connect to", permissions.network),
        ("connect to the socket", permissions.unix),
        ("call the service", permissions.services),
        ("call the operation", permissions.calls),
        ("see the variable", permissions.env),
    ):
        lines += [f"{verb} {value}" for value in values]
    lines += ["bring native code"] if permissions.native_code else []
    lines += ["start processes"] if permissions.subprocess else []
    lines += ["start threads"] if permissions.threads else []
    return lines or ["nothing"]


def limit_lines(limits: Mapping[str, int | float]) -> list[str]:
    """Return one line for each limit that is named, as plugin.json writes it."""
    return [
        f"{key.key} {key.text(limits[key.field]).strip(chr(34))}"
        for key in LIMIT_KEYS
        if key.field in limits
    ]

"""Landlock (Documentation/userspace-api/landlock.rst)."""

from __future__ import annotations

import ctypes
import os

from plugin_sdk.lockdown.libc import check, libc
from plugin_sdk.lockdown.pinned import open_pinned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

# One number on every architecture.
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_ATTRIBUTES_SIZE = 24


def restrict_with_landlock(fs: int, net: int, scoped: int, rules: Iterable[Sequence[Any]]) -> None:
    """Deny every handled right but what ``rules`` grant below their paths.

    Args:
        fs: what is handled of files.
        net: of TCP.
        scoped: of signals and abstract sockets.
        rules: path and rights; and, where nothing else may have come in its place, device and
            inode of what is meant.
    """
    attributes = (ctypes.c_uint64 * 3)(fs, net, scoped)
    # An older kernel takes a shorter structure, and rejects bytes that it does not know unless 0.
    ruleset = check(
        libc.syscall(
            _SYS_CREATE_RULESET, attributes, ctypes.c_size_t(_ATTRIBUTES_SIZE), ctypes.c_uint32(0)
        ),
        "landlock_create_ruleset",
    )
    try:
        for path, rights, *identity in rules:
            _allow_beneath(ruleset, path, rights, *identity)
        result = libc.syscall(_SYS_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
        check(result, "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow_beneath(
    ruleset: int, path: str, rights: int, identity: Sequence[int] | None = None
) -> None:
    if identity is None:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    else:
        descriptor = open_pinned(path, identity)
    try:
        # struct landlock_path_beneath_attr is packed: 8 bytes of rights, 4 of descriptor.
        rule = rights.to_bytes(8, "little") + descriptor.to_bytes(4, "little")
        result = libc.syscall(
            _SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.c_char_p(rule), ctypes.c_uint32(0)
        )
        check(result, f"landlock_add_rule({path})")
    finally:
        os.close(descriptor)

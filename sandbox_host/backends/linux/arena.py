"""Makes the memory that a host shares with one plugin, for large payloads; see `wire.arena`.

The file without a name behind it has its full size before anybody else has it, and is sealed: what
the host has mapped cannot be cut off under it, which would end the host (SIGBUS), and the plugin
cannot make it grow. Pages are there once somebody has written to them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plugin_sdk.wire.arena import arena_bytes, map_arena
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES
from plugin_sdk.wire.message import HOST

if TYPE_CHECKING:
    from plugin_sdk.wire.arena import Arena

_MFD_NOEXEC_SEAL: Final = 8  # linux/memfd.h, since 6.3: it cannot be executed either
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_OVERCOMMIT: Final = Path("/proc/sys/vm/overcommit_memory")
_STRICT: Final = "2"


def make_arena(max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> tuple[int, Arena | None]:
    """Return a descriptor for the plugin's process, to be closed, and the host's view.

    Where there can be no such memory, the descriptor is of /dev/null and the view None: then
    payloads travel in the pipe.

    Args:
        max_payload_bytes: so large may payloads be.

    Raises:
        OSError: not even that could be opened.
    """
    if not _is_strict():
        with contextlib.suppress(OSError):
            return _made(arena_bytes(max_payload_bytes))
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), None


def _made(size: int) -> tuple[int, Arena]:
    descriptor = _file()
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        arena = map_arena(descriptor, HOST)
        if arena is None:
            text = "the memory cannot be mapped"
            raise OSError(text)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, arena


def _file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("sandbox-host-arena", flags | _MFD_NOEXEC_SEAL)
    except OSError:  # EINVAL: an older kernel
        return os.memfd_create("sandbox-host-arena", flags)


@cache
def _is_strict() -> bool:
    """Tell whether a page may be missing when it is written to: its writer would be ended."""
    try:
        return _OVERCOMMIT.read_text(encoding="ascii").strip() == _STRICT
    except OSError:
        return True

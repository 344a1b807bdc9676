"""Opens what the host has looked at, and nothing that was put in its place since.

Source: openat2(2), open(2) on O_PATH.
"""

from __future__ import annotations

import ctypes
import errno
import os

from plugin_sdk.lockdown.libc import check, libc

_SYS_OPENAT2 = 437  # one number on every architecture
_AT_FDCWD = -100
_RESOLVE_NO_SYMLINKS = 0x04

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def open_pinned(path: str, identity: Sequence[int]) -> int:
    """Return a descriptor (O_PATH) of what is at ``path``, without any link on the way.

    Args:
        path: an absolute path.
        identity: device and inode that it must have.

    Raises:
        OSError: it cannot be reached so, or is something else (ESTALE).
    """
    # struct open_how: flags, mode, resolve.
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    result = libc.syscall(_SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), how, size)
    descriptor = check(result, f"openat2 {path}")
    status = os.fstat(descriptor)
    if [status.st_dev, status.st_ino] != list(identity):
        os.close(descriptor)
        text = f"{path} is not what it was when the plan was made"
        raise OSError(errno.ESTALE, text)
    return descriptor

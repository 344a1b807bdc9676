"""Puts a file in the place of another in one step: a reader sees the old bytes or the new ones.

What is half written has a name of its own, and is gone if it cannot be finished; rename(2) does the
rest. All of it by the directory's descriptor, so that nobody leads it elsewhere meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO, Final

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def replacing(
    parent: int, name: str, mode: int, *, exactly: int | None = None
) -> Iterator[BinaryIO]:
    """Give a new file to write to, and put it in the place of ``name`` when the block ends well.

    Its bytes are on the disk by then; its name is when the directory is synchronised.

    Args:
        parent: descriptor of the directory.
        name: in that directory; a link that stands there is replaced, not followed.
        mode: of the new file, before the umask.
        exactly: its mode whatever the umask says; None leaves it.

    Raises:
        OSError: it cannot be written; what was there is there still.
    """
    temporary = f".{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, _CREATE, mode, dir_fd=parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if exactly is not None:
                os.fchmod(descriptor, exactly)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise

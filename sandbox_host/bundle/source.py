"""The two forms that a bundle comes in, a directory and an archive, read by one function."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox_host.bundle.archive import read_archive
from sandbox_host.bundle.contents import Contents, ReadLimits
from sandbox_host.bundle.reader import read_directory


def read_bundle(path: Path, limits: ReadLimits | None = None) -> Contents:
    """Read a plugin, whichever form it comes in; the same files are the same `Contents`.

    Args:
        path: a directory, or a ``.plugin`` archive; never through a symbolic link.
        limits: caps on counts, depth and sizes, checked before memory is taken.

    Raises:
        BundleError: as `reader.read_directory` and `archive.read_archive` do.
    """
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        is_directory = True  # whose reader says why it cannot be opened
    # Exchanged since: either reader opens nothing but its own kind.
    return read_directory(path, limits) if is_directory else read_archive(path, limits)
